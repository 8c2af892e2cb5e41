"""The prior-posterior ratio set of one Bernoulli rate with a Beta prior: an interval.

Source: Waudby-Smith and Ramdas 2020, prior-posterior-ratio confidence sequence. With s
successes, f failures and a Beta(a, b) prior the set at level delta is

    { theta : s log theta + f log(1 - theta) - log B(a + s, b + f) + log B(a, b) >= log delta }.

With p = s / (s + f) this is  n KL(p || theta) <= log(1 / delta) + G, where G >= 0 is the gap
between the largest log likelihood and the log evidence. Both sides are evaluated in forms
whose large terms have cancelled on paper, so that they stay accurate at 10^9 observations.

Elementwise JAX functions; call them under `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlog1py

BISECTIONS = 64
"""Halvings of [0, 1]; the bracket is then at most 2^-64 wide, or two neighbouring floats."""

_ROUNDING = 2.0**-48
"""16 float64 roundings: the relative error allowed to every log-likelihood term, in nats per nat."""

_SERIES_FROM = 10.0


def _stirling_error(x: jax.Array) -> jax.Array:
    """log Gamma(x) - ((x - 1/2) log x - x + log(2 pi) / 2), without cancellation for large x."""
    y = jnp.maximum(x, _SERIES_FROM)
    r = 1.0 / (y * y)
    series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / y
    z = jnp.minimum(x, _SERIES_FROM)
    direct = gammaln(z) - ((z - 0.5) * jnp.log(z) - z + 0.5 * math.log(2 * math.pi))
    return jnp.where(x >= _SERIES_FROM, series, direct)


def _log_beta_remainder(x: jax.Array, y: jax.Array) -> jax.Array:
    """log B(x, y) - x log(x / (x + y)) - y log(y / (x + y))."""
    half_logs = 0.5 * (math.log(2 * math.pi) + jnp.log(x + y) - jnp.log(x) - jnp.log(y))
    return half_logs + _stirling_error(x) + _stirling_error(y) - _stirling_error(x + y)


def log_evidence_gap(
    successes: jax.Array, failures: jax.Array, a: float | jax.Array, b: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Largest log likelihood minus log evidence, and how far rounding may have moved it.

    Args:
        successes: float64[...], whole numbers >= 0.
        failures: float64[...], whole numbers >= 0.
        a: Beta prior's first parameter, > 0.
        b: Beta prior's second parameter, > 0.

    Returns:
        The gap in nats, float64[...] >= 0, and an allowance in nats that covers the rounding of
        the gap and of `n KL(p || theta)`.
    """
    a, b = jnp.asarray(a, successes.dtype), jnp.asarray(b, successes.dtype)
    log_a, log_b, log_ab = jnp.log(a), jnp.log(b), jnp.log(a + b)
    x, y = successes + a, failures + b
    n, total = jnp.maximum(successes + failures, 1.0), x + y
    # p total / x - 1 = (s b - a f) / (n x): the large terms of s (a + s + b + f) - n (a + s) cancel exactly.
    excess = successes * (b / n) - a * (failures / n)
    fit = xlog1py(successes, jnp.maximum(excess / x, -1.0)) + xlog1py(failures, jnp.maximum(-excess / y, -1.0))
    moved_a = a * (jnp.log(x) - jnp.log(total) - log_a + log_ab)
    moved_b = b * (jnp.log(y) - jnp.log(total) - log_b + log_ab)
    remainders = _log_beta_remainder(a, b) - _log_beta_remainder(x, y)
    gap = jnp.maximum(fit - moved_a - moved_b + remainders, 0.0)
    logs = jnp.abs(log_a) + jnp.abs(log_b) + jnp.abs(log_ab) + jnp.log(total + 2.0)
    return gap, _ROUNDING * (successes + failures + (1.0 + a + b) * (16.0 + logs))


def ratio_interval(
    successes: jax.Array,
    failures: jax.Array,
    a: float | jax.Array,
    b: float | jax.Array,
    delta: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The ends of an interval that contains the ratio set at level `delta`.

    Both ends err outward: each is the outer end of a bracket around the root, and the level is
    widened by the rounding allowance.

    Args:
        successes: float64[...], whole numbers >= 0, up to about 10^15.
        failures: float64[...], the same shape.
        a: Beta prior's first parameter, > 0.
        b: Beta prior's second parameter, > 0.
        delta: level in (0, 1).

    Returns:
        lower, upper: float64[...] in [0, 1].
    """
    gap, allowance = log_evidence_gap(successes, failures, a, b)
    level = gap - jnp.log(jnp.asarray(delta, gap.dtype)) + allowance
    n = jnp.maximum(successes + failures, 1.0)
    p = successes / n

    def outside(theta: jax.Array) -> jax.Array:
        divergence = xlog1py(successes, (p - theta) / theta) + xlog1py(failures, (theta - p) / (1.0 - theta))
        # Not a number counts as inside: the interval then stays wider.
        return divergence > level

    def halve(_: int, ends: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        lower_out, lower_in, upper_in, upper_out = ends
        low, high = 0.5 * (lower_out + lower_in), 0.5 * (upper_in + upper_out)
        low_is_out, high_is_out = outside(low), outside(high)
        return (
            jnp.where(low_is_out, low, lower_out),
            jnp.where(low_is_out, lower_in, low),
            jnp.where(high_is_out, upper_in, high),
            jnp.where(high_is_out, high, upper_out),
        )

    start = (jnp.zeros_like(p), p, p, jnp.ones_like(p))
    lower, _, _, upper = jax.lax.fori_loop(0, BISECTIONS, halve, start)
    return lower, upper
