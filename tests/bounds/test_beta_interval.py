import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from guardrail.bounds import beta_interval

# successes, failures, a, b, delta, lower, upper. Computed with mpmath at 60 digits by bisection on
# the definition (log-gamma functions, no algebra in common with the module).
EXACT = (
    (0, 5, 1, 1, 0.05, 0.0, 0.61614805036262250804),
    (5, 0, 1, 1, 0.05, 0.38385194963737749196, 1.0),
    (3, 7, 0.5, 0.5, 0.05, 0.032515139788058861966, 0.74758710991499656937),
    (1, 0, 2, 5, 0.5, 0.14285714285714285714, 1.0),
    (40, 2, 0.001, 3, 1e-06, 0.41523687169936294267, 0.99999998642004568671),
    (1000000, 3, 1, 1, 0.05, 0.99997536876378464307, 0.99999999329070469854),
    (500000000, 500000000, 1, 1, 0.05, 0.49991897045703049338, 0.50008102954296950662),
    (1000000000, 0, 1, 1, 0.01, 0.99999997467156429683, 1.0),
    (0, 1000000000, 0.5, 0.5, 0.01, 0.0, 1.5539167926778125833e-8),
    (1, 1000000000, 1, 1, 1e-07, 9.9999999700000006175e-26, 4.0543742112442044617e-8),
    (123456789, 1000000000, 1000, 3, 0.05, 0.10927219778111552396, 0.1105100572882768863),
)

STEPS = 12
GRID = np.linspace(0.0, 1.0, 41)


_interval = jax.jit(beta_interval.ratio_interval)
_gap = jax.jit(beta_interval.log_evidence_gap)


def interval(successes, failures, a=1.0, b=1.0, delta=0.05):
    with jax.enable_x64(True):
        ends = _interval(np.asarray(successes, float), np.asarray(failures, float), a, b, delta)
        return tuple(np.asarray(end) for end in ends)


def log_ratio(theta, s, f, a, b):
    """Log posterior density minus log prior density, from the definition."""
    return xlogy(s, theta) + xlog1py(f, -theta) - betaln(a + s, b + f) + betaln(a, b)


@pytest.mark.parametrize(("s", "f", "a", "b", "delta", "lower", "upper"), EXACT)
def test_ends_contain_the_exact_ones_and_are_close(s, f, a, b, delta, lower, upper):
    low, high = interval(s, f, float(a), float(b), delta)
    assert low <= lower
    assert high >= upper
    assert high == pytest.approx(upper, rel=1e-6, abs=1e-15)
    assert low == pytest.approx(lower, rel=1e-6, abs=2e-19)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    s=st.integers(0, 3000),
    f=st.integers(0, 3000),
    prior=st.sampled_from([(1.0, 1.0), (0.5, 0.5), (2.0, 30.0)]),
    delta=st.sampled_from([0.5, 0.05, 1e-6]),
)
def test_agrees_with_root_finding_on_the_definition(s, f, prior, delta):
    a, b = prior
    low, high = interval(s, f, a, b, delta)

    def excess(theta):
        return log_ratio(theta, s, f, a, b) - np.log(delta)

    p = s / (s + f) if s + f else 0.5
    tiny = 1e-300
    if s:
        root = brentq(excess, tiny, p if f else np.nextafter(1, 0), xtol=1e-300, rtol=1e-14)
        assert low == pytest.approx(root, rel=1e-9)
    else:
        assert low == 0.0
    if f:
        top = np.nextafter(1.0, 0)
        root = brentq(excess, p if s else tiny, top, xtol=1e-16, rtol=1e-14) if excess(top) < 0 else 1.0
        assert high == pytest.approx(root, rel=1e-9)
    else:
        assert high == 1.0


def test_no_plausible_point_of_a_dense_grid_lies_outside():
    theta = np.linspace(0, 1, 20_001)
    for s, f, (a, b) in itertools.product((0, 1, 4, 60), (0, 1, 9), ((1.0, 1.0), (0.5, 2.0))):
        low, high = interval(s, f, a, b)
        plausible = theta[log_ratio(theta, s, f, a, b) >= np.log(0.05)]
        assert low <= plausible.min()
        assert high >= plausible.max()
        assert plausible.min() - low <= 1e-4
        assert high - plausible.max() <= 1e-4


def test_without_observations_nothing_is_excluded():
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 0, 1e-3, 50.0) == (0.0, 1.0)


def test_mirrored_counts_give_the_mirrored_interval():
    s, f = np.meshgrid(np.arange(20), np.arange(20))
    low, high = interval(s, f, 0.5, 3.0)
    mirrored_low, mirrored_high = interval(f, s, 3.0, 0.5)
    np.testing.assert_allclose(low, 1 - mirrored_high, atol=1e-13)
    np.testing.assert_allclose(high, 1 - mirrored_low, atol=1e-13)


def test_smaller_delta_gives_wider_intervals():
    s, f = np.meshgrid(np.arange(30), np.arange(30))
    ends = [interval(s, f, delta=delta) for delta in (0.5, 0.1, 0.01, 1e-9)]
    for (low, high), (lower, higher) in itertools.pairwise(ends):
        assert np.all(lower <= low)
        assert np.all(higher >= high)


def test_the_allowance_covers_the_error_of_the_evidence_gap():
    # Exact for Beta(1, 1) and no failure: log evidence = -log(s + 1), largest log likelihood = 0.
    s = 10.0 ** np.arange(10)
    with jax.enable_x64(True):
        gap, allowance = map(np.asarray, _gap(s, 0 * s, 1.0, 1.0))
    error = np.abs(gap - np.log1p(s))
    assert np.all(error <= allowance)
    assert np.all(error <= 1e-12)
    assert allowance[-1] < 1e-5


def excluded(theta, low, high):
    return (theta < low) | (theta > high)


def every_sequence():
    """Successes after each step, int[2^STEPS, STEPS], and the number of successes of each sequence."""
    sequences = np.array(list(itertools.product((0, 1), repeat=STEPS)))
    return np.cumsum(sequences, axis=1), sequences.sum(axis=1)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 0.5), (1.0, 20.0)])
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_exact_coverage_over_every_sequence(a, b, delta, running):
    successes, total = every_sequence()
    low, high = interval(successes, np.arange(1, STEPS + 1) - successes, a, b, delta)
    if running:
        low, high = np.maximum.accumulate(low, axis=1), np.minimum.accumulate(high, axis=1)
    missed = [
        np.sum(theta**total * (1 - theta) ** (STEPS - total) * excluded(theta, low, high).any(axis=1)) for theta in GRID
    ]
    assert max(missed) <= delta
    assert max(missed) > delta / 20  # the enumeration does see exclusions


def test_a_credible_interval_would_not_pass_the_coverage_test():
    successes, total = every_sequence()
    failures = np.arange(1, STEPS + 1) - successes
    low, high = (stats.beta.ppf(q, 1 + successes, 1 + failures) for q in (0.025, 0.975))
    missed = [
        np.sum(theta**total * (1 - theta) ** (STEPS - total) * excluded(theta, low, high).any(axis=1)) for theta in GRID
    ]
    assert max(missed) > 0.05


def worst_miss(theta, out, steps):
    """Largest probability that an adversary who picks the category of each step gets a rate excluded.

    Dynamic programming over (s1, f1, s2, f2); out[k][s, f] tells whether category k's rate is excluded.
    """

    def value(s1, f1, s2, f2, memo):
        key = (s1, f1, s2, f2)
        if key not in memo:
            if out[0][s1, f1] or out[1][s2, f2]:
                memo[key] = 1.0
            elif s1 + f1 + s2 + f2 == steps:
                memo[key] = 0.0
            else:
                first = theta[0] * value(s1 + 1, f1, s2, f2, memo) + (1 - theta[0]) * value(s1, f1 + 1, s2, f2, memo)
                second = theta[1] * value(s1, f1, s2 + 1, f2, memo) + (1 - theta[1]) * value(s1, f1, s2, f2 + 1, memo)
                memo[key] = max(first, second)
        return memo[key]

    return value(0, 0, 0, 0, {})


def test_exact_coverage_of_two_categories_against_an_adversary():
    steps, delta = 10, 0.3
    s, f = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")

    def worst(level):
        low, high = interval(s, f, 0.5, 0.5, level)
        rates = (0.02, 0.05, 0.1, 0.3, 0.5, 0.93)
        pairs = itertools.combinations_with_replacement(rates, 2)
        return max(worst_miss(pair, [excluded(t, low, high) for t in pair], steps) for pair in pairs)

    assert 0 < worst(delta / 2) <= delta
    # Without sharing delta the two categories together exceed what one of them may miss.
    single = max(
        worst_miss((t, 0.5), [excluded(t, *interval(s, f, 0.5, 0.5, delta)), np.zeros_like(s, bool)], steps)
        for t in (0.02, 0.05, 0.1, 0.3, 0.5, 0.93)
    )
    assert worst(delta) > 1.5 * single
