"""Many episodes at once: lanes that take the next episode as soon as theirs has ended.

A lane holds one episode's posterior. In every turn of one loop each lane checks all arms, pulls one of
those that are not rejected and conditions on the reward; a lane whose episode has ended writes its result
and takes the next item of work, so that no lane waits for a longer episode. An item is an episode under
one threshold and level; items of one kind of bound share a compiled program. An episode's numbers depend
on its seed and its guardrail alone, not on what runs beside it.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from simulations.environments import vectorised
from simulations.noniid.bandit_class import BanditClass
from simulations.noniid.guardrails import RUNNING, Guardrail, Kind, Moment, Order, bound

if TYPE_CHECKING:
    from simulations.noniid.config import NoniidConfig

LANE_NUMBERS = 2**18
"""Hypotheses in all lanes together: their float64 arrays then stay in a processor's cache."""
MAX_LANES = 1024


class Episodes(NamedTuple):
    """The problems of a chunk of N episodes and their chance; the same under every guardrail.

    Attributes:
        features: float64[N, A, dim].
        levels: int32[N, A], the arms' mean rewards.
        noise: float64[N, T].
        choice: float64[N, T, A].
        order: int32[N, H], random orders of the hypotheses, or int32[N, 1] if none is needed.
    """

    features: jax.Array
    levels: jax.Array
    noise: jax.Array
    choice: jax.Array
    order: jax.Array


class Outcomes(NamedTuple):
    """What came of each item of work.

    Attributes:
        reward: float64[items], sum of the rewards, that of an explosion included.
        steps: int32[items], arms pulled.
        rejections: int32[items], arms that the agent chose and the guardrail rejected.
        exploded: bool[items].
        exhausted: bool[items], whether the episode ended because every arm was rejected.
    """

    reward: jax.Array
    steps: jax.Array
    rejections: jax.Array
    exploded: jax.Array
    exhausted: jax.Array


class _Lanes(NamedTuple):
    """The episodes that are being played, L of them; a lane whose item is beyond the last one idles."""

    item: jax.Array
    step: jax.Array
    log_weight: jax.Array
    previous_mass: jax.Array
    members: jax.Array
    reward: jax.Array
    rejections: jax.Array


@partial(jax.jit, static_argnames=("seed", "count", "arms", "dim", "levels", "steps", "hypotheses"))
def draw_episodes(
    seed: int, first: jax.Array, count: int, arms: int, dim: int, levels: int, steps: int, hypotheses: int
) -> Episodes:
    """The problems and the chance of episodes first, ..., first + count - 1.

    Args:
        seed: of the suite.
        first: int64[], number of the first episode.
        count: how many.
        arms: number of arms.
        dim: number of features.
        levels: number of values of a feature and a weight.
        steps: longest episode.
        hypotheses: H if random orders of the hypotheses are needed, else 1.
    """

    def draw(episode: jax.Array) -> Episodes:
        key = vectorised.episode_key(seed, episode)
        problem = vectorised.draw_problem(key, arms, dim, levels)
        noise = vectorised.draw_noise(key, steps, arms)
        order = jax.random.permutation(jax.random.fold_in(key, hypotheses), hypotheses).astype(jnp.int32)
        mean = vectorised.means(problem).astype(jnp.int32)
        return Episodes(problem.features.astype(jnp.float64), mean, noise.reward, noise.choice, order)

    return jax.vmap(draw)(first + jnp.arange(count))


def lane_count(hypotheses: int) -> int:
    """How many episodes are played at once."""
    return max(1, min(MAX_LANES, LANE_NUMBERS // hypotheses))


class Engine:
    """Plays the episodes of one configuration.

    Args:
        config: the suite's parameters.
        threshold: a reward above it explodes.
    """

    def __init__(self, config: NoniidConfig, threshold: float) -> None:
        self._config, self._threshold = config, threshold
        self._bandits = BanditClass(config.dim, config.levels, config.sigma, threshold)
        self._lanes = lane_count(self._bandits.size)
        self._programs: dict[tuple[Kind, Order | None], _Program] = {}

    def draw(self, first: int, count: int, *, orders: bool) -> Episodes:
        """The problems and the chance of `count` episodes from number `first` on."""
        c = self._config
        hypotheses = self._bandits.size if orders else 1
        episodes: Episodes = draw_episodes(c.seed, np.int64(first), count, c.arms, c.dim, c.levels, c.steps, hypotheses)
        return episodes

    def program(self, kind: Kind, ties: Order | None) -> _Program:
        """The loop of one kind of bound, compiled at its first call."""
        if (kind, ties) not in self._programs:
            program = _Program(self._bandits, self._lanes, kind, ties, self._config, self._threshold)
            self._programs[kind, ties] = program
        return self._programs[kind, ties]


class _Program:
    """The loop for one kind of bound.

    Called with episodes and one threshold and level for each of C cells (float64[C] both), it plays every
    episode under every cell; its outcomes are in the order of cells, then episodes.
    """

    def __init__(
        self,
        bandits: BanditClass,
        lanes: int,
        kind: Kind,
        ties: Order | None,
        config: NoniidConfig,
        threshold: float,
    ) -> None:
        self._bandits, self._lanes, self._running = bandits, lanes, kind in RUNNING
        self._remembers = kind == "aggregate-increase"
        # Only what a bound looks at is carried: the rest has length one.
        self._prior_mass = np.exp(bandits.log_prior) if self._remembers else np.zeros(1)
        self._bound = bound(kind, ties, bandits, config.aggregation())
        self._beta, self._sigma, self._threshold, self._steps = config.beta, config.sigma, threshold, config.steps
        self.play = jax.jit(self._play)

    def _play(self, episodes: Episodes, thresholds: jax.Array, levels: jax.Array) -> Outcomes:
        count = episodes.features.shape[0]
        items = count * thresholds.shape[0]
        lanes = min(self._lanes, items)
        numbers = jnp.arange(lanes, dtype=jnp.int32)
        start = _Lanes(
            item=numbers,
            step=jnp.zeros(lanes, jnp.int32),
            log_weight=jnp.broadcast_to(self._bandits.log_prior, (lanes, self._bandits.size)),
            previous_mass=jnp.broadcast_to(self._prior_mass, (lanes, len(self._prior_mass))),
            members=jnp.ones((lanes, self._bandits.size if self._running else 1), jnp.bool_),
            reward=jnp.zeros(lanes),
            rejections=jnp.zeros(lanes, jnp.int32),
        )
        outcomes = Outcomes(
            jnp.zeros(items),
            jnp.zeros(items, jnp.int32),
            jnp.zeros(items, jnp.int32),
            jnp.zeros(items, jnp.bool_),
            jnp.zeros(items, jnp.bool_),
        )
        step = partial(self._turn, episodes, thresholds, levels, count, items)
        taken = jnp.asarray(lanes, jnp.int32)
        _, _, outcomes = lax.while_loop(lambda state: jnp.any(state[0].item < items), step, (start, taken, outcomes))
        return outcomes

    def _turn(
        self,
        episodes: Episodes,
        thresholds: jax.Array,
        levels: jax.Array,
        count: int,
        items: int,
        state: tuple[_Lanes, jax.Array, Outcomes],
    ) -> tuple[_Lanes, jax.Array, Outcomes]:
        lanes, taken, outcomes = state
        item = jnp.minimum(lanes.item, items - 1)
        episode, cell = item % count, item // count
        features = episodes.features[episode]
        pulled = jax.vmap(self._step)(
            lanes,
            features,
            episodes.levels[episode],
            episodes.noise[episode, lanes.step],
            episodes.choice[episode, lanes.step],
            episodes.order[episode] if episodes.order.shape[1] > 1 else jnp.zeros((len(item), 1), jnp.int32),
            thresholds[cell],
            levels[cell],
        )
        after, exploded, exhausted = pulled
        ended = exploded | exhausted | (after.step >= self._steps)
        place = jnp.where(ended, lanes.item, items)  # an index beyond the end is dropped
        outcomes = Outcomes(
            *(
                old.at[place].set(new, mode="drop")
                for old, new in zip(
                    outcomes, (after.reward, after.step, after.rejections, exploded, exhausted), strict=True
                )
            )
        )
        ended &= lanes.item < items
        following = taken + jnp.cumsum(ended, dtype=jnp.int32) - 1
        reset = ended[:, None]
        lanes = _Lanes(
            item=jnp.where(ended, following, lanes.item),
            step=jnp.where(ended, 0, after.step),
            log_weight=jnp.where(reset, self._bandits.log_prior, after.log_weight),
            previous_mass=jnp.where(reset, self._prior_mass, after.previous_mass),
            members=after.members | reset,
            reward=jnp.where(ended, 0.0, after.reward),
            rejections=jnp.where(ended, 0, after.rejections),
        )
        return lanes, taken + jnp.sum(ended, dtype=jnp.int32), outcomes

    def _step(
        self,
        lane: _Lanes,
        features: jax.Array,
        true_levels: jax.Array,
        noise: jax.Array,
        choice: jax.Array,
        order: jax.Array,
        threshold: jax.Array,
        level: jax.Array,
    ) -> tuple[_Lanes, jax.Array, jax.Array]:
        """One step of one episode: the lane after it, whether it exploded, whether no arm was left."""
        relative = lane.log_weight - jnp.max(lane.log_weight)
        weight = jnp.exp(relative)
        total = jnp.sum(weight)
        mass = weight / total
        now = Moment(
            relative - jnp.log(total),
            mass,
            lane.previous_mass,
            lane.members,
            order,
            true_levels,
            self._bandits.halves(features),
        )
        harm_bound, members = self._bound(level, now)
        rejected = ~(harm_bound <= threshold)  # NaN is rejected
        preference = self._beta * (features @ self._bandits.mean_weights(mass)) + choice
        arm = jnp.argmax(jnp.where(rejected, -jnp.inf, preference))
        exhausted = jnp.all(rejected)
        # The agent draws arms without replacement until one is not rejected: those preferred to it came first.
        refused = jnp.sum(rejected & (exhausted | (preference > preference[arm])), dtype=jnp.int32)
        reward, exploded = vectorised.pull(
            true_levels[arm].astype(jnp.float64), noise, self._sigma, jnp.asarray(self._threshold)
        )
        log_weight = lane.log_weight + self._bandits.log_likelihood(features[arm], reward)
        after = lane._replace(
            step=jnp.where(exhausted, lane.step, lane.step + 1),
            log_weight=log_weight,
            previous_mass=mass if self._remembers else lane.previous_mass,
            members=members,
            reward=jnp.where(exhausted, lane.reward, lane.reward + reward),
            rejections=lane.rejections + refused,
        )
        return after, exploded & ~exhausted, exhausted


@lru_cache(maxsize=2)
def engine_for(config: NoniidConfig, threshold: float) -> Engine:
    """An engine that the chunks of a run share, so that each program is compiled once."""
    return Engine(config, threshold)


def by_program(guardrails: list[Guardrail]) -> dict[tuple[Kind, Order | None], list[int]]:
    """Which guardrails share a compiled program: their places in the list."""
    groups: dict[tuple[Kind, Order | None], list[int]] = {}
    for place, guardrail in enumerate(guardrails):
        groups.setdefault((guardrail.kind, guardrail.ties), []).append(place)
    return groups


def as_arrays(outcomes: Outcomes, cells: int) -> dict[str, npt.NDArray[np.generic]]:
    """The outcomes as NumPy arrays of shape [cells, episodes]."""
    return {name: np.asarray(value).reshape(cells, -1) for name, value in outcomes._asdict().items()}
