"""Sets of hypotheses that people use in place of a confidence sequence, and that promise nothing at all times.

They are here to fail beside the bounds that hold. Each gives the members of a set, bool[H]; the harm
bound is the largest harm over it, as for the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

TIE = 1e-9
"""Nats within which two scores are tied; the largest harm among the tied counts, which favours these guardrails."""


def best(score: jax.Array) -> jax.Array:
    """The hypotheses of the highest score, float64[H]: a point estimate (maximum likelihood, maximum a posteriori)."""
    return score >= jnp.max(score) - TIE


def credible(log_posterior: jax.Array, delta: float) -> jax.Array:
    """The smallest set of posterior mass at least 1 - delta: true of one moment on average over the prior, no more."""
    order = jnp.argsort(-log_posterior)
    mass = jnp.exp(log_posterior[order])
    return jnp.zeros(log_posterior.shape, bool).at[order].set(jnp.cumsum(mass) - mass < 1.0 - delta)
