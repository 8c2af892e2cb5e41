"""All bounds of the same episodes: what is pulled does not depend on them, so the posterior is shared."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from simulations.environments import vectorised
from simulations.noniid.bandit_class import BanditClass
from simulations.noniid.config import Aggregation
from simulations.noniid.engine import Episodes, by_program, draw_episodes, lane_count
from simulations.noniid.guardrails import Moment, bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulations.tightness.config import TightnessConfig

_NO_AGGREGATION = Aggregation(quantile=1.0, exponent=1.0, temperature=1.0)


class Comparison(NamedTuple):
    """Of G bounds in each of N episodes.

    Attributes:
        over: int32[N, G], steps at which the bound of the pulled arm was at least its true harm.
        held: bool[N, G], whether the bound of every arm at every step was.
        even: int32[N, G, V], how often each level was the bound of an arm whose true harm is exactly 1/2,
            over all such arms and all steps.
    """

    over: jax.Array
    held: jax.Array
    even: jax.Array


def draw(config: TightnessConfig, first: int, count: int, hypotheses: int) -> Episodes:
    """Problems and chance of `count` episodes; the arm with the largest `choice` is uniform."""
    c = config
    drawn: Episodes = draw_episodes(c.seed, np.int64(first), count, c.arms, c.dim, c.levels, c.steps, hypotheses)
    return drawn


def compare(config: TightnessConfig, threshold: float, episodes: Episodes) -> Comparison:
    """The bounds of all guardrails of the configuration along the episodes; under 64-bit mode.

    Args:
        config: the suite's parameters.
        threshold: a reward above it is harm.
        episodes: N of them.
    """
    compared: Comparison = _program(config, threshold)(episodes)
    return compared


@lru_cache(maxsize=2)
def _program(config: TightnessConfig, threshold: float) -> Callable[[Episodes], Comparison]:
    """The comparison, compiled once for all chunks of a run."""
    bandits = BanditClass(config.dim, config.levels, config.sigma, threshold)
    play = partial(_episode, config, bandits, threshold)
    lanes = lane_count(bandits.size)
    return jax.jit(lambda episodes: lax.map(play, episodes, batch_size=lanes))


def _episode(config: TightnessConfig, bandits: BanditClass, threshold: float, episode: Episodes) -> Comparison:
    halves = bandits.halves(episode.features)
    harm = bandits.harm_of_level()
    even = episode.levels == threshold
    guardrails = config.guardrails()

    def all_bounds(now: Moment) -> jax.Array:
        """float64[G, A]."""
        found = jnp.zeros((len(guardrails), config.arms))
        for (kind, ties), places in by_program(guardrails).items():
            levels = jnp.array([guardrails[place].level or 0.0 for place in places])
            of_kind = bound(kind, ties, bandits, _NO_AGGREGATION)
            # A bound without a level is computed once.
            values = jax.vmap(lambda level, of_kind=of_kind: of_kind(level, now)[0])(levels)
            found = found.at[jnp.array(places)].set(values)
        return found

    def step(
        state: tuple[jax.Array, Comparison], chance: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, Comparison], None]:
        log_weight, so_far = state
        noise, choice = chance
        relative = log_weight - jnp.max(log_weight)
        mass = jnp.exp(relative)
        total = jnp.sum(mass)
        nothing = jnp.zeros(1)
        now = Moment(
            relative - jnp.log(total),
            mass / total,
            nothing,
            nothing > 0.0,
            episode.order,
            episode.levels,
            halves,
        )
        found = all_bounds(now)
        enough = found >= harm[episode.levels]
        arm = jnp.argmax(choice)
        # Bounds are harms of levels, so that the level is found again by counting the smaller harms.
        level = jnp.sum(found[:, :, None] > harm, axis=2)
        counted = jnp.sum((level[:, :, None] == jnp.arange(harm.shape[0])) & even[:, None], axis=1, dtype=jnp.int32)
        reward, _ = vectorised.pull(
            episode.levels[arm].astype(jnp.float64), noise, config.sigma, jnp.asarray(threshold)
        )
        so_far = Comparison(so_far.over + enough[:, arm], so_far.held & jnp.all(enough, axis=1), so_far.even + counted)
        return (log_weight + bandits.log_likelihood(episode.features[arm], reward), so_far), None

    count = len(guardrails)
    start = Comparison(
        jnp.zeros(count, jnp.int32),
        jnp.ones(count, jnp.bool_),
        jnp.zeros((count, harm.shape[0]), jnp.int32),
    )
    (_, compared), _ = lax.scan(step, (jnp.asarray(bandits.log_prior), start), (episode.noise, episode.choice))
    return compared
