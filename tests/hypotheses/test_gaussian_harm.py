import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guardrail.domain import IntervalHarm
from guardrail.hypotheses.gaussian_harm import interval_harm, interval_score, normal_cdf

INF = math.inf
EVENTS = {
    "above": IntervalHarm(1.5, INF, inside=True),
    "above, as outside": IntervalHarm(-INF, 1.5, inside=False),
    "below": IntervalHarm(-INF, -0.5, inside=True),
    "below, as outside": IntervalHarm(-0.5, INF, inside=False),
    "inside": IntervalHarm(-0.5, 2.0, inside=True),
    "inside, narrow": IntervalHarm(1.0, 1.0 + 1e-6, inside=True),
    "outside": IntervalHarm(-0.5, 2.0, inside=False),
    "always": IntervalHarm(-INF, INF, inside=True),
    "never": IntervalHarm(-INF, INF, inside=False),
}


def cdf(x, dtype=np.float64):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(normal_cdf)(np.asarray(x, dtype)))


def probability_inside(mean, sd, lower, upper):
    """P(lower < N(mean, sd^2) < upper), from the side of the mean on which nothing cancels."""
    a, b = (lower - mean) / sd, (upper - mean) / sd
    return np.where(a > 0, stats.norm.sf(a) - stats.norm.sf(b), stats.norm.cdf(b) - stats.norm.cdf(a))


@functools.cache
def kernel(event):
    def score_and_harm(means, sd):
        score = interval_score(event, means, jnp.zeros(1), jnp.zeros(()))
        return score, interval_harm(event, sd, score)

    return jax.jit(score_and_harm)


def harm_of(event, means, sd):
    """The score and the harm of each mean, and the exact harm."""
    with jax.enable_x64(True):
        score, computed = map(np.asarray, kernel(event)(np.asarray(means, float), np.float64(sd)))
    inside = probability_inside(np.asarray(means), sd, event.lower, event.upper)
    outside = stats.norm.cdf(event.lower, means, sd) + stats.norm.sf(event.upper, means, sd)
    return np.asarray(score), computed, inside if event.inside else outside


def test_cdf_is_never_below_the_exact_one_and_close_to_it():
    x = np.concatenate([np.linspace(-24.9, 8.0, 60_001), [-1e-300, 0.0, 1e-300, 37.0, 1e300]])
    exact = np.array([0.5 * math.erfc(-v / math.sqrt(2.0)) for v in x])
    computed = cdf(x)
    assert (computed >= exact).all()
    np.testing.assert_allclose(computed, exact, rtol=1e-11)
    assert (computed <= 1.0).all()


def test_cdf_beyond_its_range_errs_upward():
    computed = cdf([-25.1, -40.0, -1e300, -INF])
    assert (computed >= 0.5 * math.erfc(25.1 / math.sqrt(2.0))).all()
    assert (computed < 1e-136).all()
    assert cdf([INF])[0] == 1.0
    assert np.isnan(cdf([np.nan])[0])


def test_cdf_in_single_precision_is_for_display():
    x = np.linspace(-8.0, 8.0, 10_001)
    computed = cdf(x, np.float32)
    assert computed.dtype == np.float32
    # The argument itself is rounded to float32, which moves a tail by x^2 roundings.
    np.testing.assert_allclose(computed, stats.norm.cdf(x.astype(np.float32)), rtol=2e-5)
    assert 0.0 < cdf([-30.0], np.float32)[0] < 1e-17


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("sd", [0.3, 1.0, 20.0])
def test_harm_is_the_probability_of_the_event(name, sd):
    means = np.concatenate([np.linspace(-6, 6, 241), [-0.5, 0.75, 1.0, 1.5, 2.0]])
    score, computed, exact = harm_of(EVENTS[name], means, sd)
    # scipy's value is itself off by roundings, which subtracting the two ends of a narrow interval magnifies.
    noise = 4e-16 * (1.0 if "narrow" in name else exact)
    assert (computed >= exact - noise).all()
    np.testing.assert_allclose(computed, exact, rtol=1e-9, atol=1e-11 if "narrow" in name else 1e-130)
    assert ((computed >= 0) & (computed <= 1)).all()
    ascending = computed[np.argsort(score, kind="stable")]
    assert (np.diff(ascending) >= -1e-11 * ascending[1:] - 1e-15).all()


@pytest.mark.parametrize("name", EVENTS)
def test_far_tails_are_neither_negative_nor_lost(name):
    _, computed, exact = harm_of(EVENTS[name], np.array([-1e6, -60.0, 60.0, 1e6, 1e200, -1e200]), 1.0)
    assert (computed >= exact).all()
    assert (computed <= np.maximum(1.01 * exact, 1e-136)).all()


@pytest.mark.parametrize("name", EVENTS)
def test_nan_stays_nan(name):
    with jax.enable_x64(True):
        score = interval_score(EVENTS[name], jnp.array([jnp.nan, 0.0]), jnp.zeros(1), jnp.zeros(()))
        harm = np.asarray(interval_harm(EVENTS[name], 1.0, score))
    assert np.isnan(harm).any()


SCALES = [(0.0, 1e-3), (-1e6, 1e-3), (3.0, 1e4), (1e6, 1e5)]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.sampled_from(SCALES),
    st.booleans(),
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
    st.sampled_from([1e-2, 1.0, 1e3]),
)
def test_interval_harm_covers_large_and_small_scales(scale, inside, means, sd):
    lower, width = scale
    _, computed, exact = harm_of(IntervalHarm(lower, lower + width, inside=inside), means, sd)
    # scipy's difference of two tails loses digits where the interval is far off and narrow.
    assert (computed >= exact * (1 - 1e-9) - 1e-15).all()
    assert (computed <= exact * (1 + 1e-6) + 1e-9).all()
