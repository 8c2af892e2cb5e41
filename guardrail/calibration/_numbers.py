"""Arguments of the functions of this package, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Vector: TypeAlias = npt.NDArray[np.float64]
"""float64[N]: one number for each outcome, in the order in which the outcomes came."""

EPSILON = float(np.finfo(np.float64).eps)


def probabilities(name: str, values: ArrayLike) -> Vector:
    """`values` as float64[N] in [0, 1]; a single number counts as one outcome's.

    :raises ValueError: if one is NaN or outside [0, 1], or there is more than one axis.
    """
    array = _vector(name, values)
    wrong = np.flatnonzero(~((array >= 0.0) & (array <= 1.0)))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}] is {array[wrong[0]]}, needs a probability in [0, 1]")
    return array


def indicators(name: str, values: ArrayLike, count: int) -> Vector:
    """`values` as float64[count] of zeros and ones.

    :raises ValueError: if one is neither 0 nor 1, or there are not `count` of them.
    """
    array = _vector(name, values)
    wrong = np.flatnonzero((array != 0.0) & (array != 1.0))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}] is {array[wrong[0]]}, needs 0 or 1")
    if len(array) != count:
        raise ValueError(f"{name} has {len(array)} outcomes, {count} are needed")
    return array


def level(alpha: float) -> float:
    """`alpha` as a float.

    :raises ValueError: if it is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    return float(alpha)


def sums(start: Any, terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Running sums of `terms` along the first axis, begun at `start`: added one by one, however they are batched."""
    return np.cumsum(np.concatenate([np.asarray(start, np.float64)[None], terms]), axis=0)[1:]


def log_mean_exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log of the mean of exp(values) along the last axis; finite values only, of any size."""
    peak = values.max(axis=-1)
    return np.asarray(peak + np.log(np.exp(values - peak[..., None]).mean(axis=-1)))


def _vector(name: str, values: ArrayLike) -> Vector:
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    return array.astype(np.float64)
