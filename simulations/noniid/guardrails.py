"""The guardrails that are compared: which bound each takes, and what the bound promises.

The bounds are the service's own (`guardrail.bounds`). The aggregations are those of the paper's authors'
experiments over the plausible set, other than its maximum; they promise nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from guardrail import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulations.noniid.bandit_class import BanditClass, Halves
    from simulations.noniid.config import Aggregation

Kind: TypeAlias = Literal[
    "none",
    "cheating",
    "predictive",
    "iid",
    "plausible",
    "plausible-running",
    "ratio",
    "ratio-running",
    "aggregate-maximum",
    "aggregate-quantile",
    "aggregate-arithmetic",
    "aggregate-geometric",
    "aggregate-harmonic",
    "aggregate-softmax",
    "aggregate-increase",
]
Order: TypeAlias = Literal["all", "ascending", "descending", "random"]

RUNNING = frozenset({"plausible-running", "ratio-running"})
BY_ALPHA = frozenset({"plausible", "plausible-running"})
BY_DELTA = frozenset({"ratio", "ratio-running"})
NO_INCREASE = 1e-8
"""A rise in posterior mass up to it is taken for rounding; the most probable hypothesis then stands for all."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One guardrail.

    Attributes:
        kind: which bound.
        level: alpha of the plausible set or delta of the ratio set; None for bounds without one.
        ties: what the plausible set does with hypotheses tied with its last member; None for other bounds.
    """

    kind: Kind
    level: float | None = None
    ties: Order | None = None

    @property
    def alpha(self) -> float | None:
        """The level of a plausible set."""
        return None if self.kind in BY_DELTA else self.level

    @property
    def delta(self) -> float | None:
        """The level of a ratio set."""
        return self.level if self.kind in BY_DELTA else None

    def guarantee(self, smallest_prior: float) -> str:
        """What the bound promises: theorem, asymptotic or none. A level that buys no confidence promises nothing."""
        if self.confidence(smallest_prior) is not None:
            return "theorem"
        return "asymptotic" if self.kind == "iid" else "none"

    def confidence(self, smallest_prior: float) -> float | None:
        """With which probability the bound holds for all arms at all steps; None if nothing is promised.

        A plausible set of level alpha holds the truth with confidence 1 - alpha / P(truth).
        """
        if self.level is None or self.kind not in BY_ALPHA | BY_DELTA:
            return None
        delta = self.level if self.kind in BY_DELTA else self.level / smallest_prior
        return 1.0 - delta if delta < 1.0 else None


class Moment(NamedTuple):
    """What a bound may look at, in one episode at one step.

    Attributes:
        log_posterior: float64[H].
        mass: float64[H], its exponential.
        previous_mass: float64[H], the mass before the last observation.
        members: bool[H], the running intersection so far.
        order: int32[H], the random order of hypotheses in which ties are cut, or int32[1] if none is needed.
        true_levels: int64[A], the mean rewards.
        halves: the levels of the arms.
    """

    log_posterior: jax.Array
    mass: jax.Array
    previous_mass: jax.Array
    members: jax.Array
    order: jax.Array
    true_levels: jax.Array
    halves: Halves


def expand(
    kinds: Sequence[Kind], alphas: Sequence[float], deltas: Sequence[float], ties: Sequence[Order]
) -> list[Guardrail]:
    """Every kind at every level that it has, in the order of the table."""
    found: list[Guardrail] = []
    for kind in kinds:
        if kind in BY_DELTA:
            found += [Guardrail(kind, delta) for delta in deltas]
        elif kind in BY_ALPHA or kind.startswith("aggregate"):
            found += [Guardrail(kind, alpha, order) for order in ties for alpha in alphas]
        else:
            found.append(Guardrail(kind))
    return found


def bound(
    kind: Kind, ties: Order | None, bandits: BanditClass, aggregation: Aggregation
) -> Callable[[jax.Array, Moment], tuple[jax.Array, jax.Array]]:
    """The bound as a function of its level, float64[], and the moment.

    Returns:
        A function whose results are float64[A], the bound of every arm, and bool[H], the running
        intersection after this moment (as it was, for bounds that have none).
    """

    def compute(level: jax.Array, now: Moment) -> tuple[jax.Array, jax.Array]:
        harm = bandits.harm_of_level()
        members = now.members
        match kind:
            case "none":
                return jnp.zeros(now.true_levels.shape, jnp.float64), members
            case "cheating":
                return harm[now.true_levels], members
            case "predictive":
                return _predictive(harm, bandits.mass_by_level(now.mass, now.halves)), members
            case "iid":
                largest = bandits.largest_by_level(now.log_posterior, now.halves)
                return jax.vmap(lambda values: bounds.iid(values, harm[:, None])[0])(largest), members
        present = _set(kind, ties, level, now, bandits)
        if kind in RUNNING:
            present = members = bounds.intersect(members, present)
        if kind in BY_ALPHA | BY_DELTA:
            largest = bandits.largest_level(present, now.halves)
            # Harm does not decrease with the level: this is `bounds.set_bound` over all hypotheses.
            level_of_set = jnp.clip(largest, 0.0, bandits.level_count - 1.0).astype(jnp.int32)
            return jnp.where(bounds.is_refuted(present), 1.0, harm[level_of_set]), members
        return _aggregate(kind, present, now, harm, bandits, aggregation), members

    return compute


def _predictive(harm: jax.Array, mass: jax.Array) -> jax.Array:
    """float64[A]: the posterior predictive harm, of masses by level, float64[A, V]."""
    return jax.vmap(lambda of_arm: bounds.predictive(jnp.log(of_arm), harm[:, None])[0])(mass)


def _set(kind: Kind, ties: Order | None, level: jax.Array, now: Moment, bandits: BanditClass) -> jax.Array:
    """bool[H]: the set of the moment."""
    posterior = now.log_posterior
    if kind in BY_DELTA:
        return bounds.ratio_set(posterior, bandits.log_prior, level)
    match ties:
        case "ascending":
            return bounds.plausible_set(posterior, level, "ordered")
        case "descending":
            return bounds.plausible_set(posterior[::-1], level, "ordered")[::-1]
        case "random":
            shuffled = bounds.plausible_set(posterior[now.order], level, "ordered")
            return jnp.zeros_like(shuffled).at[now.order].set(shuffled, unique_indices=True)
        case _:
            return bounds.plausible_set(posterior, level, "all")


def _aggregate(
    kind: Kind, members: jax.Array, now: Moment, harm: jax.Array, bandits: BanditClass, aggregation: Aggregation
) -> jax.Array:
    """float64[A]: the authors' aggregations of harm over a set."""
    count = bandits.mass_by_level(members.astype(jnp.float64), now.halves)
    match kind:
        case "aggregate-maximum":
            return jnp.max(jnp.where(count > 0.5, harm, 0.0), axis=1)
        case "aggregate-quantile":
            return jax.vmap(lambda of_arm: _quantile(harm, of_arm, aggregation.quantile))(count)
        case "aggregate-softmax":
            weight = jnp.where(members, jnp.exp((now.mass - jnp.max(now.mass)) / aggregation.temperature), 0.0)
        case "aggregate-increase":
            increase = jnp.where(members, jnp.maximum(now.mass - now.previous_mass, 0.0), 0.0)
            top = jnp.zeros_like(increase).at[jnp.argmax(now.mass)].set(1.0)
            weight = jnp.where(jnp.max(increase) > NO_INCREASE, increase, top)
        case _:
            weight = jnp.where(members, now.mass, 0.0)
    share = bandits.mass_by_level(weight / jnp.sum(weight), now.halves)
    power = aggregation.exponent
    match kind:
        case "aggregate-geometric":
            return jnp.exp(share @ jnp.log(harm))
        case "aggregate-harmonic":
            return (share @ harm**-power) ** (-1.0 / power)
        case _:
            return (share @ harm**power) ** (1.0 / power)


def _quantile(harm: jax.Array, count: jax.Array, quantile: float) -> jax.Array:
    """float64[]: the quantile of harm over a set with `count` members of each level, interpolated linearly."""
    before = jnp.cumsum(count)
    place = quantile * (before[-1] - 1.0)
    low, high = jnp.floor(place), jnp.ceil(place)
    at = jnp.searchsorted(before, jnp.stack([low, high]) + 0.5)
    values = harm[jnp.minimum(at, harm.shape[0] - 1)]
    return values[0] + (place - low) * (values[1] - values[0])
