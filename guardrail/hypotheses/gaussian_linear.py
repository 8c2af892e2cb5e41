"""`gaussian-linear`: outcome ~ Normal(w . features, noise_sd^2) with continuous weights.

Source: Waudby-Smith and Ramdas 2020, prior-posterior ratio; see `bounds.ellipsoid`. The optional
box is part of the class, not of the prior: the forecaster stays the Gaussian mixture without the
box, which is a valid forecaster whatever the class (an e-process; Wasserman, Ramdas and
Balakrishnan 2020), so the ratio set restricted to the box keeps its level. See
`bounds.boxed_ellipsoid` for the maximum over it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from guardrail.bounds.boxed_ellipsoid import Problem, boxed, maximum
from guardrail.bounds.ellipsoid import (
    Ellipsoid,
    Posterior,
    factor_rounding,
    linear_range,
    posterior,
    predictive_moments,
    ratio_ellipsoid,
)
from guardrail.domain import HarmEvent, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.base import Row
from guardrail.hypotheses.gaussian_harm import interval_harm
from guardrail.policy.schema import GaussianLinear

_ROUNDING = 2.0**-49
"""Relative error allowed to the distance of a mean from the harm event's ends."""


class Prepared(NamedTuple):
    """What is computed once for a state: factorisations, and whether the class is refuted."""

    posterior: Posterior
    ellipsoid: Ellipsoid | None
    box: Problem | None
    refuted: jax.Array


def largest_score(event: IntervalHarm, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """The largest score of `gaussian_harm.interval_harm` over all outcome means in [lower, upper].

    Harm grows with the mean, or falls with it, or with the distance from the interval's centre:
    outside an interval it is largest at an end, inside at the mean closest to the centre.

    Args:
        event: the harm event.
        lower: float64[...], smallest mean; may be -inf.
        upper: float64[...], largest mean, >= lower; may be inf.
    """
    ends = [abs(end) for end in (event.lower, event.upper) if math.isfinite(end)]
    size = max(ends, default=0.0) + jnp.maximum(_finite_size(lower), _finite_size(upper))
    match _searched(event):
        case (1,):
            score = upper
        case (-1,):
            score = -lower
        case _ if not ends:
            return jnp.zeros_like(upper)
        case _:
            centre = _centre(event)
            above, below = upper - centre, centre - lower
            score = jnp.minimum(jnp.minimum(above, below), 0.0) if event.inside else jnp.maximum(above, below)
    return score + _ROUNDING * size


def _centre(event: IntervalHarm) -> float:
    return event.lower / 2 + event.upper / 2 if math.isfinite(event.lower) else 0.0


def _finite_size(value: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(value), jnp.abs(value), 0.0)


def _searched(event: IntervalHarm) -> tuple[int, ...]:
    """Which ends of the range of means decide: 1 the upper one, -1 the lower one."""
    bounded = (math.isfinite(event.lower), math.isfinite(event.upper))
    if bounded[0] == bounded[1]:
        return (1, -1)
    return (1,) if event.inside == bounded[0] else (-1,)


def _add(high: jax.Array, low: jax.Array, term: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compensated sum (Knuth's two-sum): the error of a long sum stays that of one addition."""
    total = high + term
    part = total - high
    return total, low + ((high - (total - part)) + (term - part))


class GaussianLinearFamily:
    """Linear regression with known noise. A row holds the features, float64[d].

    Arrays of a state: the compensated sums of f f', f y and y^2 (gram, cross, square, each with
    its low part), and touched: bool[d], whether a feature was ever different from 0.
    """

    name = "gaussian-linear"
    parameter_names = ("predicted_outcome_at_bound", "posterior_mean_outcome")
    source_note = "the ellipsoid of the likelihood, not the credible ellipsoid of the posterior"

    def __init__(
        self,
        feature_names: Sequence[str],
        noise_sd: float,
        prior_mean: float,
        prior_sd: float,
        box: tuple[float, float] | None,
        harm: HarmEvent,
    ) -> None:
        """A class of linear models.

        Args:
            feature_names: names of the d features, d >= 1.
            noise_sd: standard deviation of the outcome, in its unit.
            prior_mean: prior mean of every weight.
            prior_sd: prior standard deviation of every weight.
            box: smallest and largest value of every weight, or None.
            harm: range of outcomes that are harmful.

        :raises ValueError: if there is no feature, a number is out of range, the box is empty, or
            harm is not a range of a real outcome.
        """
        if not isinstance(harm, IntervalHarm):
            raise ValueError("gaussian-linear has a real outcome; harm must be a threshold or an interval of it")
        if not feature_names:
            raise ValueError("gaussian-linear needs at least one feature")
        if not (0 < noise_sd < math.inf and 0 < prior_sd < math.inf and math.isfinite(prior_mean)):
            raise ValueError("gaussian-linear needs finite numbers, noise_sd > 0 and prior sd > 0")
        if box is not None and not (box[0] < box[1] and math.isfinite(box[0]) and math.isfinite(box[1])):
            raise ValueError(f"the box of the weights needs lower < upper, both finite, got {box}")
        self._feature_names = tuple(feature_names)
        self.row_length = len(self._feature_names)
        self._noise_sd, self._prior_mean, self._prior_sd = float(noise_sd), float(prior_mean), float(prior_sd)
        self._box, self._harm = box, harm
        self.trace_key: Hashable = (self.name, self.row_length, noise_sd, prior_mean, prior_sd, box, harm)
        self.assumptions: tuple[str, ...] = (
            "the mean outcome is a fixed linear function of the features",
            f"noise is Gaussian, independent, with standard deviation {noise_sd:g}",
        )
        if box is not None:
            self.assumptions += (f"all weights lie in [{box[0]:g}, {box[1]:g}]",)

    @classmethod
    def from_spec(cls, spec: GaussianLinear, harm: HarmEvent, feature_names: Sequence[str]) -> GaussianLinearFamily:
        """The family of a policy's specification.

        :raises ValueError: if the specification does not make a class (see the constructor).
        """
        box = None if spec.box is None else (spec.box.lower, spec.box.upper)
        return cls(feature_names, spec.noise_sd, spec.prior.mean, spec.prior.sd, box, harm)

    def encode(self, features: Sequence[float], category: str | int | None) -> Row:
        """The features as float64[d].

        :raises InvalidInput: with reason UNKNOWN_CATEGORY if a category is given, INVALID_INPUT
            if the number of features is wrong.
        """
        if category is not None:
            raise InvalidInput("gaussian-linear has no categories", "UNKNOWN_CATEGORY")
        if len(features) != self.row_length:
            raise InvalidInput(f"expected {self.row_length} features, got {len(features)}")
        return np.array(features, dtype=np.float64)

    def check_rule(self, delta: float | None, running: bool) -> None:
        """Refuse what this family cannot do.

        :raises ValueError: if `running` is asked for, or a box without a level, where it had no effect.
        """
        if running:
            raise ValueError("gaussian-linear cannot intersect the sets of all times: set running to false")
        if delta is None and self._box is not None:
            raise ValueError("the predictive bound takes no box: remove it, or use the ratio bound")

    def initial(self) -> dict[str, npt.NDArray[Any]]:
        """The state before any observation."""
        d = self.row_length
        sums = {"gram": np.zeros((d, d)), "cross": np.zeros(d), "square": np.zeros(())}
        return (
            sums | {f"{key}_low": np.zeros_like(value) for key, value in sums.items()} | {"touched": np.zeros(d, bool)}
        )

    def accepts(self, row: jax.Array) -> jax.Array:
        """bool[]: every finite row is an input."""
        return jnp.all(jnp.isfinite(row))

    def accepts_outcome(self, outcome: jax.Array) -> jax.Array:
        """bool[]: every finite number is an outcome."""
        return jnp.isfinite(outcome)

    def update(
        self, delta: float | None, running: bool, arrays: Mapping[str, jax.Array], row: jax.Array, outcome: jax.Array
    ) -> dict[str, jax.Array]:
        """Add one observation to the sums."""
        del delta, running
        terms = {"gram": row[:, None] * row[None, :], "cross": row * outcome, "square": outcome * outcome}
        new = {"touched": arrays["touched"] | (row != 0)}
        for key, term in terms.items():
            new[key], new[f"{key}_low"] = _add(arrays[key], arrays[f"{key}_low"], term)
        return new

    def prepare(self, delta: float | None, arrays: Mapping[str, jax.Array]) -> Prepared:
        """Factorise once; see `bounds.ellipsoid` and `bounds.boxed_ellipsoid`."""
        gram, cross, square = (arrays[key] + arrays[f"{key}_low"] for key in ("gram", "cross", "square"))
        post = posterior(gram, cross, square, arrays["touched"], self._noise_sd, self._prior_mean, self._prior_sd)
        if delta is None:
            return Prepared(post, None, None, jnp.zeros((), bool))
        ellipsoid = ratio_ellipsoid(post, delta)
        if self._box is None:
            return Prepared(post, ellipsoid, None, jnp.zeros((), bool))
        box = boxed(post, ellipsoid.level, *self._box)
        return Prepared(post, ellipsoid, box, box.empty)

    def evaluate(
        self, delta: float | None, arrays: Mapping[str, jax.Array], prepared: Prepared, row: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Bound, predictive harm, whether the class is refuted, and the outcome's mean at the bound and on average."""
        del arrays
        post = prepared.posterior
        mean, spread = predictive_moments(post, row)
        sd = jnp.sqrt(self._noise_sd**2 + spread * spread)
        predictive = jnp.clip(interval_harm(self._harm, sd, largest_score(self._harm, mean, mean)), 0.0, 1.0)
        if prepared.ellipsoid is None:
            return predictive, predictive, prepared.refuted, jnp.stack([mean, mean])
        lower, upper, empty = self._mean_range(post, prepared.ellipsoid, prepared.box, row)
        harm = interval_harm(self._harm, self._noise_sd, largest_score(self._harm, lower, upper))
        # A range from numbers that overflowed is no range; an infinite end is one.
        sound = jnp.isfinite(mean + spread + prepared.ellipsoid.level) & (lower <= upper)
        value = jnp.where(sound | empty, jnp.clip(harm, 0.0, 1.0), jnp.nan)
        at_bound = _mean_at_bound(self._harm, lower, upper)
        return value, predictive, prepared.refuted | empty, jnp.stack([at_bound, mean])

    def _mean_range(
        self, post: Posterior, ellipsoid: Ellipsoid, box: Problem | None, row: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Range of the mean outcome over the plausible weights, and whether there are none."""
        free = linear_range(post, ellipsoid, row)
        lower, upper, empty = free.lower, free.upper, jnp.zeros((), bool)
        if box is None:
            return lower, upper, empty
        base = jnp.sum(row * post.mean)
        rounding = factor_rounding(self.row_length) * jnp.sum(jnp.abs(row * post.mean))
        # Only the end that decides is worth a search.
        for side in _searched(self._harm):
            known, at = (upper - base, free.at_upper) if side == 1 else (base - lower, free.at_lower)
            reach, none_left = maximum(box, side * row, known, at)
            end = base + side * (reach + rounding)
            lower, upper = (lower, end) if side == 1 else (end, upper)
            empty = empty | none_left
        return lower, upper, empty

    def hypothesis_name(self, row: Row) -> str:
        """One vector of weights is behind every bound."""
        del row
        return "weights"

    def top(self, arrays: Mapping[str, npt.NDArray[Any]], prepared: Any, count: int) -> dict[str, float]:
        """Posterior means of the first weights."""
        del arrays
        means = np.asarray(prepared.posterior.mean)
        return {name: float(m) for name, m in zip(self.names_of_parameters(count), means, strict=False)}

    def names_of_parameters(self, count: int) -> list[str]:
        """The weights of the first features."""
        return [f"weight[{name}]" for name in self._feature_names[:count]]

    def parameters(self, delta: float | None, arrays: Mapping[str, jax.Array], prepared: Prepared) -> jax.Array:
        """float64[d, 4]: moments of each weight, and its range over the ellipsoid, or of that and the box."""
        del arrays
        post, unit = prepared.posterior, jnp.eye(self.row_length)
        mean, deviation = jax.vmap(lambda f: predictive_moments(post, f))(unit)
        if delta is None or prepared.ellipsoid is None:
            return jnp.stack([mean, deviation, *[jnp.full_like(mean, jnp.nan)] * 2], axis=1)
        ellipsoid = prepared.ellipsoid
        reach = jax.vmap(lambda f: linear_range(post, ellipsoid, f))(unit)
        lower, upper = reach.lower, reach.upper
        if self._box is not None:
            lower, upper = jnp.maximum(lower, self._box[0]), jnp.minimum(upper, self._box[1])
        # As for a bound: a range from numbers that overflowed is none.
        sound = jnp.isfinite(mean + deviation + ellipsoid.level)
        return jnp.stack([mean, deviation, *(jnp.where(sound, end, jnp.nan) for end in (lower, upper))], axis=1)

    def check_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], count: int) -> str | None:
        """What is wrong with a loaded state; None if it is possible."""
        if not all(np.all(np.isfinite(value)) for value in arrays.values()):
            return "sums must be finite"
        if not np.array_equal(arrays["gram"], arrays["gram"].T) or np.any(np.diagonal(arrays["gram"]) < 0):
            return "the sum of f f' must be symmetric and not negative"
        if count == 0 and any(np.any(value) for value in arrays.values()):
            return "sums of no observation must be 0"
        return None


def _mean_at_bound(event: IntervalHarm, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """The mean in [lower, upper] at which harm is largest."""
    match _searched(event):
        case (1,):
            return upper
        case (-1,):
            return lower
        case _:
            centre = _centre(event)
            farthest = jnp.where(upper - centre >= centre - lower, upper, lower)
            return jnp.clip(centre, lower, upper) if event.inside else farthest
