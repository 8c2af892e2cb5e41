import math
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import NonlinearConstraint, minimize

from guardrail.bounds import ellipsoid

COVERAGE = {"noise_sd": 1.0, "prior_mean": 0.0, "prior_sd": 0.5, "delta": 0.2}
COVERAGE_INPUT = np.array([1.0, 0.5])


@jax.jit
def _range(gram, cross, square, touched, noise_sd, prior_mean, prior_sd, delta, f):
    post = ellipsoid.posterior(gram, cross, square, touched, noise_sd, prior_mean, prior_sd)
    shape = ellipsoid.ratio_ellipsoid(post, delta)
    found = ellipsoid.linear_range(post, shape, f)
    return found, post.mean, ellipsoid.predictive_moments(post, f)


def ask(features, outcomes, f, noise_sd=0.5, prior_mean=0.3, prior_sd=2.0, delta=0.05):
    features, outcomes = np.asarray(features, float), np.asarray(outcomes, float)
    gram = features.T @ features
    with jax.enable_x64(True):
        return jax.tree.map(
            np.asarray,
            _range(
                gram,
                features.T @ outcomes,
                np.asarray(outcomes @ outcomes),
                np.any(features != 0, axis=0),
                noise_sd,
                prior_mean,
                prior_sd,
                delta,
                np.asarray(f, float),
            ),
        )


@jax.jit
@jax.vmap
def _upper_of_runs(gram, cross, square):
    touched = jnp.ones(cross.shape, bool)
    return _range(gram, cross, square, touched, *COVERAGE.values(), COVERAGE_INPUT)[0].upper


def log_ratio(w, features, outcomes, noise_sd=0.5, prior_mean=0.3, prior_sd=2.0):
    """Log posterior minus log prior density at w: log likelihood minus the marginal's log density."""
    n, d = features.shape
    covariance = noise_sd**2 * np.eye(n) + prior_sd**2 * features @ features.T
    evidence = stats.multivariate_normal(features @ np.full(d, prior_mean), covariance).logpdf(outcomes)
    return stats.norm(w @ features.T, noise_sd).logpdf(outcomes).sum(axis=-1) - evidence


def data(seed, d, n, noise_sd=0.5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    weights = rng.normal(0.3, 2.0, size=d)
    return features, features @ weights + noise_sd * rng.normal(size=n), rng.normal(size=d)


def brute_force_maximum(features, outcomes, f, delta):
    """max f . w over the set, by a general-purpose optimiser on the definition."""
    start = np.linalg.lstsq(features, outcomes, rcond=None)[0]
    inside = NonlinearConstraint(lambda w: log_ratio(w, features, outcomes) - np.log(delta), 0, np.inf)
    return -minimize(lambda w: -(f @ w), start, method="SLSQP", constraints=[inside], tol=1e-13).fun


@pytest.mark.parametrize(("d", "n"), [(1, 1), (1, 30), (2, 2), (2, 9), (3, 3), (3, 40)])
@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-4])
def test_range_is_that_of_a_general_optimiser(d, n, delta):
    features, outcomes, f = data(d * 100 + n, d, n)
    found, _, _ = ask(features, outcomes, f, delta=delta)
    upper = brute_force_maximum(features, outcomes, f, delta)
    lower = -brute_force_maximum(features, outcomes, -f, delta)
    scale = upper - lower
    assert found.upper == pytest.approx(upper, abs=1e-6 * scale)
    assert found.lower == pytest.approx(lower, abs=1e-6 * scale)
    # The attained points lie on the set's surface, so the optimiser could not have found more.
    for at in (found.at_upper, found.at_lower):
        w = ask(features, outcomes, f, delta=delta)[1] + at
        assert log_ratio(w, features, outcomes) == pytest.approx(np.log(delta), abs=1e-6)


def test_no_plausible_point_of_a_dense_lattice_lies_outside():
    features, outcomes, f = data(5, 2, 6)
    found, mean, _ = ask(features, outcomes, f)
    steps = np.linspace(-4, 4, 161)
    lattice = mean + np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    plausible = lattice[log_ratio(lattice, features, outcomes) >= np.log(0.05)] @ f
    assert len(plausible) > 50
    assert found.lower <= min(plausible)
    assert found.upper >= max(plausible)
    assert found.upper - max(plausible) < 0.1


def credible_upper(features, outcomes, f, noise_sd, prior_mean, prior_sd, delta):
    """Upper end of the credible ellipsoid of mass 1 - delta: not an anytime-valid bound."""
    precision = features.T @ features / noise_sd**2 + np.eye(len(f)) / prior_sd**2
    mean = np.linalg.solve(precision, features.T @ outcomes / noise_sd**2 + prior_mean / prior_sd**2)
    radius = np.sqrt(stats.chi2(len(f)).ppf(1 - delta))
    return f @ mean + radius * np.sqrt(f @ np.linalg.solve(precision, f))


def test_a_narrow_wrong_prior_does_not_shrink_the_set():
    # One observation far from a confident prior. The credible ellipsoid ignores it, the ratio set must not.
    f = np.ones(1)
    features, outcomes = np.ones((1, 1)), np.array([10.0])
    found, _, _ = ask(features, outcomes, f, noise_sd=1.0, prior_mean=0.0, prior_sd=0.1)
    assert credible_upper(features, outcomes, f, 1.0, 0.0, 0.1, 0.05) < 1
    assert found.upper > 10
    assert log_ratio(np.array([found.upper]), features, outcomes, 1.0, 0.0, 0.1) == pytest.approx(np.log(0.05))


def _misses(bound_of, weights, features, outcomes, f):
    """How many runs see the true f . w above the bound at some time."""
    times = range(1, features.shape[1] + 1)
    above = [bound_of(features[:, :t], outcomes[:, :t]) < weights @ f for t in times]
    return int(np.any(above, axis=0).sum())


def test_anytime_coverage_with_a_truth_that_the_prior_finds_unlikely():
    rng = np.random.default_rng(7)
    runs, steps, delta, f = 4000, 12, COVERAGE["delta"], COVERAGE_INPUT
    weights = np.array([1.5, -1.0])
    features = rng.normal(size=(runs, steps, 2))
    outcomes = features @ weights + COVERAGE["noise_sd"] * rng.normal(size=(runs, steps))

    def bound_of(x, y):
        gram, cross, square = np.einsum("rti,rtj->rij", x, x), np.einsum("rti,rt->ri", x, y), np.sum(y * y, axis=1)
        with jax.enable_x64(True):
            return np.asarray(_upper_of_runs(gram, cross, square))

    def credible(x, y):
        return [credible_upper(a, b, f, **COVERAGE) for a, b in zip(x, y, strict=True)]

    misses = _misses(bound_of, weights, features, outcomes, f)
    assert stats.binomtest(misses, runs, delta, alternative="greater").pvalue > 1e-4
    assert misses > 0
    few = _misses(credible, weights, features[:300], outcomes[:300], f)
    assert stats.binomtest(few, 300, delta, alternative="greater").pvalue < 1e-4


def test_directions_without_data_are_unbounded():
    features = np.zeros((20, 3))
    features[:, 0] = 1.0
    outcomes = np.full(20, 2.0)
    found, _, _ = ask(features, outcomes, [1.0, 0.0, 0.0])
    assert found.upper < 3
    for f in ([1.0, 1e-30, 0.0], [0.0, 0.0, 1.0]):
        found, _, _ = ask(features, outcomes, f)
        assert (found.lower, found.upper) == (-np.inf, np.inf)


def test_only_the_zero_input_is_bounded_without_observations():
    empty = np.zeros((0, 2))
    assert ask(empty, np.zeros(0), [0.0, 0.0])[0].upper == pytest.approx(0.0, abs=1e-12)
    assert ask(empty, np.zeros(0), [1.0, 0.0])[0].upper == np.inf


def test_collinear_features_are_unbounded():
    rng = np.random.default_rng(1)
    x = rng.normal(size=200)
    for copy in (x, 3 * x, x + 1e-9 * rng.normal(size=200)):
        features = np.stack([x, copy], axis=1)
        found, _, _ = ask(features, x, [1.0, 1.0])
        assert (found.lower, found.upper) == (-np.inf, np.inf)


def test_features_lost_to_underflow_are_unbounded():
    # The second weight is fully confounded with the first, but every product of its feature is 0 in float64.
    features = np.stack([np.ones(5), np.full(5, 1e-170)], axis=1)
    found, _, _ = ask(features, np.ones(5), [1.0, 0.0])
    assert found.upper == np.inf


def exact_upper(features, outcomes, f, noise_sd, prior_mean, prior_sd, delta):
    """Upper end for two features with 80 digits, from the textbook form of the set."""
    with localcontext() as context:
        context.prec = 80

        def big(values):
            return [Decimal(float(v)) for v in values]

        x, y, (f0, f1) = [big(row) for row in features], big(outcomes), big(f)
        s2, m, p2 = Decimal(noise_sd) ** 2, Decimal(prior_mean), Decimal(prior_sd) ** 2
        a00, a01, a11 = (sum(r[i] * r[j] for r in x) / s2 for i, j in ((0, 0), (0, 1), (1, 1)))
        b0, b1 = (sum(r[i] * v for r, v in zip(x, y, strict=True)) / s2 for i in (0, 1))

        def solve(p, q, r, u, v):
            det = p * r - q * q
            return (r * u - q * v) / det, (p * v - q * u) / det

        w0, w1 = solve(a00, a01, a11, b0, b1)
        c0, c1 = b0 + m / p2, b1 + m / p2
        mu0, mu1 = solve(a00 + 1 / p2, a01, a11 + 1 / p2, c0, c1)
        log_det = ((1 + p2 * a00) * (1 + p2 * a11) - (p2 * a01) ** 2).ln()
        level = log_det - 2 * Decimal(delta).ln() + 2 * m * m / p2 - (c0 * mu0 + c1 * mu1) + (w0 * b0 + w1 * b1)
        v0, v1 = solve(a00, a01, a11, f0, f1)
        return f0 * w0 + f1 * w1 + (level * (f0 * v0 + f1 * v1)).sqrt()


@pytest.mark.parametrize("mix", [1.0, 1e-3, 1e-5, 3e-6])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_rounding_never_makes_the_bound_too_small(mix, offset):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 2))
    features = np.stack([x[:, 0] + 10, x[:, 0] + 10 + mix * x[:, 1]], axis=1)
    outcomes = features @ [1.0, -2.0] + offset + 0.1 * rng.normal(size=60)
    for f in ([1.0, 1.0], [1.0, -1.0], [0.3, 0.0]):
        found, _, _ = ask(features, outcomes, f, noise_sd=0.1, prior_mean=0.5, prior_sd=3.0)
        exact = float(exact_upper(features, outcomes, f, 0.1, 0.5, 3.0, 0.05))
        assert found.upper >= exact
        if mix == 1.0:
            assert found.upper == pytest.approx(exact, rel=1e-6)


def test_posterior_mean_and_predictive_spread():
    features, outcomes, f = data(11, 3, 10)
    _, mean, (average, spread) = ask(features, outcomes, f)
    precision = features.T @ features / 0.25 + np.eye(3) / 4
    expected = np.linalg.solve(precision, features.T @ outcomes / 0.25 + 0.3 / 4)
    np.testing.assert_allclose(mean, expected, rtol=1e-10)
    assert average == pytest.approx(f @ expected)
    assert spread == pytest.approx(np.sqrt(f @ np.linalg.solve(precision, f)))


def test_smaller_delta_gives_wider_ranges():
    features, outcomes, f = data(12, 3, 10)
    uppers = [ask(features, outcomes, f, delta=delta)[0].upper for delta in (0.9, 0.5, 0.1, 1e-3, 1e-12)]
    assert uppers == sorted(uppers)


def test_numbers_that_overflow_give_no_finite_range():
    for bad in (np.nan, 1e200):
        with np.errstate(over="ignore"):
            found, _, _ = ask(np.full((1, 1), bad), np.ones(1), [1.0])
        assert not np.isfinite(found.upper)
    found, _, _ = ask(np.ones((1, 1)), np.ones(1), [np.nan])
    assert not np.isfinite(found.upper)


def test_log_determinant_is_an_upper_bound_even_when_singular():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 1)) @ rng.normal(size=(1, 4)) * 1e5
    with jax.enable_x64(True):
        post = ellipsoid.posterior(x.T @ x, jnp.zeros(4), jnp.zeros(()), np.ones(4, bool), 1.0, 0.0, 1.0)
        value = float(post.log_det)
    # Rank one: det(I + s^2 A) = 1 + s^2 trace A.
    exact = math.log1p(float(np.trace(x.T @ x)))
    assert exact <= value
    assert np.all(np.isfinite(post.mean))
