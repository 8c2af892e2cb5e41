"""What every bound does with its arguments: convert them, check their shapes, work in float64.

The kernels are jitted in 64-bit mode, which `in_float64` enters for the length of one call, so
that the host program's JAX configuration is neither needed nor changed.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, cast

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax.typing import ArrayLike

P = ParamSpec("P")

RELATIVE_SLACK = 1e-12
"""Relative rounding that membership forgives: some thousand units in the last place of float64, far
more than normalising a posterior costs, and far less than any delta or alpha is known to."""
MASS_TOLERANCE = 1e-6
"""How far the total mass of a posterior or a prior may be from one before it is no longer one."""


class Tolerance(NamedTuple):
    """What the number format of the inputs forgives.

    Attributes:
        slack: relative slack of set membership, widened for inputs of less than float64.
        mass: how far a total mass may be from one.
    """

    slack: jax.Array
    mass: jax.Array


def in_float64(function: Callable[P, jax.Array]) -> Callable[P, jax.Array]:
    """Run `function` in 64-bit mode and hand its result to a host program of any mode.

    A float64 `jax.Array` in a program without 64-bit mode is rounded to float32 by the next
    operation on it, so that `bound > threshold` could be false for a bound just above the
    threshold. Such a program gets a float64 NumPy array instead, which compares exactly.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        host_is_64_bit = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        with jax.enable_x64(True):
            result = function(*args, **kwargs)
        if host_is_64_bit or result.dtype == np.bool_ or isinstance(result, jax.core.Tracer):
            return result
        return cast("jax.Array", np.asarray(result))

    return call


def vector(name: str, values: ArrayLike) -> jax.Array:
    """`values` as float[H].

    :raises ValueError: if it has not exactly one axis.
    :raises TypeError: if it does not hold real numbers.
    """
    array = _real(name, values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be float[H], got shape {array.shape}; use jax.vmap over further axes")
    return array


def matrix(name: str, values: ArrayLike) -> jax.Array:
    """`values` as float[H, A].

    :raises ValueError: if it has not exactly two axes.
    :raises TypeError: if it does not hold real numbers.
    """
    array = _real(name, values)
    if array.ndim != 2:
        raise ValueError(f"{name} must be float[H, A], got shape {array.shape}; use jax.vmap over further axes")
    return array


def mask(name: str, values: ArrayLike) -> jax.Array:
    """`values` as bool[H].

    :raises ValueError: if it has not exactly one axis.
    :raises TypeError: if it is not Boolean (indices of members are not a mask).
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.size and array.dtype != np.bool_:
        raise TypeError(f"{name} must be bool[H], got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be bool[H], got shape {array.shape}; use jax.vmap over further axes")
    return cast("jax.Array", array.astype(np.bool_))


def same_hypotheses(**arrays: jax.Array) -> None:
    """Check that the first axes agree.

    :raises ValueError: if they do not; the message names both arrays and their shapes.
    """
    (first, reference), *others = arrays.items()
    for name, array in others:
        if array.shape[0] != reference.shape[0]:
            raise ValueError(
                f"{first} of shape {reference.shape} and {name} of shape {array.shape} "
                "differ in their number of hypotheses (the first axis)"
            )


def scalar(name: str, value: ArrayLike, valid: Callable[[float], bool], domain: str) -> jax.Array:
    """`value` as a float scalar; a traced value can only be checked by the kernel.

    :raises ValueError: if it is not a scalar, or if its value is known and not in `domain`.
    """
    shape = np.shape(value)
    if shape != ():
        raise ValueError(f"{name} must be a scalar, got shape {shape}; use jax.vmap over several")
    if isinstance(value, jax.core.Tracer):
        return jnp.asarray(value, jnp.float64)
    number = float(value)  # type: ignore[arg-type]
    if not valid(number):
        raise ValueError(f"{name} must be in {domain}, got {number}")
    return _number(number)


def delta_scalar(delta: ArrayLike) -> jax.Array:
    """`delta` as a scalar.

    :raises ValueError: if it is known and not in (0, 1].
    """
    return scalar("delta", delta, lambda value: 0.0 < value <= 1.0, "(0, 1]")


def slack_scalar(slack: ArrayLike | None, tolerance: Tolerance) -> jax.Array:
    """`slack`, or what the inputs' number format forgives.

    :raises ValueError: if it is known and not a finite number of at least 0.
    """
    chosen = tolerance.slack if slack is None else slack
    return scalar("slack", chosen, lambda value: 0.0 <= value < math.inf, "[0, inf)")


def tolerance(*inputs: ArrayLike) -> Tolerance:
    """What the coarsest floating-point format among the inputs forgives."""
    dtypes = (value.dtype for value in inputs if isinstance(value, (jax.Array, np.ndarray, np.generic)))
    finest = (jnp.finfo(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))  # type: ignore[no-untyped-call]
    eps = max((float(info.eps) for info in finest), default=0.0)
    # Storing a number moves it by eps/2 relative; membership compares a handful of such numbers.
    return Tolerance(_number(max(RELATIVE_SLACK, 8 * eps)), _number(max(MASS_TOLERANCE, 64 * eps)))


def _number(value: float) -> jax.Array:
    # Always the same type, so that a kernel is traced once; it reaches the kernel without a copy to a device first.
    return cast("jax.Array", np.float64(value))


def _real(name: str, values: ArrayLike) -> jax.Array:
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    # `jax.vmap` in a program without 64-bit mode says float32 of a float64 NumPy array; a kernel believes it.
    if isinstance(array, jax.core.Tracer):
        return jnp.asarray(array, jnp.float64)
    # Other arrays of JAX are converted inside the kernel: an operation of its own would cost a dispatch.
    return array if isinstance(array, jax.Array) else cast("jax.Array", array.astype(np.float64))
