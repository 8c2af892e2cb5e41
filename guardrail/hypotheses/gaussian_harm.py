"""Harm probabilities of a Gaussian outcome, never rounded down.

The upper tail of the normal distribution is computed as

    P(X > x) = exp(-x^2 / 2) * g(z) / (2 * (1 + 2 z)),   z = x / sqrt(2) >= 0,   g(z) = (1 + 2 z) exp(z^2) erfc(z),

where g is a smooth, bounded function that a Chebyshev series in (z - 15/4) / (z + 15/4) gives to
3e-15 (Shepherd and Laframboise 1981; the coefficients here were computed with 60 digits). The
relative error of the whole is below 1e-12 for |x| <= LARGEST_QUANTILE; MARGIN, twice that, is
added. Unlike a chain of library calls it is one branch-free expression that vectorises well,
which matters because the posterior predictive harm needs it for every hypothesis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from guardrail.hypotheses.product_grid import EPSILON, outer_sum

if TYPE_CHECKING:
    from guardrail.domain import IntervalHarm

MARGIN = 2e-12
"""Relative error allowed to a float64 tail probability, added to what is reported."""

LARGEST_QUANTILE = {np.dtype(np.float64): 25.0, np.dtype(np.float32): 9.0}
"""Quantiles are clipped to it: a harm below 1e-137 is reported as about 1e-137, and nothing becomes
a denormal number, on which processors are slow (for float32 1e-19)."""

_CENTRE = 3.75
_SERIES = (
    1.1775789345674017,
    -0.004590054580646478,
    -0.08424913336651792,
    0.05920993999819189,
    -0.026658668435305753,
    0.009074997670705265,
    -0.002413163540417608,
    0.0004907758365258086,
    -6.916973302501207e-05,
    4.13902798607301e-06,
    7.74038306619849e-07,
    -2.1886401049234397e-07,
    1.076499946567091e-08,
    4.521959811218287e-09,
    -7.754400208831351e-10,
    -6.318088340886684e-11,
    2.86879501093067e-11,
    1.9455868545777347e-13,
    -9.65469674843344e-13,
    3.25254814814874e-14,
    3.3478119482868056e-14,
)

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
_COEFFICIENTS = {
    _FLOAT64: tuple(float(c) for c in chebyshev.cheb2poly(np.array(_SERIES))),
    _FLOAT32: tuple(float(c) for c in chebyshev.cheb2poly(np.array(_SERIES[:9]))),
}
"""Of the powers of the series' argument, lowest first; nine of them are enough for a relative error of 1e-5."""


def normal_cdf(x: jax.Array) -> jax.Array:
    """P(X <= x) for a standard normal X, in the format of `x`; NaN stays NaN.

    In float64 it is never below the exact probability, and above it by a relative 1e-11 at most; for x below
    -LARGEST_QUANTILE it is the probability at that quantile. In float32 it is accurate to a relative 1e-5.
    """
    tail, margin, ulp = _upper_tail(jnp.abs(x)), _margin(x), float(np.finfo(x.dtype).eps)
    above = jnp.minimum(1.0 - tail * (1.0 - margin) + ulp, 1.0)
    return jnp.where(x > 0.0, above, tail * (1.0 + margin))


def interval_score(event: IntervalHarm, outer: jax.Array, inner: jax.Array, rounding: jax.Array) -> jax.Array:
    """A score of the means `outer_sum(outer, inner)` whose order is the order of harm.

    Args:
        event: the harm event over the outcome.
        outer: float64[R], first parts of the means.
        inner: float64[C], second parts.
        rounding: float64[] or float64[R], most by which rounding may have moved a mean, with room for two more
            additions of its size; the score is raised by it.

    Returns:
        float64[R * C]: the mean if harm is a high outcome, minus the mean if it is a low one; for an
        interval plus or minus the distance of the mean from the interval's centre.
    """
    match _side(event):
        case "above":
            return outer_sum(outer + rounding, inner)
        case "below":
            return outer_sum(rounding - outer, -inner)
        case "inside" | "outside" as side:
            centre = _centre(event)
            distance = jnp.abs(outer_sum(outer - centre, inner))
            raised = outer_sum(rounding + 0.0 * outer, 0.0 * inner) + 4 * EPSILON * abs(centre)
            return distance + raised if side == "outside" else raised - distance
        case _:
            return outer_sum(0.0 * outer, 0.0 * inner)


def interval_score_ceiling(
    event: IntervalHarm, outer: jax.Array, lowest: jax.Array, highest: jax.Array, rounding: jax.Array
) -> jax.Array:
    """float64[R]: at least every score of `interval_score` with these first parts and second parts in a range.

    Args:
        event: the harm event over the outcome.
        outer: float64[R], first parts of the means.
        lowest: float64[], the smallest second part.
        highest: float64[], the largest one.
        rounding: as for `interval_score`.
    """
    # Rounding is monotone, so that at the ends of the range the very scores of those ends are computed.
    ends = jnp.stack([interval_score(event, outer, end[None], rounding) for end in (lowest, highest)])
    if _side(event) != "inside":
        return jnp.max(ends, axis=0)
    # Inside an interval the score falls with the distance of the mean from the centre, which the range may hold.
    from_centre = jnp.stack([(outer - _centre(event)) + end for end in (lowest, highest)])
    nearest = jnp.max(-jnp.abs(from_centre), axis=0)
    nearest = jnp.where((from_centre[0] <= 0.0) & (from_centre[1] >= 0.0), 0.0, nearest)
    return rounding + 4 * EPSILON * abs(_centre(event)) + nearest


def interval_harm(event: IntervalHarm, sd: float | jax.Array, score: jax.Array) -> jax.Array:
    """Probability of the event under Gaussian outcomes with these scores; non-decreasing in the score.

    Args:
        event: the harm event over the outcome.
        sd: standard deviation of the outcome, in its unit.
        score: of any shape, see `interval_score`.

    Returns:
        In [0, 1], in the shape and format of `score`; in float64 never below the exact probability.
    """
    precision = 1.0 / sd  # by which a multiplication does for every hypothesis what a division would
    match _side(event):
        case "above" | "below" as side:
            threshold = _threshold(event) if side == "above" else -_threshold(event)
            return normal_cdf((score - threshold) * precision)
        case "inside":
            half, distance = _half_width(event), jnp.maximum(-score, 0.0)
            upper = normal_cdf((half - distance) * precision)
            lower = normal_cdf((-half - distance) * precision) * (1.0 - 6.0 * _margin(score))
            # Where both ends are clipped their difference is 0, which the exact probability is not.
            return jnp.maximum(upper - lower, normal_cdf(jnp.full_like(score, -jnp.inf)))
        case "outside":
            half = _half_width(event)
            return jnp.minimum(normal_cdf((score - half) * precision) + normal_cdf((-score - half) * precision), 1.0)
        case constant:
            return jnp.where(jnp.isnan(score), score, 1.0 if constant == "always" else 0.0)


def _upper_tail(x: jax.Array) -> jax.Array:
    """P(X > x) for x >= 0."""
    clipped = jnp.minimum(x, LARGEST_QUANTILE[x.dtype])
    z = clipped * math.sqrt(0.5)
    divisor, numerator = z + _CENTRE, 1.0 + 2.0 * z
    # One division for two: it costs as much as five multiplications.
    reciprocal = 1.0 / (divisor * numerator)
    smooth = _polynomial(_COEFFICIENTS[x.dtype], (z - _CENTRE) * numerator * reciprocal)
    return 0.5 * jnp.exp(-0.5 * clipped * clipped) * smooth * (divisor * reciprocal)


def _polynomial(coefficients: tuple[float, ...], t: jax.Array) -> jax.Array:
    # Two independent chains instead of one: a processor overlaps them.
    return _horner(coefficients[0::2], t * t) + t * _horner(coefficients[1::2], t * t)


def _horner(coefficients: tuple[float, ...], t: jax.Array) -> jax.Array:
    total = jnp.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * t + coefficient
    return total


def _margin(x: jax.Array) -> float:
    """MARGIN in float64. Numbers in float32 are for display and are not rounded in any direction."""
    return MARGIN if x.dtype == _FLOAT64 else 0.0


def _side(event: IntervalHarm) -> Literal["above", "below", "inside", "outside", "always", "never"]:
    bounded = (math.isfinite(event.lower), math.isfinite(event.upper))
    if bounded == (True, True):
        return "inside" if event.inside else "outside"
    if bounded == (False, False):
        return "always" if event.inside else "never"
    return "above" if event.inside == bounded[0] else "below"


def _threshold(event: IntervalHarm) -> float:
    return event.lower if math.isfinite(event.lower) else event.upper


def _centre(event: IntervalHarm) -> float:
    return 0.5 * event.lower + 0.5 * event.upper


def _half_width(event: IntervalHarm) -> float:
    """Half the length of the interval, rounded so that the harm does not shrink."""
    half = 0.5 * event.upper - 0.5 * event.lower
    return half * (1.0 + 4 * EPSILON) if event.inside else half * (1.0 - 4 * EPSILON)
