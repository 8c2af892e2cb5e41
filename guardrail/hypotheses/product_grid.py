"""Sums over a product grid without the grid: two half grids and their outer sum.

Where a class is all combinations of a few parameters' values, its linear predictor is a sum of
one term for each parameter. Summing the first parameters into one vector and the others into
a second leaves one addition for each hypothesis: no table of weights is stored or read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from guardrail.policy.schema import MAX_HYPOTHESES

if TYPE_CHECKING:
    from collections.abc import Sequence

EPSILON = float(np.finfo(np.float64).eps)
"""Twice the unit roundoff of float64: one operation errs by at most half of it, relatively."""
SMALLEST_NORMAL = float(np.finfo(np.float64).smallest_normal)


@dataclass(frozen=True)
class ProductGrid:
    """A product of finite axes; its points are numbered with the last axis running fastest.

    Attributes:
        sizes: number of values of each axis; not empty.

    :raises ValueError: if there is no axis, an axis without values, or more than MAX_HYPOTHESES points.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"a product grid needs one value on each of one or more axes, got sizes {self.sizes}")
        if self.size > MAX_HYPOTHESES:
            raise ValueError(f"{self.size} hypotheses are too many; at most {MAX_HYPOTHESES} can be enumerated")

    @property
    def size(self) -> int:
        """Number of points, H."""
        return math.prod(self.sizes)

    @property
    def split(self) -> int:
        """How many leading axes make the outer half: the cut that leaves the halves most alike."""
        return min(
            range(len(self.sizes)),
            key=lambda cut: abs(math.log(math.prod(self.sizes[:cut])) - math.log(math.prod(self.sizes[cut:]))),
        )

    @property
    def width(self) -> int:
        """Number of points of the inner half."""
        return math.prod(self.sizes[self.split :])

    def halves(self, terms: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Sums over the outer axes, float64[H / width], and over the inner ones, float64[width].

        Args:
            terms: for each axis, float64[size of the axis].
        """
        halves = _sums(terms[: self.split]), _sums(terms[self.split :])
        # Kept from being fused into what uses them, where they would be summed again for every hypothesis.
        return cast("tuple[jax.Array, jax.Array]", lax.optimization_barrier(halves))  # type: ignore[no-untyped-call]

    def coordinates(self, index: int) -> tuple[int, ...]:
        """Place on each axis of the point with this number."""
        return tuple(int(place) for place in np.unravel_index(index, self.sizes))

    def sum_rounding(self, magnitude: jax.Array) -> jax.Array:
        """Most by which rounding moves a sum of one product for each axis.

        A term passes through its product and at most as many additions as there are axes, each with a
        relative error of half an EPSILON, or of SMALLEST_NORMAL: processors may take smaller numbers as 0.

        Args:
            magnitude: float64[], the largest sum of the terms' absolute values.
        """
        return 2 * (len(self.sizes) + 2) * (0.5 * EPSILON * magnitude + SMALLEST_NORMAL)


def outer_sum(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """float64[R * C] of float64[R] and float64[C], the second index running fastest."""
    return (outer[:, None] + inner[None, :]).reshape(-1)


def _sums(terms: Sequence[jax.Array]) -> jax.Array:
    total = jnp.zeros(1, jnp.float64)
    for term in terms:
        total = outer_sum(total, term)
    return total
