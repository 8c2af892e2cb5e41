import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.calibration import evidence

BITS = st.integers(0, 1)
OUTCOMES = st.lists(st.tuples(st.floats(0, 1), BITS), max_size=30)


def run(bounds, harms):
    return evidence.update(evidence.init(), bounds, harms)


@given(OUTCOMES, st.data())
def test_batches_make_no_difference(outcomes, data):
    bounds, harms = ([o[place] for o in outcomes] for place in (0, 1))
    whole, values = run(bounds, harms)
    cut = data.draw(st.integers(0, len(outcomes)))
    first, head = run(bounds[:cut], harms[:cut])
    second, tail = evidence.update(first, bounds[cut:], harms[cut:])
    np.testing.assert_array_equal(np.concatenate([head, tail]), values)
    np.testing.assert_array_equal(second.log_stakes, whole.log_stakes)
    assert (second.outcomes, second.rounding, second.peak) == (whole.outcomes, whole.rounding, whole.peak)


@given(OUTCOMES)
def test_the_e_value_is_what_the_bets_give(outcomes):
    """Against the definition, in products of exact fractions of the stakes."""
    stakes = [1.0] * len(evidence.ODDS)
    for bound, harm in outcomes:
        if bound == 1.0:
            continue
        for place, odds in enumerate(evidence.ODDS):
            bet = (odds - 1) / (1 + (odds - 1) * bound)
            assert bet > 0
            assert bet * bound < 1
            stakes[place] *= 1 + bet * (harm - bound)
    state, values = run([o[0] for o in outcomes], [o[1] for o in outcomes])
    expected = math.log(sum(stakes) / len(stakes))
    assert (values[-1] if outcomes else 0.0) == pytest.approx(expected, abs=1e-9)
    # Rounded down, by next to nothing.
    assert (values[-1] if outcomes else 0.0) <= expected + 1e-15
    assert state.peak >= max([0.0, *values])


def test_the_state_given_is_unchanged():
    before = evidence.init()
    after, _ = evidence.update(before, 0.1, 1)
    np.testing.assert_array_equal(before.log_stakes, 0.0)
    assert (before.outcomes, after.outcomes) == (0, 1)


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"bounds\[1\]"):
        run([0.1, wrong], [0, 0])


@pytest.mark.parametrize("wrong", [math.nan, 0.5, -1, 2])
def test_what_is_no_outcome_is_refused(wrong):
    with pytest.raises(ValueError, match=r"harms\[1\]"):
        run([0.1, 0.1], [0, wrong])


def test_shapes_and_kinds_are_checked():
    with pytest.raises(ValueError, match="2 are needed"):
        run([0.1, 0.1], [0])
    with pytest.raises(ValueError, match="one axis"):
        run([[0.1]], [0])
    with pytest.raises(ValueError, match="numbers"):
        run(["0.1"], [0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_levels_are_checked(alpha):
    with pytest.raises(ValueError, match="alpha"):
        evidence.is_alarm(evidence.init(), alpha)


def test_a_bound_of_one_promises_nothing():
    state, values = run(np.ones(50), np.arange(50) % 2)
    assert not state.log_stakes.any()
    assert state.peak == 0.0
    assert (values <= 0.0).all()


def test_harm_that_was_ruled_out_is_an_alarm():
    assert evidence.is_alarm(run([0.0], [1])[0], 0.01)


def test_numbers_beyond_what_a_float_holds_stay_finite():
    """An e-value of 10 to the 30,000 is a number in log space."""
    state, values = run(np.full(10_000, 1e-9), np.ones(10_000))
    assert np.isfinite(values).all()
    assert state.peak == pytest.approx(10_000 * math.log(1000) - math.log(9), rel=1e-4)
    calm, values = evidence.update(state, np.full(100_000, 0.999), np.zeros(100_000))
    assert np.isfinite(values).all()
    assert evidence.is_alarm(calm, 0.01), "an alarm stays"


@pytest.mark.parametrize(("bound", "truth", "outcomes"), [(0.05, 0.1, 1000), (0.05, 0.5, 30), (0.001, 0.02, 700)])
def test_bounds_that_are_too_low_are_found_out(bound, truth, outcomes):
    generator = np.random.default_rng(7)
    harms = generator.random((200, outcomes)) < truth
    found = [evidence.is_alarm(run(np.full(outcomes, bound), row)[0], 0.01) for row in harms]
    assert np.mean(found) > 0.95


def test_bounds_that_hold_are_not_found_out_over_a_long_time():
    """With 5,000 outcomes; the exact frequencies are proved in test_exact.py."""
    generator = np.random.default_rng(8)
    bounds = generator.uniform(0, 0.3, (200, 5_000))
    harms = generator.random(bounds.shape) < bounds
    found = sum(evidence.is_alarm(run(*rows)[0], 0.01) for rows in zip(bounds, harms, strict=True))
    assert found <= 10  # P(Binomial(200, 0.01) > 10) < 1e-5
