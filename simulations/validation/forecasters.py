"""Forecasters from outside the class: what refutes a class that does not hold the truth (MATH.md, section 6).

They know nothing of the hypotheses: each action has a model of its own. With their prequential score
S_t, added up as data arrives, the class is refuted at level delta as soon as no member's log likelihood
reaches S_t + log delta. Under a member that happens with probability at most delta, at any time.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

WIDE = 5.0
"""Standard deviation of the Gaussian forecaster's prior of an action's mean, around 0, in the outcome's unit."""


def krichevsky_trofimov(count: jax.Array, total: jax.Array, outcome: jax.Array) -> jax.Array:
    """Log probability of a Boolean outcome: (times seen + 1/2) / (count + 1) (Krichevsky and Trofimov 1981).

    Args:
        count: float64[...], outcomes of this action so far.
        total: float64[...], how many of them were 1.
        outcome: float64[...], 0 or 1.
    """
    seen = jnp.where(outcome == 1.0, total, count - total)
    return jnp.log((seen + 0.5) / (count + 1.0))


def gaussian(count: jax.Array, total: jax.Array, outcome: jax.Array, noise_sd: float) -> jax.Array:
    """Log density of an outcome whose mean has a Normal(0, WIDE^2) prior of its own for each action.

    Args:
        count: float64[...], outcomes of this action so far.
        total: float64[...], their sum.
        outcome: float64[...].
        noise_sd: standard deviation of the noise.
    """
    precision = 1.0 / WIDE**2 + count / noise_sd**2
    mean = total / noise_sd**2 / precision
    variance = noise_sd**2 + 1.0 / precision
    return -0.5 * (outcome - mean) ** 2 / variance - 0.5 * jnp.log(2.0 * math.pi * variance)
