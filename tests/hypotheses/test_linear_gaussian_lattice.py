import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.policy.schema import LinearGaussianLattice, ProductPrior

ABOVE = IntervalHarm(2.0, math.inf, inside=True)
NAMES = ("load", "speed", "heat")


def lattice(levels=3, noise_sd=0.7, prior=None, harm=ABOVE, names=NAMES):
    return LinearGaussianLatticeFamily(levels, noise_sd, prior, harm, names)


def weights(levels, d):
    """float64[H, d]: every weight vector, in the order of the base-`levels` numbers."""
    return np.array(list(itertools.product(range(levels), repeat=d)), float)


def call(function, *args):
    """A family's method, or a function of (arrays, ...) that reads none."""
    arrays = getattr(getattr(function, "__self__", None), "arrays", {})
    with jax.enable_x64(True):
        return np.asarray(jax.jit(function)(arrays, *map(np.asarray, args)))


@functools.cache
def kernel(noise_sd):
    """Likelihood, its rounding and the score, compiled once for all examples of a property."""
    family = lattice(noise_sd=noise_sd)

    def numbers(row, outcome):
        likelihood = (
            family.log_likelihood(family.arrays, row, outcome),
            family.log_likelihood_rounding(family.arrays, row, outcome),
        )
        return *likelihood, family.harm_score(family.arrays, row)

    return jax.jit(numbers)


@pytest.mark.parametrize(("levels", "d"), [(2, 1), (2, 5), (3, 3), (4, 4), (7, 2)])
def test_likelihood_against_scipy_and_torch(levels, d):
    family = lattice(levels, names=tuple(f"x{i}" for i in range(d)))
    random = np.random.default_rng(levels)
    for row, outcome in zip(random.normal(size=(5, d)), random.normal(size=5), strict=True):
        mean = weights(levels, d) @ row
        computed = call(family.log_likelihood, row, outcome)
        np.testing.assert_allclose(computed, stats.norm.logpdf(outcome, mean, 0.7), rtol=1e-13, atol=1e-13)
        by_torch = torch.distributions.Normal(torch.tensor(mean), 0.7).log_prob(
            torch.tensor(outcome, dtype=torch.float64)
        )
        np.testing.assert_allclose(computed, by_torch.numpy(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("harm", "probability"),
    [
        (ABOVE, lambda mean: stats.norm.sf(2.0, mean, 0.7)),
        (IntervalHarm(-math.inf, 1.0, inside=True), lambda mean: stats.norm.cdf(1.0, mean, 0.7)),
        (
            IntervalHarm(0.0, 2.5, inside=False),
            lambda mean: stats.norm.cdf(0.0, mean, 0.7) + stats.norm.sf(2.5, mean, 0.7),
        ),
        (
            IntervalHarm(0.0, 2.5, inside=True),
            lambda mean: stats.norm.cdf(2.5, mean, 0.7) - stats.norm.cdf(0.0, mean, 0.7),
        ),
    ],
)
def test_harm_against_scipy(harm, probability):
    family = lattice(harm=harm)
    for row in np.random.default_rng(0).normal(size=(5, 3)):
        score = call(family.harm_score, row)
        computed = call(lambda _, s: family.harm_from_score(s), score)
        exact = probability(weights(3, 3) @ row)
        np.testing.assert_allclose(computed, exact, rtol=1e-9, atol=1e-14)
        assert (computed >= exact * (1 - 1e-14) - 2e-16).all()
        assert (np.diff(computed[np.argsort(score)]) >= -1e-15).all()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e8, 1e8), min_size=3, max_size=3),
    st.floats(-1e8, 1e8),
    st.sampled_from([1e-3, 0.7, 1e4]),
)
def test_rounding_is_covered(row, outcome, noise_sd):
    """Likelihoods against exact rational arithmetic, and scores, which may only err upward."""
    with jax.enable_x64(True):
        computed, allowed, scores = map(np.asarray, kernel(noise_sd)(np.asarray(row), np.float64(outcome)))
    log_norm = math.log(noise_sd) + 0.5 * math.log(2 * math.pi)
    for index, weight in enumerate(weights(3, 3)):
        mean = sum(Fraction(w) * Fraction(x) for w, x in zip(weight, row, strict=True))
        half_square = ((Fraction(outcome) - mean) / Fraction(noise_sd)) ** 2 / 2
        error = abs(Fraction(float(computed[index])) + half_square + Fraction(log_norm))
        assert error <= Fraction(float(allowed))
        assert Fraction(float(scores[index])) >= mean
        assert float(scores[index]) - float(mean) <= 1e-13 * 2 * sum(map(abs, row)) + 1e-300


EXACT_SCORES = {
    IntervalHarm(0.1, math.inf, inside=True): lambda mean: mean,
    IntervalHarm(-math.inf, 0.1, inside=True): lambda mean: -mean,
    IntervalHarm(0.1, 7.3, inside=True): lambda mean: -abs(mean - (Fraction(0.1) + Fraction(7.3)) / 2),
    IntervalHarm(0.1, 7.3, inside=False): lambda mean: abs(mean - (Fraction(0.1) + Fraction(7.3)) / 2),
}


@functools.cache
def score_kernel(harm):
    family = lattice(harm=harm)
    return jax.jit(lambda row: family.harm_score(family.arrays, row))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sampled_from(list(EXACT_SCORES)), st.lists(st.floats(-1e8, 1e8), min_size=3, max_size=3))
def test_scores_are_never_rounded_down(harm, row):
    with jax.enable_x64(True):
        scores = np.asarray(score_kernel(harm)(np.asarray(row)))
    for score, weight in zip(scores, weights(3, 3), strict=True):
        mean = sum(Fraction(w) * Fraction(x) for w, x in zip(weight, row, strict=True))
        assert Fraction(float(score)) >= EXACT_SCORES[harm](mean)
        assert float(score) <= float(EXACT_SCORES[harm](mean)) + 1e-13 * (8 + 2 * sum(map(abs, row)))


def test_index_is_the_base_number_of_the_weights():
    family = lattice()
    for index, weight in enumerate(weights(3, 3)):
        name, parameters = family.describe(index)
        assert list(parameters.items()) == list(zip(NAMES, weight, strict=True))
        assert name == f"weights ({', '.join(str(int(w)) for w in weight)})"


def test_uniform_prior():
    np.testing.assert_allclose(lattice(4).log_prior(), np.full(64, -3 * math.log(4)), rtol=1e-15)


def test_product_prior():
    prior = (0.7, 0.2, 0.1)
    expected = [math.prod(prior[int(w)] for w in weight) for weight in weights(3, 3)]
    np.testing.assert_allclose(np.exp(lattice(prior=prior).log_prior()), expected, rtol=1e-13)


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.5, 0.4, 0.2), (0.5, 0.5, 0.0), (1.5, -0.25, -0.25)])
def test_a_prior_that_is_none(prior):
    with pytest.raises(ValueError, match="prior"):
        lattice(prior=prior)


def test_from_spec():
    spec = LinearGaussianLattice(
        family="linear-gaussian-lattice", levels=2, noise_sd=0.5, prior=ProductPrior(probabilities=(0.25, 0.75))
    )
    family = LinearGaussianLatticeFamily.from_spec(spec, ABOVE, ("a", "b"))
    np.testing.assert_allclose(np.exp(family.log_prior()), [1 / 16, 3 / 16, 3 / 16, 9 / 16], rtol=1e-14)
    assert family.row_length == 2
    assert family.encode((1.0, 2.0), None).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="range of numbers"):
        LinearGaussianLatticeFamily.from_spec(spec, BooleanHarm(harmful=True), ("a", "b"))
    with pytest.raises(ValueError, match="feature"):
        LinearGaussianLatticeFamily.from_spec(spec, ABOVE, ())
    with pytest.raises(ValueError, match="too many"):
        LinearGaussianLatticeFamily.from_spec(spec, ABOVE, tuple(f"x{i}" for i in range(28)))


def test_a_large_lattice_stores_no_table():
    family = lattice(2, names=tuple(f"x{i}" for i in range(26)))
    assert family.size == 2**26
    assert family.width == 2**13
    assert sum(array.size for array in family.arrays.values()) == 2 * 2**13 * 13


@pytest.mark.parametrize(("levels", "dimension"), [(2, 1), (3, 2), (4, 3), (2, 5)])
def test_sums_give_the_log_likelihood_of_all_observations(levels, dimension):
    family = LinearGaussianLatticeFamily(levels, 0.7, None, ABOVE, tuple(f"x{i}" for i in range(dimension)))
    random = np.random.default_rng(dimension)
    rows, outcomes = random.normal(size=(40, dimension)), random.normal(size=40) * 3
    weights = np.array(list(itertools.product(range(levels), repeat=dimension)), float)
    exact = stats.norm.logpdf(outcomes[:, None], rows @ weights.T, 0.7).sum(axis=0)
    with jax.enable_x64(True):
        sums = sum(family.statistics(jnp.asarray(row), jnp.asarray(y)) for row, y in zip(rows, outcomes, strict=True))
        prepared = family.prepare(sums)
        found = np.asarray(family.log_likelihood_of(family.arrays, prepared))
    assert sums.shape == (family.statistics_length,)
    np.testing.assert_allclose(found - found.max(), exact - exact.max(), atol=1e-9)
    assert abs(found.max()) < 50, "the numbers lie near 0 where it matters"
    assert np.abs((found - found.max()) - (exact - exact.max())).max() < float(prepared["rounding"]) * 10 + 1e-10
