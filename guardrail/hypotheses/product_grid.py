"""Linear predictors over a product grid without the grid: two half grids and their outer sum.

Where a class is all combinations of a few parameters' values, its linear predictor is a sum of one
product for each parameter. The points of the first parameters and those of the others make two
small tables, about sqrt(H) rows each; a matrix-vector product with each leaves one addition for
each hypothesis. No table of H rows is stored or read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.policy.schema import MAX_HYPOTHESES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.hypotheses.base import Arrays

EPSILON = float(np.finfo(np.float64).eps)
"""Twice the unit roundoff of float64: one operation errs by at most half of it, relatively."""
SMALLEST_NORMAL = float(np.finfo(np.float64).smallest_normal)


class ProductGrid:
    """All combinations of the axes' values, numbered with the last axis running fastest.

    Args:
        axes: the values on each axis.

    Attributes:
        sizes: number of values on each axis.
        size: number of points, H.
        width: number of points of the inner half.
        arrays: the two halves' points, to be passed to kernels.
        row_arrays: the names of those that can be passed in parts.

    :raises ValueError: if there is no axis, an axis without values, or more than MAX_HYPOTHESES points.
    """

    def __init__(self, axes: Sequence[npt.NDArray[np.float64]]) -> None:
        self.sizes = tuple(len(values) for values in axes)
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"a product grid needs one value on each of one or more axes, got sizes {self.sizes}")
        self.size = math.prod(self.sizes)
        if self.size > MAX_HYPOTHESES:
            raise ValueError(f"{self.size} hypotheses are too many; at most {MAX_HYPOTHESES} can be enumerated")
        self._axes, self._cut = tuple(axes), _cut(self.sizes)
        self._largest = np.array([np.abs(values).max() for values in axes])
        self.width = math.prod(self.sizes[self._cut :])
        self.arrays: Arrays = {"outer": on_cpu(_points(axes[: self._cut])), "inner": on_cpu(_points(axes[self._cut :]))}

        self.row_arrays = frozenset({"outer"})

    def halves(self, arrays: Arrays, factors: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sums of value times factor over the outer axes, float64[H / width], and over the inner ones, float64[width].

        With a part of the outer points, the sums of that part.

        Args:
            arrays: the grid's `arrays`.
            factors: float64[number of axes].
        """
        # Matrix products are not fused into what uses them, where they would be summed again for every hypothesis.
        outer = lax.dot(arrays["outer"], factors[: self._cut], precision=lax.Precision.HIGHEST)
        return outer, lax.dot(arrays["inner"], factors[self._cut :], precision=lax.Precision.HIGHEST)

    def magnitude(self, factors: jax.Array) -> jax.Array:
        """float64[]: the largest sum of the absolute values of a point's products."""
        return jnp.sum(jnp.asarray(self._largest) * jnp.abs(factors))

    def sum_rounding(self, magnitude: jax.Array) -> jax.Array:
        """float64[]: most by which rounding moves a point's sum, with room for two more additions of its size.

        A product is rounded once and then in at most as many additions as there are axes, each time by half an
        EPSILON, relatively, or by SMALLEST_NORMAL: processors may take smaller numbers as 0.
        """
        return 2 * (len(self.sizes) + 2) * (0.5 * EPSILON * magnitude + SMALLEST_NORMAL)

    def sum_of_axes(self, terms: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """float64[H]: the sum of one term for each axis, float64[size of the axis]."""
        total = np.zeros(1)
        for term in terms:
            total = np.add.outer(total, term).reshape(-1)
        return total

    def point(self, index: int) -> tuple[float, ...]:
        """The values of the point with this number."""
        places = np.unravel_index(index, self.sizes)
        return tuple(float(values[place]) for values, place in zip(self._axes, places, strict=True))


def outer_sum(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """float64[R * C] of float64[R] and float64[C], the second index running fastest."""
    return (outer[:, None] + inner[None, :]).reshape(-1)


def on_cpu(array: npt.ArrayLike) -> jax.Array:
    """A copy of the array on the CPU, in its own format whatever the host program's JAX configuration."""
    with jax.enable_x64(True):
        copy: jax.Array = jax.device_put(np.array(array), jax.local_devices(backend="cpu")[0])
        return copy


def _cut(sizes: tuple[int, ...]) -> int:
    """How many leading axes make the outer half: the cut that leaves the halves most alike."""
    return min(
        range(len(sizes)),
        key=lambda cut: abs(math.log(math.prod(sizes[:cut])) - math.log(math.prod(sizes[cut:]))),
    )


def _points(axes: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """float64[points, axes]: all combinations, the last axis running fastest."""
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([values.reshape(-1) for values in mesh], axis=1) if axes else np.zeros((1, 0))
