"""Array expressions that several bounds share, traced in 64-bit mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def jitted(*static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`jax.jit` with the named arguments static, keeping the function's type, which `jax.jit` forgets."""

    def compile_once(function: Callable[P, R]) -> Callable[P, R]:
        return cast("Callable[P, R]", jax.jit(function, static_argnames=static))

    return compile_once


def top(log_weights: jax.Array) -> jax.Array:
    """Largest of float64[H]; finite exactly if no entry is NaN or +inf and one is above -inf."""
    return jnp.max(log_weights, initial=-jnp.inf)


def log_mass(log_weights: jax.Array) -> jax.Array:
    """Log of the total mass of float64[H]; NaN unless `top` is finite."""
    shift = top(log_weights)
    return shift + jnp.log(jnp.sum(jnp.exp(log_weights - shift)))


def largest_harm(members: jax.Array, harm: jax.Array) -> jax.Array:
    """float64[A]: the largest harm over the members, bool[H] or bool[H, A], of each column of float64[H, A].

    A column that holds anything but probabilities, and a set without members, give 1.
    """
    inside = members if members.ndim == harm.ndim else members[:, None]
    # One pass: -1 marks what is left out, 2 marks what is no probability (NaN fails both comparisons).
    marked = jnp.where((harm >= 0.0) & (harm <= 1.0), jnp.where(inside, harm, -1.0), 2.0)
    largest = jnp.max(marked, axis=0, initial=-1.0)
    return jnp.where((largest >= 0.0) & (largest <= 1.0), largest, 1.0)


def probabilities_only(harm: jax.Array) -> jax.Array:
    """bool[A]: whether each column of float64[H, A] holds probabilities and nothing else."""
    return jnp.all((harm >= 0.0) & (harm <= 1.0), axis=0)
