"""The probability of harm from the distribution of an outcome, never rounded down.

With a cumulative distribution function F the probability of an interval is a difference of its values. Ends count
as inside, which for continuous outcomes changes nothing and for counts is the larger number. Where there is no F,
outcomes are simulated and the answer is a one-sided Clopper-Pearson limit: with probability at least 1 - delta over
the simulation it is at least the probability of one hypothesis and one input. That is enough for the true hypothesis
of one check, which is fixed before the simulation. It is not enough for all checks at once: an agent that asks often
enough finds an input for which the simulation, which is the same every time, was lucky. So whatever is
computed from it is an estimate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.domain import BooleanHarm, HarmEvent, IntervalHarm

if TYPE_CHECKING:
    from guardrail.policy.program_schema import MonteCarloHarm

MARGIN = 1e-9
"""Added to every probability: more than library functions err in float64."""


def has_cdf(distribution: Any) -> bool:
    """Whether a distribution of a number knows its cumulative distribution function."""
    try:
        jax.eval_shape(distribution.cdf, jnp.zeros(()))
    except (NotImplementedError, ImportError, AttributeError):
        return False
    return True


def probability(distribution: Any, event: HarmEvent) -> jax.Array:
    """float64[]: the probability of the event, never below the exact one; NaN if it is no probability.

    Args:
        distribution: of the outcome; with a cdf if the event is an interval.
        event: of a Boolean or a number.
    """
    if isinstance(event, BooleanHarm):
        return _raised(jnp.exp(distribution.log_prob(jnp.asarray(1.0 if event.harmful else 0.0))))
    if not isinstance(event, IntervalHarm):
        raise TypeError(f"{event} says nothing of the outcome")
    inner = _cdf(distribution, event.upper) - _cdf(distribution, event.lower)
    if event.inside:
        return _raised(inner + _mass(distribution, event.lower))
    return _raised(1.0 - inner + _mass(distribution, event.upper))


def simulated(distribution: Any, event: HarmEvent, key: jax.Array, limits: jax.Array) -> jax.Array:
    """float64[]: a one-sided confidence limit on the probability of the event.

    Args:
        distribution: of the outcome.
        event: an interval of a number.
        key: of the simulation.
        limits: float64[n + 1], the limit for each number of harmful outcomes among n; see `confidence_limits`.
    """
    if not isinstance(event, IntervalHarm):
        raise TypeError(f"{event} is not an interval")
    outcomes = distribution.sample(key, (limits.shape[0] - 1,))
    inside = (outcomes >= event.lower) & (outcomes <= event.upper)
    outside = (outcomes <= event.lower) | (outcomes >= event.upper)
    harmful = (inside if event.inside else outside) | jnp.isnan(outcomes)
    return limits[jnp.sum(harmful)]


def confidence_limits(spec: MonteCarloHarm) -> npt.NDArray[np.float64]:
    """float64[n + 1]: the upper Clopper-Pearson limit at error delta for k = 0..n harmful outcomes of n."""
    from scipy.special import betaincinv

    count = np.arange(spec.samples)
    limits = betaincinv(count + 1.0, spec.samples - count, 1.0 - spec.delta)
    return np.append(np.minimum(limits + MARGIN, 1.0), 1.0)


def of_model(harm: Any) -> jax.Array:
    """float64[]: what a program's own site `harm` says, raised by its rounding; NaN if it is no probability."""
    value = jnp.asarray(harm, jnp.float64)
    return jnp.where((value >= 0.0) & (value <= 1.0), jnp.minimum(value + MARGIN, 1.0), jnp.nan)


def _cdf(distribution: Any, end: float) -> jax.Array:
    if math.isinf(end):
        return jnp.asarray(0.0 if end < 0 else 1.0)
    return jnp.asarray(distribution.cdf(jnp.asarray(end)), jnp.float64)


def _mass(distribution: Any, end: float) -> jax.Array:
    """The mass of one end of an interval: that of counts; 0 for a continuous outcome."""
    if math.isinf(end) or not distribution.is_discrete:
        return jnp.zeros(())
    return jnp.exp(distribution.log_prob(jnp.asarray(end)))


def _raised(value: jax.Array) -> jax.Array:
    usable = (value >= -MARGIN) & (value <= 1.0 + MARGIN)
    return jnp.where(usable, lax.clamp(0.0, value.astype(jnp.float64) + MARGIN, 1.0), jnp.nan)
