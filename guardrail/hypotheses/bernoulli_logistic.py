"""Logistic regression of a Boolean outcome on a grid of coefficients.

P(outcome = true) = sigmoid(intercept + sum_j coefficient_j * feature_j). The prior is Gaussian at
the grid's points, independent between coefficients, normalised over the grid. The intercept's axis
comes first, then the coefficients in the features' order; the last one runs fastest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.domain import BooleanHarm, HarmEvent
from guardrail.hypotheses.product_grid import EPSILON, ProductGrid, outer_sum

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from guardrail.hypotheses.base import Arrays, Row
    from guardrail.policy.schema import BernoulliLogistic, CoefficientGrid

MAX_COEFFICIENTS = 4

LARGEST_LOG_ODDS = {np.dtype(np.float64): 300.0, np.dtype(np.float32): 40.0}
"""Log odds are clipped to it in harms: a harm below 1e-130 is reported as about 1e-130, and nothing
becomes a denormal number, on which processors are slow (for float32 1e-17)."""

SMALLEST_EXPONENT = -700.0
"""exp of it is a normal number, and adding it to 1 changes nothing."""


class BernoulliLogisticFamily:
    """A grid of logistic regressions.

    A row holds the features, float64[d].

    Args:
        intercept: the intercept's grid and prior.
        coefficients: grid and prior of each feature's coefficient, in the features' order.
        harm: the harmful outcome.
        feature_names: names of the d features.

    :raises ValueError: if there are more than MAX_COEFFICIENTS coefficients, too many hypotheses,
        or a grid's ends are in the wrong order.
    """

    name = "bernoulli-logistic"

    def __init__(
        self,
        intercept: CoefficientGrid,
        coefficients: tuple[CoefficientGrid, ...],
        harm: BooleanHarm,
        feature_names: tuple[str, ...],
    ) -> None:
        if len(coefficients) > MAX_COEFFICIENTS:
            raise ValueError(f"{self.name} takes at most {MAX_COEFFICIENTS} features, got {len(coefficients)}")
        axes = (intercept, *coefficients)
        points = [_points(axis) for axis in axes]
        self._grid = ProductGrid(points)
        self._log_masses = [_log_masses(axis, values) for axis, values in zip(axes, points, strict=True)]
        self._sign, self._feature_names = (1.0 if harm.harmful else -1.0), feature_names
        self.row_length = len(feature_names)
        self.size, self.width = self._grid.size, self._grid.width
        self.arrays: Arrays = self._grid.arrays
        self.row_arrays = self._grid.row_arrays
        self.trace_key: Hashable = (self.name, axes, harm.harmful)
        self.assumptions: tuple[str, ...] = (
            "the log odds of the outcome are linear in the features, with coefficients that are on the grid "
            "and never change",
            "outcomes are independent given the features",
        )

    @classmethod
    def from_spec(
        cls, spec: BernoulliLogistic, harm: HarmEvent, feature_names: tuple[str, ...]
    ) -> BernoulliLogisticFamily:
        """The family that a policy describes.

        :raises ValueError: if the harm event or the features do not fit the family.
        """
        if not isinstance(harm, BooleanHarm):
            raise ValueError(f"{spec.family} has a Boolean outcome, so harm must be one of its two values")
        if set(spec.coefficients) != set(feature_names):
            raise ValueError(
                f"{spec.family} needs one coefficient for each feature: features {sorted(feature_names)}, "
                f"coefficients {sorted(spec.coefficients)}"
            )
        return cls(spec.intercept, tuple(spec.coefficients[name] for name in feature_names), harm, feature_names)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The features as float64[d]; the category is not used."""
        return np.asarray(features, np.float64)

    def log_prior(self) -> npt.NDArray[np.float64]:
        """float64[H]: sum of the coefficients' log prior masses."""
        return self._grid.sum_of_axes(self._log_masses)

    def log_likelihood(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[H]: log probability of the outcome, which is 0 or 1; NaN for anything else."""
        sign = jnp.where(outcome == 1.0, 1.0, jnp.where(outcome == 0.0, -1.0, jnp.nan))
        outer, inner = self._grid.halves(arrays, _with_intercept(row))
        log_odds = outer_sum(sign * outer, sign * inner)
        exponent = jnp.maximum(-jnp.abs(log_odds), SMALLEST_EXPONENT)
        return jnp.minimum(log_odds, 0.0) - jnp.log1p(jnp.exp(exponent))

    def log_likelihood_rounding(self, arrays: Arrays, row: jax.Array, outcome: jax.Array) -> jax.Array:
        """float64[]: bound on the rounding error of every finite entry of `log_likelihood`.

        The log probability moves no faster than the log odds.
        """
        magnitude = self._grid.magnitude(_with_intercept(row))
        return self._grid.sum_rounding(magnitude) + 8 * EPSILON * (1.0 + magnitude)

    def harm_score(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H]: log odds of harm, raised by their rounding."""
        outer, inner = self._grid.halves(arrays, _with_intercept(row))
        magnitude = self._grid.magnitude(_with_intercept(row))
        return outer_sum(self._sign * outer + self._grid.sum_rounding(magnitude), self._sign * inner)

    def harm_score_ceiling(self, arrays: Arrays, row: jax.Array) -> jax.Array:
        """float64[H / width]: the largest score of each row, with the largest sum of the inner half."""
        outer, inner = self._grid.halves(arrays, _with_intercept(row))
        rounding = self._grid.sum_rounding(self._grid.magnitude(_with_intercept(row)))
        return self._sign * outer + rounding + jnp.max(self._sign * inner)

    def harm_from_score(self, score: jax.Array) -> jax.Array:
        """Harm probability of each score; of any shape; in float64 never below the exact one."""
        largest = LARGEST_LOG_ODDS[score.dtype]
        harm = 1.0 / (1.0 + jnp.exp(-jnp.clip(score, -largest, largest)))
        # Exponential, sum and quotient are each off by a few units in the last place.
        return jnp.minimum(harm * (1.0 + 64 * EPSILON), 1.0)

    def describe(self, index: int) -> tuple[str, Mapping[str, float]]:
        """Intercept and coefficients, by feature."""
        parameters = dict(zip(("intercept", *self._feature_names), self._grid.point(index), strict=True))
        return ", ".join(f"{name} {value:.6g}" for name, value in parameters.items()), parameters


def _with_intercept(row: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.ones(1, jnp.float64), row])


def _points(axis: CoefficientGrid) -> npt.NDArray[np.float64]:
    if axis.upper < axis.lower or (axis.points > 1 and axis.upper == axis.lower):
        raise ValueError(f"a grid of {axis.points} points needs lower < upper, got {axis.lower:g} and {axis.upper:g}")
    return np.linspace(axis.lower, axis.upper, axis.points)


def _log_masses(axis: CoefficientGrid, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    log_weights = -0.5 * ((points - axis.mean) / axis.sd) ** 2
    largest = float(log_weights.max())
    if not math.isfinite(largest) or not np.isfinite(log_weights).all():
        raise ValueError(f"the prior gives points of the grid no mass: mean {axis.mean:g}, sd {axis.sd:g}")
    return log_weights - largest - math.log(math.fsum(np.exp(log_weights - largest)))
