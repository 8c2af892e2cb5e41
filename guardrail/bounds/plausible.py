"""The plausible set for arbitrary data (the paper, equation 7, Lemma 4.1, Propositions 4.2, 4.4, 4.5).

Order the hypotheses by non-increasing posterior. The plausible set is the longest prefix with

    P(tau_n | Z) >= alpha * sum over m <= n of P(tau_m | Z).

If alpha <= delta * P(truth), the truth is in it for all t at once with probability at least
1 - delta, whatever the data and however the actions were chosen. The set is all hypotheses above
a cut; the cut is found without a sort, by bisection over the bit patterns of float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from guardrail.bounds import _arrays, _kernels

if TYPE_CHECKING:
    from jax.typing import ArrayLike

Ties: TypeAlias = Literal["all", "ordered"]

SMALLEST_ALPHA = 1e-300
"""An alpha below it is taken as 0: posteriors that small underflow, and 0 leaves nothing out."""


@_arrays.in_float64
def plausible_set(
    log_posterior: ArrayLike, alpha: ArrayLike, ties: Ties = "all", slack: ArrayLike | None = None
) -> jax.Array:
    """The plausible set of level alpha.

    Args:
        log_posterior: float[H], log posterior masses up to a constant; -inf for a refuted hypothesis.
        alpha: level in [0, 1]; 0 means every hypothesis. The guarantee needs alpha <= delta * P(truth),
            in the worst case alpha = delta * min over tau of P(tau).
        ties: "all" also takes every hypothesis tied with the last member, up to rounding;
            "ordered" is the paper's fixed order, ties by index, which may cut through a tie.
        slack: relative rounding that membership forgives, times the size of the logs involved; by
            default what rounding in the input's number format may cost.

    Returns:
        bool[H]. All True, so that nothing is left out, if the posterior holds NaN or +inf or no
        hypothesis above -inf, or if a traced `alpha` is outside [0, 1].

    :raises ValueError: if the shape does not fit, `ties` is unknown, or `alpha` or `slack` is known and out of range.
    :raises TypeError: if an argument does not hold real numbers.
    """
    weights, level, tolerance = _prepare(log_posterior, alpha, ties)
    return _plausible_set(weights, level, _arrays.slack_scalar(slack, tolerance), ties)


@_arrays.in_float64
def plausible(log_posterior: ArrayLike, harm: ArrayLike, alpha: ArrayLike, ties: Ties = "all") -> jax.Array:
    """Largest harm over the plausible set (Proposition 4.5).

    A bound on the true harm at all times with confidence 1 - delta if alpha <= delta * P(truth).

    Args:
        log_posterior: float[H], log posterior masses up to a constant; -inf for a refuted hypothesis.
        harm: float[H, A], harm probabilities.
        alpha: level in [0, 1]; 0 means every hypothesis.
        ties: "all" or "ordered", see `plausible_set`.

    Returns:
        float64[A] in [0, 1]; 1 where nothing can be said: for every action if the posterior holds
        NaN or +inf or no hypothesis above -inf, or a traced `alpha` is outside [0, 1]; for an action
        whose column holds NaN or a number outside [0, 1].

    :raises ValueError: if the shapes do not fit, `ties` is unknown, or `alpha` is known and out of range.
    :raises TypeError: if an argument does not hold real numbers.
    """
    weights, level, tolerance = _prepare(log_posterior, alpha, ties)
    columns = _arrays.matrix("harm", harm)
    _arrays.same_hypotheses(log_posterior=weights, harm=columns)
    return _plausible(weights, columns, level, tolerance.slack, ties)


@_kernels.jitted("ties")
def _plausible_set(log_posterior: jax.Array, alpha: jax.Array, slack: jax.Array, ties: Ties) -> jax.Array:
    members, usable = _members(log_posterior, alpha, slack, ties)
    return members | ~usable


@_kernels.jitted("ties")
def _plausible(log_posterior: jax.Array, harm: jax.Array, alpha: jax.Array, slack: jax.Array, ties: Ties) -> jax.Array:
    members, usable = _members(log_posterior, alpha, slack, ties)
    return jnp.where(usable, _kernels.largest_harm(members, harm.astype(jnp.float64)), 1.0)


def _members(log_posterior: jax.Array, alpha: jax.Array, slack: jax.Array, ties: Ties) -> tuple[jax.Array, jax.Array]:
    """bool[H], the plausible set, and bool[], whether it means anything."""
    weights, level = log_posterior.astype(jnp.float64), jnp.asarray(alpha, jnp.float64)
    top = _kernels.top(weights)
    usable = jnp.isfinite(top) & (level >= 0.0) & (level <= 1.0) & (slack >= 0.0) & jnp.isfinite(slack)
    log_relative = weights - top
    relative = jnp.exp(log_relative)
    # Members lie between the top and alpha below it: no log that matters is larger than these two together.
    log_size = 1.0 + jnp.abs(top) - jnp.log(jnp.maximum(level, SMALLEST_ALPHA))
    summation_error = weights.shape[0] * np.finfo(np.float64).eps
    # A smaller level only adds members, so rounding in the sum and in the masses is paid here.
    level_met = level * jnp.maximum(1.0 - slack * log_size - summation_error, 0.0)

    last = _last_member(relative, level_met)
    above = jnp.sum(jnp.where(relative > last, relative, 0.0))
    if ties == "all":
        members = log_relative >= jnp.log(last) - slack * log_size
    else:
        tied = relative == last
        place = jnp.cumsum(tied)
        members = (relative > last) | (tied & (last >= level_met * (above + place * last)))
    return members | (level < SMALLEST_ALPHA), usable


def _last_member(relative: jax.Array, level: jax.Array) -> jax.Array:
    """Smallest mass in float64[H] (relative to the largest, 1) that is still in the plausible set.

    The first of the hypotheses of mass v is in if v >= level * (mass above v + v), that is, if
    (1 - level) * v >= level * (mass above v). The left side grows with v and the right side shrinks, so
    this holds from some v on. Between a mass that is out and one that is in, the mass nearest below the
    middle of their bit patterns is tried (positive floats are ordered like their bits), until no
    hypothesis lies between.
    """

    def mass(bits: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(bits, jnp.float64)

    def bits(mass: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(mass, jnp.int64)

    def next_tried(out: jax.Array, inside: jax.Array) -> jax.Array:
        """The bits of a mass between the two; `out` if there is none."""
        middle = out + (inside - out) // 2
        below = jnp.max(jnp.where(relative <= mass(middle), relative, 0.0), initial=0.0)
        largest = jnp.max(jnp.where(relative < mass(inside), relative, 0.0), initial=0.0)
        return jnp.maximum(jnp.where(bits(below) > out, bits(below), bits(largest)), out)

    def narrow(interval: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        out, inside, tried = interval
        v = mass(tried)
        above = jnp.sum(jnp.where(relative > v, relative, 0.0))
        met = v >= level * (above + v)
        # One sum decides more than v. If v is in, the mass above anything smaller is at least this one, so that
        # nothing below level * above is in. If v is out, the mass from anything larger on up is at most this one,
        # so that everything from level * above on is in.
        hint = bits(level * above)
        out = jnp.where(met, jnp.maximum(out, jnp.minimum(hint, tried) - 1), tried)
        inside = jnp.where(met, tried, jnp.clip(hint, tried + 1, inside))
        return out, inside, next_tried(out, inside)

    # The mass above v is at least the top's, 1, unless v = 1: no v below the level is in, and 1 always is.
    out, inside = jnp.maximum(bits(level) - 1, 0), bits(jnp.float64(1.0))
    _, inside, _ = lax.while_loop(
        lambda interval: interval[2] > interval[0], narrow, (out, inside, next_tried(out, inside))
    )
    return jnp.min(jnp.where(relative >= mass(inside), relative, 1.0), initial=1.0)


def _prepare(log_posterior: ArrayLike, alpha: ArrayLike, ties: str) -> tuple[jax.Array, jax.Array, _arrays.Tolerance]:
    if ties not in ("all", "ordered"):
        raise ValueError(f"ties must be 'all' or 'ordered', got {ties!r}")
    weights = _arrays.vector("log_posterior", log_posterior)
    level = _arrays.scalar("alpha", alpha, lambda value: 0.0 <= value <= 1.0, "[0, 1]")
    return weights, level, _arrays.tolerance(log_posterior, alpha)
