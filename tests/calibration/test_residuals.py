import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.calibration import residuals

OUTCOMES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), max_size=30)


def run(predicted, harms):
    return residuals.update(residuals.init(), predicted, harms)


@given(OUTCOMES, st.data())
def test_batches_make_no_difference(outcomes, data):
    predicted, harms = ([o[place] for o in outcomes] for place in (0, 1))
    whole, course = run(predicted, harms)
    cut = data.draw(st.integers(0, len(outcomes)))
    first, head = run(predicted[:cut], harms[:cut])
    second, tail = residuals.update(first, predicted[cut:], harms[cut:])
    assert second == whole
    for one, two, all_of_it in zip(head, tail, course, strict=True):
        np.testing.assert_array_equal(np.concatenate([one, two]), all_of_it)


def test_the_sums_are_sums():
    state, course = run([0.25, 0.5, 1.0], [1, 0, 1])
    guesses = [0.25, 0.5 + 0.75 / 2, 1.0]
    assert state == (3.0, 2.0, 1.75, (1 - guesses[0]) ** 2 + guesses[1] ** 2)
    np.testing.assert_array_equal(course.harms, [1, 1, 2])


@pytest.mark.parametrize("squares", [0.0, 0.3, 7.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("alpha", [0.5, 0.01, 1e-9])
def test_the_radius_is_where_the_mixture_reaches_its_level(squares, alpha):
    """Never below, and next to nothing above: against the definition, by bisection."""
    slopes = 0.8 * 0.5 ** np.arange(14)
    psi = -np.log1p(-slopes) - slopes

    def reached(s):
        exponents = slopes * s - psi * squares
        peak = exponents.max()
        return peak + math.log(np.exp(exponents - peak).mean()) >= math.log(2 / alpha)

    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    count = max(1.0, squares)
    found = float(residuals.radius(residuals.Residuals(count, 0.0, 0.0, squares), alpha)) * count
    assert high * (1 - 1e-9) <= found <= high * (1 + 1e-3) + 1e-6


def test_it_narrows_like_the_root_of_the_number_of_outcomes():
    counts = np.array([1e2, 1e4, 1e6])
    radii = residuals.radius(residuals.Residuals(counts, counts / 2, counts / 2, counts / 4), 0.05)
    normal = 1.96 * 0.5 / np.sqrt(counts)
    assert (radii > normal).all()
    assert (radii < 2.4 * normal).all()


def test_before_the_first_outcome_nothing_is_known():
    assert residuals.radius(residuals.init(), 0.05) == math.inf


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"predicted\[0\]"):
        run([wrong], [0])


@pytest.mark.parametrize("wrong", [math.nan, 0.5])
def test_what_is_no_outcome_is_refused(wrong):
    with pytest.raises(ValueError, match=r"harms\[0\]"):
        run([0.5], [wrong])


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_levels_are_checked(alpha):
    with pytest.raises(ValueError, match="alpha"):
        residuals.radius(residuals.init(), alpha)


@pytest.mark.parametrize("bias", [0.0, 0.15])
def test_a_drifting_truth_is_covered_all_the_time(bias):
    generator = np.random.default_rng(9)
    truth = 0.3 + 0.2 * np.sin(np.arange(3_000) / 100)
    misses = 0
    for _ in range(100):
        harms = generator.random(len(truth)) < truth
        predicted = np.clip(truth + bias, 0, 1)
        _, course = run(predicted, harms)
        off = (course.harms - course.predicted) / course.outcomes - np.cumsum(truth - predicted) / course.outcomes
        misses += bool((np.abs(off) > residuals.radius(course, 0.05)).any())
    assert misses <= 16  # P(Binomial(100, 0.05) > 16) < 1e-5


def test_a_biased_prediction_is_found_out():
    generator = np.random.default_rng(10)
    state, _ = run(np.full(1_000, 0.2), generator.random(1_000) < 0.4)
    difference = (state.harms - state.predicted) / state.outcomes
    assert difference - residuals.radius(state, 0.01) > 0
