"""The harm budget of an episode (MATH.md, section 8).

If every accepted action t had bound b_t and the bounds add up to at most B, the probability of any harm
in the episode is at most delta + B: on the guarantee's event the true probability of harm p_t is at
most b_t, both are fixed before the outcome, and a union bound does the rest.

Pure functions of arrays of any shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ROUNDING = 1e-12
"""Relative rounding of a sum of bounds, charged against the budget."""


def affordable(spent: jax.Array, bounds: jax.Array, budget: jax.Array) -> jax.Array:
    """Which actions may still be accepted.

    Args:
        spent: float64[...], sum of the bounds of the actions accepted so far.
        bounds: float64[..., A], the harm bound of every action now.
        budget: float64[...], B; inf for none.

    Returns:
        bool[..., A]; False for a bound that is not a number or is negative.
    """
    total = (spent[..., None] + bounds) * (1.0 + ROUNDING)
    return (bounds >= 0.0) & (total <= budget[..., None])


def spend(spent: jax.Array, bound: jax.Array, accepted: jax.Array) -> jax.Array:
    """What is spent after one more action; nothing for a rejected one.

    Args:
        spent: float64[...].
        bound: float64[...], the action's harm bound when it was checked.
        accepted: bool[...].
    """
    return spent + jnp.where(accepted, bound, 0.0)


def promise(delta: float, budget: float) -> float:
    """Largest probability of any harm in an episode, delta + B."""
    return min(delta + budget, 1.0)
