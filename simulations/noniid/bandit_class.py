"""The hypothesis class of the exploding bandit and its reductions: one number for many hypotheses.

The class is the service's `linear-gaussian-lattice`: every weight vector in {0, ..., levels - 1}^dim. The
mean reward of an arm under a hypothesis is a whole number, here called its level, and harm depends on
the level alone. So all that a bound needs of 2^10 hypotheses is, for each arm, one number for each of a
few levels: the total mass, the largest mass, or whether any member has it. The class is a product of two
half grids (`guardrail.hypotheses.product_grid`), so each reduction is made over one half and then the other.

Functions of one problem, to be used under `jax.vmap` and `jax.enable_x64(True)`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.domain import IntervalHarm
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily

if TYPE_CHECKING:
    from collections.abc import Callable

    from guardrail.hypotheses.base import Arrays


class Halves(NamedTuple):
    """The levels of all arms under the parts of all hypotheses; a hypothesis's level is the sum of its two.

    Attributes:
        outer: float64[A, H / width].
        inner: float64[A, width].
    """

    outer: jax.Array
    inner: jax.Array


class BanditClass:
    """The class for bandits of one size.

    Args:
        dim: number of features of an arm.
        levels: number of values of a feature and of a weight.
        sigma: standard deviation of the reward.
        threshold: a reward above it is harm.
    """

    def __init__(self, dim: int, levels: int, sigma: float, threshold: float) -> None:
        names = tuple(f"feature_{place}" for place in range(dim))
        self.family = LinearGaussianLatticeFamily(levels, sigma, None, IntervalHarm(threshold, math.inf, True), names)
        self.size, self.shape = self.family.size, (self.family.size // self.family.width, self.family.width)
        self.log_prior: npt.NDArray[np.float64] = self.family.log_prior()
        # As NumPy arrays they become constants of a program, whichever device it is compiled for.
        self._arrays = cast("Arrays", {name: np.asarray(array) for name, array in self.family.arrays.items()})
        largest = (levels - 1) ** 2
        self._outer_levels = largest * self._arrays["outer"].shape[1] + 1
        self._inner_levels = largest * self._arrays["inner"].shape[1] + 1
        self.level_count = largest * dim + 1
        """V, the number of levels of an arm: 0, ..., V - 1."""

    def log_likelihood(self, features: jax.Array, reward: jax.Array) -> jax.Array:
        """float64[H]: log density of the reward of an arm with these features, float64[dim]."""
        return self.family.log_likelihood(self._arrays, features, reward)

    def harm_of_level(self) -> jax.Array:
        """float64[V]: the probability that an arm of each level explodes, as the service computes it."""
        return self.family.harm_from_score(jnp.arange(self.level_count, dtype=jnp.float64))

    def halves(self, features: jax.Array) -> Halves:
        """The levels of arms with these features, float64[A, dim]."""
        outer, inner = self._arrays["outer"], self._arrays["inner"]
        cut = outer.shape[1]
        return Halves(
            jnp.matmul(features[:, :cut], outer.T, precision=lax.Precision.HIGHEST),
            jnp.matmul(features[:, cut:], inner.T, precision=lax.Precision.HIGHEST),
        )

    def mean_weights(self, mass: jax.Array) -> jax.Array:
        """float64[dim]: the mean of the weights under masses, float64[H]."""
        table = mass.reshape(self.shape)
        parts = (jnp.sum(table, axis=1) @ self._arrays["outer"], jnp.sum(table, axis=0) @ self._arrays["inner"])
        return jnp.concatenate(parts)

    def largest_level(self, members: jax.Array, halves: Halves) -> jax.Array:
        """float64[A]: the largest level over a set, bool[H]; -inf over an empty set."""
        table = members.reshape(self.shape)
        of_outer = jnp.max(jnp.where(table[None], halves.inner[:, None, :], -jnp.inf), axis=2)
        return jnp.max(halves.outer + of_outer, axis=1)

    def mass_by_level(self, mass: jax.Array, halves: Halves) -> jax.Array:
        """float64[A, V]: the sum of float64[H] over the hypotheses of each level."""
        inner = (halves.inner[:, None, :] == _column(self._inner_levels)).astype(jnp.float64)
        outer = (halves.outer[:, None, :] == _column(self._outer_levels)).astype(jnp.float64)
        by_inner = jnp.einsum("oi,avi->oav", mass.reshape(self.shape), inner, precision=lax.Precision.HIGHEST)
        by_both = jnp.einsum("auo,oav->auv", outer, by_inner, precision=lax.Precision.HIGHEST)
        return self._combine(by_both, 0.0, jnp.add)

    def largest_by_level(self, values: jax.Array, halves: Halves) -> jax.Array:
        """float64[A, V]: the largest of float64[H] over the hypotheses of each level; -inf where there is none."""
        table = values.reshape(self.shape)
        # Adding -inf rather than selecting, level by level rather than all at once: both were measured faster.
        by_inner = jnp.stack(
            [
                jnp.max(table[None] + _mask(halves.inner == level)[:, None, :], axis=2)
                for level in range(self._inner_levels)
            ],
            axis=1,
        )
        by_both = jnp.stack(
            [
                jnp.max(by_inner + _mask(halves.outer == level)[:, None, :], axis=2)
                for level in range(self._outer_levels)
            ],
            axis=1,
        )
        return self._combine(by_both, -jnp.inf, jnp.maximum)

    def _combine(
        self, by_both: jax.Array, neutral: float, join: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> jax.Array:
        """float64[A, V] of float64[A, outer levels, inner levels]: join what has the same sum of levels."""
        total = jnp.full((by_both.shape[0], self.level_count), neutral)
        for level in range(self._outer_levels):
            span = slice(level, level + self._inner_levels)
            total = total.at[:, span].set(join(total[:, span], by_both[:, level]))
        return total


def _column(count: int) -> jax.Array:
    return jnp.arange(count, dtype=jnp.float64)[None, :, None]


def _mask(chosen: jax.Array) -> jax.Array:
    return jnp.where(chosen, 0.0, -jnp.inf)
