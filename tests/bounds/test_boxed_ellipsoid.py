import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from guardrail.bounds import boxed_ellipsoid, ellipsoid

NOISE, MEAN, SD, DELTA = 0.5, 0.2, 1.0, 0.05


@jax.jit
def _solve(gram, cross, square, touched, f, lower, upper, delta):
    post = ellipsoid.posterior(gram, cross, square, touched, NOISE, MEAN, SD)
    shape = ellipsoid.ratio_ellipsoid(post, delta)
    free = ellipsoid.linear_range(post, shape, f)
    problem = boxed_ellipsoid.boxed(post, shape.level, lower, upper)
    base = jnp.sum(f * post.mean)
    # Without the closed form, so that the search itself is tested.
    reach, none_left = boxed_ellipsoid.maximum(problem, f, jnp.asarray(jnp.inf), jnp.full_like(f, jnp.nan))
    helped, _ = boxed_ellipsoid.maximum(problem, f, free.upper - base, free.at_upper)
    return base + reach, base + helped, free.upper, problem.empty, none_left


def ask(features, outcomes, f, lower, upper, delta=DELTA):
    with jax.enable_x64(True):
        found = _solve(
            features.T @ features,
            features.T @ outcomes,
            np.asarray(outcomes @ outcomes),
            np.any(features != 0, axis=0),
            np.asarray(f, float),
            float(lower),
            float(upper),
            delta,
        )
    return [np.asarray(value)[()] for value in found]


def log_ratio(w, features, outcomes):
    n, d = features.shape
    squares = ((outcomes - w @ features.T) ** 2).sum(axis=-1)
    log_likelihood = -squares / (2 * NOISE**2) - n * np.log(NOISE * np.sqrt(2 * np.pi))
    if n == 0:
        return log_likelihood
    covariance = NOISE**2 * np.eye(n) + SD**2 * features @ features.T
    return log_likelihood - stats.multivariate_normal(features @ np.full(d, MEAN), covariance).logpdf(outcomes)


def data(seed, d, n, lower=-1.0, upper=2.0, collinear=False):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    if collinear:
        features[:, -1] = features[:, 0]
    weights = rng.uniform(lower, upper, size=d)
    return features, features @ weights + NOISE * rng.normal(size=n), rng.normal(size=d)


def lattice(d, lower, upper):
    """Points of the box, its faces and corners among them."""
    axis = np.linspace(lower, upper, {1: 20_001, 2: 201, 3: 41}[d])
    return np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1).reshape(-1, d), axis[1] - axis[0]


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("collinear", [False, True])
def test_bound_is_that_of_a_dense_lattice(d, n, collinear):
    points, spacing = lattice(d, -1, 2)
    for seed in range(3):
        features, outcomes, f = data(seed, d, n, collinear=collinear and d > 1)
        bound, helped, free, empty, _ = ask(features, outcomes, f, -1, 2)
        plausible = points[log_ratio(points, features, outcomes) >= np.log(DELTA)]
        if len(plausible) == 0:
            continue
        best = (plausible @ f).max()
        assert not empty
        assert bound >= best
        assert helped >= best
        assert bound <= np.minimum(free, np.maximum(2 * f, -f).sum()) + 1e-6
        assert helped == pytest.approx(min(bound, free), abs=1e-6)
        # The lattice misses the maximum by no more than its spacing, except along thin ellipsoids.
        if n <= 5:
            assert bound - best <= 4 * spacing * np.abs(f).sum()


def reference(features, outcomes, f, lower, upper):
    """A general-purpose optimiser on the definition, from several starts."""
    d = len(f)
    offset = log_ratio(np.zeros(d), features, outcomes) + np.sum(outcomes**2) / NOISE**2 / 2

    def excess(w):
        return offset - np.sum((outcomes - features @ w) ** 2) / NOISE**2 / 2 - np.log(DELTA)

    inside = NonlinearConstraint(excess, 0, np.inf)
    box = LinearConstraint(np.eye(d), lower, upper)
    best = -np.inf
    for start in np.random.default_rng(0).uniform(lower, upper, size=(3, d)):
        found = minimize(lambda w: -(f @ w), start, method="SLSQP", constraints=[inside, box], tol=1e-13)
        if found.success and excess(found.x) >= -1e-7:
            best = max(best, -found.fun)
    return best


@pytest.mark.parametrize(("d", "n"), [(2, 3), (3, 8), (3, 60), (6, 3), (6, 12)])
@pytest.mark.parametrize("collinear", [False, True])
def test_bound_is_tight(d, n, collinear):
    for seed in range(3):
        features, outcomes, f = data(100 + seed, d, n, collinear=collinear)
        best = reference(features, outcomes, f, -1, 2)
        bound, *_ = ask(features, outcomes, f, -1, 2)
        assert bound >= best - 1e-7
        assert bound == pytest.approx(best, abs=1e-5)


def test_smaller_delta_gives_larger_bounds():
    for seed in range(5):
        features, outcomes, f = data(seed, 3, 2)
        bounds = [ask(features, outcomes, f, -1, 2, delta)[0] for delta in (0.9, 0.3, 0.05, 1e-4, 1e-12)]
        assert all(later >= earlier - 1e-8 for earlier, later in itertools.pairwise(bounds))


def test_a_box_that_holds_the_ellipsoid_changes_nothing():
    features, outcomes, f = data(3, 3, 200)
    bound, helped, free, empty, _ = ask(features, outcomes, f, -50, 50)
    assert helped == pytest.approx(free, rel=1e-12)
    assert bound == pytest.approx(free, rel=1e-6)
    assert not empty


def test_without_observations_the_bound_is_the_corner_of_the_box():
    f = np.array([1.0, -2.0, 0.0])
    bound, *_ = ask(np.zeros((0, 3)), np.zeros(0), f, -1, 3)
    assert bound == pytest.approx(5.0, rel=1e-12)
    assert bound >= 5.0


def test_the_zero_input_has_mean_zero():
    features, outcomes, _ = data(3, 3, 5)
    bound, *_ = ask(features, outcomes, np.zeros(3), -1, 2)
    assert bound == 0.0


def test_emptiness_is_shown_exactly_when_no_point_is_left():
    points, _ = lattice(1, -1, 1)
    shown = missed = 0
    for weight in np.linspace(1.0, 3.0, 41):
        features = np.ones((10, 1))
        outcomes = np.full(10, weight)
        margin = log_ratio(points, features, outcomes).max() - np.log(DELTA)
        _, _, _, empty, _ = ask(features, outcomes, [1.0], -1, 1)
        assert empty == (margin < 0)
        shown, missed = shown + (margin < 0), missed + (margin >= 0)
    assert shown > 5
    assert missed > 5


@pytest.mark.parametrize("d", [2, 3])
def test_emptiness_agrees_with_a_lattice_in_more_dimensions(d):
    points, _ = lattice(d, -1, 1)
    seen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(6, d))
        outcomes = features @ rng.uniform(-2.5, 2.5, size=d) + NOISE * rng.normal(size=6)
        margin = log_ratio(points, features, outcomes).max() - np.log(DELTA)
        if abs(margin) < 0.2:  # the lattice cannot tell
            continue
        _, _, _, empty, none_left = ask(features, outcomes, rng.normal(size=d), -1, 1)
        assert empty == (margin < 0)
        assert not none_left or empty
        seen.add(bool(empty))
    assert seen == {True, False}


@jax.jit
def _search(gram, cross, square, f):
    post = ellipsoid.posterior(gram, cross, square, jnp.ones(f.shape, bool), NOISE, MEAN, SD)
    problem = boxed_ellipsoid.boxed(post, ellipsoid.ratio_ellipsoid(post, DELTA).level, 0.0, 1.0)
    nothing_known = jnp.asarray(jnp.inf), jnp.asarray(False)
    return problem, boxed_ellipsoid._search(problem, f, *nothing_known, seek_point=False)


@pytest.mark.parametrize("n", [1, 40, 20_000])
def test_search_converges_in_forty_dimensions(n):
    features, outcomes, f = data(8, 40, n, lower=0.0, upper=1.0)
    unit = f / np.abs(f).sum()
    with jax.enable_x64(True):
        statistics = features.T @ features, features.T @ outcomes, np.asarray(outcomes @ outcomes)
        problem, found = jax.tree.map(np.asarray, _search(*statistics, unit))
    assert found.done
    assert found.iteration < boxed_ellipsoid.MAX_ITERATIONS
    x = found.best_x
    assert x @ problem.gram @ x + 2 * x @ problem.gradient <= 1 + 1e-9
    assert 0 <= found.bound - unit @ x <= 2 * boxed_ellipsoid.TOLERANCE


def test_every_multiplier_and_point_gives_an_upper_bound():
    # Weak duality itself, at arbitrary iterates: stopping the search anywhere is sound.
    rng = np.random.default_rng(4)
    features, outcomes, f = data(21, 2, 3)
    with jax.enable_x64(True):
        post = ellipsoid.posterior(
            features.T @ features, features.T @ outcomes, outcomes @ outcomes, np.ones(2, bool), NOISE, MEAN, SD
        )
        problem = boxed_ellipsoid.boxed(post, ellipsoid.ratio_ellipsoid(post, DELTA).level, -1.0, 2.0)
        certificate = jax.jit(boxed_ellipsoid._certificate)
        points = rng.uniform(np.asarray(problem.lower), np.asarray(problem.upper), size=(20_000, 2))
        gram, gradient = np.asarray(problem.gram), np.asarray(problem.gradient)
        inside = points[np.einsum("ni,ij,nj->n", points, gram, points) + 2 * points @ gradient <= 1]
        best = (inside @ f).max()
        multipliers = rng.exponential(1.0, size=200) * 10.0 ** rng.integers(-4, 4, size=200)
        for x, multiplier in zip(points[:200], multipliers, strict=True):
            assert float(certificate(problem, f, x, multiplier, problem.gram @ x)) >= best


def test_unusable_numbers_never_give_a_small_bound():
    features, outcomes, f = data(3, 2, 5)
    bound, *_ = ask(features, outcomes, f * np.nan, -1, 2)
    assert np.isnan(bound)
    bound, *_ = ask(features * 1e-170, outcomes, f, -1, 2)
    assert bound >= np.maximum(2 * f, -f).sum()
