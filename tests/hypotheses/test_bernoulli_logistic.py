import functools
import itertools
import math

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.bernoulli_logistic import BernoulliLogisticFamily
from guardrail.policy.schema import BernoulliLogistic, CoefficientGrid

INTERCEPT = CoefficientGrid(lower=-3.0, upper=3.0, points=7, mean=0.5, sd=2.0)
SLOPES = (
    CoefficientGrid(lower=-1.0, upper=1.0, points=5, sd=0.5),
    CoefficientGrid(lower=0.0, upper=2.0, points=3, mean=1.0, sd=1.0),
)


def logistic(harmful=True, intercept=INTERCEPT, slopes=SLOPES, names=("x", "y")):
    return BernoulliLogisticFamily(intercept, slopes, BooleanHarm(harmful=harmful), names)


def grid():
    """float64[H, 3]: intercept and slopes of every hypothesis."""
    axes = [np.linspace(axis.lower, axis.upper, axis.points) for axis in (INTERCEPT, *SLOPES)]
    return np.array(list(itertools.product(*axes)))


def log_odds(row):
    return grid() @ np.array([1.0, *row])


def call(function, *args):
    """A family's method, or a function of (arrays, ...) that reads none."""
    arrays = getattr(getattr(function, "__self__", None), "arrays", {})
    with jax.enable_x64(True):
        return np.asarray(jax.jit(function)(arrays, *map(np.asarray, args)))


@functools.cache
def kernel():
    """Likelihood, its rounding and the score, compiled once for all examples of a property."""
    family = logistic()

    def numbers(row, outcome):
        likelihood = (
            family.log_likelihood(family.arrays, row, outcome),
            family.log_likelihood_rounding(family.arrays, row, outcome),
        )
        return *likelihood, family.harm_score(family.arrays, row)

    return jax.jit(numbers)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_likelihood_against_numpyro_and_scipy(outcome):
    family = logistic()
    for row in 10.0 ** np.arange(-1, 3)[:, None] * np.random.default_rng(0).normal(size=(4, 2)):
        computed = call(family.log_likelihood, row, outcome)
        sign = 1 if outcome else -1
        np.testing.assert_allclose(computed, special.log_expit(sign * log_odds(row)), rtol=1e-12, atol=1e-300)
        with jax.enable_x64(True):
            by_numpyro = dist.BernoulliLogits(log_odds(row)).log_prob(outcome)
        np.testing.assert_allclose(computed, by_numpyro, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outcome", [0.5, -1.0, 2.0, math.nan, math.inf])
def test_an_outcome_that_is_not_boolean_has_no_likelihood(outcome):
    assert np.isnan(call(logistic().log_likelihood, (0.0, 0.0), outcome)).all()


@pytest.mark.parametrize("harmful", [True, False])
def test_harm_against_scipy(harmful):
    family = logistic(harmful)
    for scale in (0.1, 1.0, 100.0):
        row = scale * np.random.default_rng(1).normal(size=2)
        score = call(family.harm_score, row)
        computed = call(lambda _, s: family.harm_from_score(s), score)
        exact = special.expit(log_odds(row) if harmful else -log_odds(row))
        np.testing.assert_allclose(computed, exact, rtol=1e-11, atol=1e-129)
        assert (computed >= exact).all()
        assert (computed <= 1).all()
        assert (np.diff(computed[np.argsort(score)]) >= 0).all()


def test_harm_of_extreme_log_odds_errs_upward():
    family = logistic()
    computed = call(lambda _, s: family.harm_from_score(s), [-1e300, -400.0, -300.0, 300.0, 1e300, math.inf])
    assert (computed[:3] >= special.expit(-300.0)).all()
    assert (computed[:3] < 1e-129).all()
    assert (computed[3:] == 1.0).all()
    single = call(lambda _, s: family.harm_from_score(s), np.float32([-100.0, 0.0, 100.0]))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, [0.0, 0.5, 1.0], atol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=2), st.sampled_from([0.0, 1.0]))
def test_rounding_is_covered(row, outcome):
    with jax.enable_x64(True):
        computed, allowed, scores = map(np.asarray, kernel()(np.asarray(row), np.float64(outcome)))
    exact_odds = np.array(
        [sum(a * np.longdouble(b) for a, b in zip(point, (1.0, *row), strict=True)) for point in grid()]
    )
    sign = 1 if outcome else -1
    exact = np.minimum(sign * exact_odds, 0) - np.log1p(np.exp(-np.abs(exact_odds)))
    assert (np.abs(computed - exact) <= allowed).all()
    assert (scores >= exact_odds).all()


def test_prior_is_a_gaussian_at_the_points_normalised():
    intercept, x, y = grid().T
    density = np.exp(-0.5 * ((intercept - 0.5) / 2) ** 2 - 0.5 * (x / 0.5) ** 2 - 0.5 * (y - 1) ** 2)
    np.testing.assert_allclose(np.exp(logistic().log_prior()), density / density.sum(), rtol=1e-12)


def test_a_prior_far_from_the_grid_is_still_normalised():
    far = CoefficientGrid(lower=0.0, upper=1.0, points=3, mean=1000.0, sd=1.0)
    log_prior = logistic(intercept=far).log_prior()
    assert np.isfinite(log_prior).all()
    assert np.exp(log_prior).sum() == pytest.approx(1.0, abs=1e-12)


def test_describe_names_the_point():
    family = logistic()
    for index, point in enumerate(grid()):
        name, parameters = family.describe(index)
        np.testing.assert_allclose(list(parameters.values()), point, rtol=0, atol=1e-15)
        assert list(parameters) == ["intercept", "x", "y"]
    assert name == "intercept 3, x 1, y 2"


def spec(coefficients):
    return BernoulliLogistic(family="bernoulli-logistic", intercept=INTERCEPT, coefficients=coefficients)


def test_from_spec_takes_the_coefficients_in_the_features_order():
    family = BernoulliLogisticFamily.from_spec(
        spec({"y": SLOPES[1], "x": SLOPES[0]}), BooleanHarm(harmful=True), ("x", "y")
    )
    np.testing.assert_array_equal(family.log_prior(), logistic().log_prior())
    assert family.describe(family.size - 1)[1] == {"intercept": 3.0, "x": 1.0, "y": 2.0}
    assert family.trace_key == logistic().trace_key
    assert family.trace_key != logistic(harmful=False).trace_key


@pytest.mark.parametrize(
    ("coefficients", "harm", "names", "message"),
    [
        ({"x": SLOPES[0]}, BooleanHarm(harmful=True), ("x", "y"), "one coefficient for each feature"),
        ({"x": SLOPES[0]}, IntervalHarm(0.0, 1.0, inside=True), ("x",), "Boolean outcome"),
        (
            {f"x{i}": SLOPES[0] for i in range(5)},
            BooleanHarm(harmful=True),
            tuple(f"x{i}" for i in range(5)),
            "at most 4",
        ),
        (
            {"x": CoefficientGrid(lower=1.0, upper=0.0, points=3, sd=1.0)},
            BooleanHarm(harmful=True),
            ("x",),
            "lower < upper",
        ),
        (
            {"x": CoefficientGrid(lower=1.0, upper=1.0, points=3, sd=1.0)},
            BooleanHarm(harmful=True),
            ("x",),
            "lower < upper",
        ),
        ({"x": CoefficientGrid(lower=0.0, upper=1.0, points=10**5, sd=1.0)}, BooleanHarm(harmful=True), ("x",), None),
        (
            {"x": CoefficientGrid(lower=0.0, upper=1.0, points=3, mean=1e200, sd=1e-200)},
            BooleanHarm(harmful=True),
            ("x",),
            "mass",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_from_spec_refuses_what_does_not_fit(coefficients, harm, names, message):
    if message is None:
        family = BernoulliLogisticFamily.from_spec(spec(coefficients), harm, names)
        assert family.size == 7 * 10**5
        return
    with pytest.raises(ValueError, match=message):
        BernoulliLogisticFamily.from_spec(spec(coefficients), harm, names)


def test_a_class_with_the_intercept_alone():
    family = logistic(slopes=(), names=())
    assert family.row_length == 0
    np.testing.assert_allclose(call(family.harm_score, np.zeros(0)), np.linspace(-3, 3, 7), atol=1e-14)
