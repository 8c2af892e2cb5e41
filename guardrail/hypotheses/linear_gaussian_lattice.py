"""Linear regression with Gaussian noise and weights on a lattice (the class of the paper's bandit).

outcome ~ Normal(w . features, noise_sd^2), every weight in {0, ..., levels - 1}. A hypothesis's
index is the base-`levels` number of its weights, the first weight being the leading digit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from guardrail.domain import HarmEvent, IntervalHarm
from guardrail.hypotheses.gaussian_harm import interval_harm, interval_score, interval_score_ceiling
from guardrail.hypotheses.product_grid import EPSILON, ProductGrid, outer_sum
from guardrail.policy.schema import PRIOR_SUM_TOLERANCE, LinearGaussianLattice

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row


class LinearGaussianLatticeFamily:
    """Weights on a lattice, Gaussian noise of known standard deviation.

    A row holds the features, float64[d].

    Args:
        levels: number of values of a weight.
        noise_sd: standard deviation of the outcome, in its unit.
        weight_prior: P(weight = 0), P(weight = 1), ...; None for a uniform prior.
        harm: the harm event over the outcome.
        feature_names: names of the d features.

    :raises ValueError: if there is no feature, there are too many hypotheses, or the prior is
        not one probability for each level.
    """

    name = "linear-gaussian-lattice"

    def __init__(
        self,
        levels: int,
        noise_sd: float,
        weight_prior: tuple[float, ...] | None,
        harm: IntervalHarm,
        feature_names: tuple[str, ...],
    ) -> None:
        if not feature_names:
            raise ValueError(f"{self.name} needs at least one feature")
        self._grid = ProductGrid([np.arange(levels, dtype=np.float64)] * len(feature_names))
        self._levels = levels
        self._noise_sd, self._harm, self._feature_names = noise_sd, harm, feature_names
        self._log_weight_prior = _log_probabilities(weight_prior, levels)
        self.row_length = len(feature_names)
        self.size, self.width = self._grid.size, self._grid.width
        self.arrays: Arrays = self._grid.arrays
        self.row_arrays = self._grid.row_arrays
        self.trace_key: Hashable = (self.name, levels, noise_sd, harm, len(feature_names))
        self.assumptions: tuple[str, ...] = (
            f"the outcome is a weighted sum of the features plus independent Gaussian noise of standard "
            f"deviation {noise_sd:g}",
            f"every weight is one of 0, ..., {levels - 1} and never changes",
        )

    @classmethod
    def from_spec(
        cls, spec: LinearGaussianLattice, harm: HarmEvent, feature_names: tuple[str, ...]
    ) -> LinearGaussianLatticeFamily:
        """The family that a policy describes.

        :raises ValueError: if the harm event or the features do not fit the family.
        """
        if not isinstance(harm, IntervalHarm):
            raise ValueError(f"{spec.family} has a numeric outcome, so harm must be a range of numbers")
        weight_prior = None if spec.prior == "uniform" else spec.prior.probabilities
        return cls(spec.levels, spec.noise_sd, weight_prior, harm, feature_names)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The features as float64[d]; the category is not used."""
        return np.asarray(features, np.float64)

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: sum of the weights' log prior masses."""
        return self._grid.sum_of_axes([self._log_weight_prior] * len(self._feature_names))

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log density of the outcome, in nats per unit of the outcome."""
        outer, inner = self._grid.halves(arrays, row / self._noise_sd)
        residual = outer_sum(outcome / self._noise_sd - outer, -inner)
        return -0.5 * residual * residual - self._log_norm

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: bound on the rounding error of every finite entry of `log_likelihood`.

        A residual of at most r = (|outcome| + largest sum of |terms|) / noise_sd is off by a few roundings
        of r for each axis; the derivative of its half square is at most r.
        """
        largest = (jnp.abs(outcome) + self._grid.magnitude(row)) / self._noise_sd
        residual_rounding = self._grid.sum_rounding(largest) + 4 * EPSILON * largest
        return largest * residual_rounding + EPSILON * (largest * largest + 4 * abs(self._log_norm))

    @property
    def statistics_length(self) -> int:
        """d^2 + d + 1: the sums of products of features, of features and outcome, and of squared outcomes."""
        return self.row_length * self.row_length + self.row_length + 1

    def statistics(self, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[d^2 + d + 1]: the products of one observation, in units of the noise."""
        features, scaled = row / self._noise_sd, outcome / self._noise_sd
        squares = jnp.outer(features, features).reshape(-1)
        return jnp.concatenate([squares, features * scaled, scaled[None] * scaled])

    def prepare(self, sums: jax.Array) -> Arrays:
        """The quadratic form of the log likelihood, its value at a lattice point near its peak, and its rounding.

        The log likelihood of weights w is -(w'Aw - 2 b'w) / 2 up to a constant. By the inequality of Cauchy and
        Schwarz no sum of absolute values in it exceeds M = (sum_i w_i sqrt(A_ii) + sqrt(c))^2 with the largest
        weights, c being the sum of squared outcomes. The sums are compensated, so that they are off by the
        roundings of single products, and evaluation takes at most about 2d additions one after the other.
        """
        d = self.row_length
        quadratic, linear, square = sums[: d * d].reshape(d, d), sums[d * d : -1], sums[-1]
        reach = jnp.sqrt(jnp.maximum(jnp.diagonal(quadratic), 0.0))
        magnitude = ((self._levels - 1) * jnp.sum(reach) + jnp.sqrt(square)) ** 2
        # Where the least-squares weights are rounded to does not matter for what is computed, only for its size.
        ridge = quadratic + jnp.eye(d) * (1e-9 * (1.0 + jnp.trace(quadratic)))
        near = jnp.clip(jnp.round(jnp.linalg.solve(ridge, linear)), 0, self._levels - 1)
        near = jnp.where(jnp.isfinite(near), near, 0.0)
        at_peak = jnp.dot(near, jnp.dot(quadratic, near)) - 2.0 * jnp.dot(linear, near)
        # The product with the larger factor comes first: it is infinite before any log likelihood can be.
        rounding = (8.0 * (d + 8) * magnitude) * EPSILON
        return {"quadratic": quadratic, "linear": linear, "at_peak": at_peak, "rounding": rounding}

    def log_likelihood_of(self, arrays: Arrays, prepared: Arrays) -> jax.Array:
        """float64[H]: log likelihood of all observations, up to a constant; a product of the two halves."""
        quadratic, linear = prepared["quadratic"], prepared["linear"]
        outer, inner = arrays["outer"], arrays["inner"]
        cut = outer.shape[1]
        own = jnp.sum(outer * _product(outer, quadratic[:cut, :cut]), axis=1) - 2.0 * _product(outer, linear[:cut])
        other = jnp.sum(inner * _product(inner, quadratic[cut:, cut:]), axis=1) - 2.0 * _product(inner, linear[cut:])
        cross = 2.0 * _product(_product(outer, quadratic[:cut, cut:]), inner.T)
        form = (own - prepared["at_peak"])[:, None] + (cross + other[None, :])
        return -0.5 * form.reshape(-1)

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: the mean outcome or its distance from the harmful interval, raised by its rounding."""
        outer, inner = self._grid.halves(arrays, row)
        return interval_score(self._harm, outer, inner, self._grid.sum_rounding(self._grid.magnitude(row)))

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H / width]: the largest score of each row, from the ends of the inner half's means."""
        outer, inner = self._grid.halves(arrays, row)
        rounding = self._grid.sum_rounding(self._grid.magnitude(row))
        return interval_score_ceiling(self._harm, outer, jnp.min(inner), jnp.max(inner), rounding)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """Harm probability of each score; of any shape."""
        return interval_harm(self._harm, self._noise_sd, score)

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """The weights, by feature."""
        weights = self._grid.point(index)
        name = f"weights ({', '.join(f'{weight:.0f}' for weight in weights)})"
        return name, dict(zip(self._feature_names, weights, strict=True))

    @property
    def _log_norm(self) -> float:
        return math.log(self._noise_sd) + 0.5 * math.log(2 * math.pi)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return lax.dot(left, right, precision=lax.Precision.HIGHEST)


def _log_probabilities(probabilities: tuple[float, ...] | None, levels: int) -> npt.NDArray[np.float64]:
    if probabilities is None:
        return np.full(levels, -math.log(levels))
    if len(probabilities) != levels:
        raise ValueError(f"the prior needs one probability for each of the {levels} levels, got {len(probabilities)}")
    total = math.fsum(probabilities)
    if not abs(total - 1.0) <= PRIOR_SUM_TOLERANCE:
        raise ValueError(f"the prior's probabilities must sum to 1, got {total:.12g}")
    if min(probabilities) <= 0.0:
        raise ValueError("every prior probability must be positive: what has none cannot be learnt")
    return np.log(np.asarray(probabilities) / total)
