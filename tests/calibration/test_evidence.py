import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.calibration import evidence

BITS = st.integers(0, 1)
OUTCOMES = st.lists(st.tuples(st.floats(0, 1), BITS), max_size=15)


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
    assert second[:2] + second[3:] == whole[:2] + whole[3:]


@given(OUTCOMES)
def test_the_e_value_is_what_the_bets_give(outcomes):
    """Against the definition, in exact fractions: every beginning and all odds by themselves."""
    bets = [(Fraction(bound), harm) for bound, harm in outcomes if bound < 1.0]
    expected = Fraction(1, 2 * len(bets)) if bets else Fraction(1)
    for odds in map(Fraction, evidence.ODDS):
        # From the last beginning to the first: each stake is multiplied by all that comes after it.
        product, staked = Fraction(1), Fraction(0)
        for place in reversed(range(len(bets))):
            bound, harm = bets[place]
            bet = (odds - 1) / (1 + (odds - 1) * bound)
            assert bet > 0
            assert bet * bound < 1
            product *= 1 + bet * (harm - bound)
            staked += product * (Fraction(1, 2) if place == 0 else Fraction(1, 2 * place * (place + 1)))
        expected += staked / len(evidence.ODDS)
    state, values = run([o[0] for o in outcomes], [o[1] for o in outcomes])
    # Rounded down, by next to nothing.
    exact = math.log(float(expected))
    assert exact - 1e-9 <= state.log_e_value <= exact + 1e-14 * (1 + abs(exact))
    assert state.peak == max([0.0, *values])


def test_the_weights_of_all_beginnings_sum_to_one():
    weights = [0.5, *(0.5 / (t * (t - 1)) for t in range(2, 1001))]
    assert sum(weights) + 1 / (2 * 1000) == pytest.approx(1.0)


def test_the_state_given_is_unchanged():
    before = evidence.init()
    after, _ = evidence.update(before, 0.1, 1)
    assert np.isneginf(before.log_stakes).all()
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
    before, _ = run([0.3, 0.1], [1, 0])
    after, values = evidence.update(before, np.ones(50), np.arange(50) % 2)
    np.testing.assert_array_equal(after.log_stakes, before.log_stakes)
    assert (values == before.log_e_value).all()
    assert (after.outcomes, after.bets) == (52, 2)


def test_a_long_calm_does_not_hide_what_comes_after_it():
    """Bounds far above the truth use up all that was staked at first; they must not use up the rest."""
    calm, _ = run(np.full(3_000, 0.5), np.zeros(3_000))
    assert calm.log_e_value >= -math.log(2 * 3_000) - 1e-9
    generator = np.random.default_rng(11)
    after, values = evidence.update(calm, np.full(300, 0.05), generator.random(300) < 0.3)
    assert evidence.is_alarm(after, 0.01)
    assert np.argmax(values >= evidence.threshold(0.01)) < 150


def test_harm_that_was_ruled_out_is_an_alarm():
    assert evidence.is_alarm(run([0.0], [1])[0], 0.01)


def test_numbers_beyond_what_a_float_holds_stay_finite():
    """An e-value of 10 to the 30,000 is a number in log space."""
    state, values = run(np.full(10_000, 1e-9), np.ones(10_000))
    assert np.isfinite(values).all()
    assert state.peak == pytest.approx(10_000 * math.log(1e6), rel=1e-3)
    calm, values = evidence.update(state, np.full(20_000, 0.999), np.zeros(20_000))
    assert np.isfinite(values).all()
    assert evidence.is_alarm(calm, 0.01), "an alarm stays"


@pytest.mark.parametrize(("bound", "truth", "outcomes"), [(0.05, 0.1, 1000), (0.05, 0.5, 30), (0.001, 0.02, 900)])
def test_bounds_that_are_too_low_are_found_out(bound, truth, outcomes):
    generator = np.random.default_rng(7)
    harms = generator.random((50, outcomes)) < truth
    found = [evidence.is_alarm(run(np.full(outcomes, bound), row)[0], 0.01) for row in harms]
    assert np.mean(found) > 0.95


def test_bounds_that_hold_are_not_found_out_over_a_long_time():
    """With 2,000 outcomes; the exact frequencies are proved in test_exact.py."""
    generator = np.random.default_rng(8)
    bounds = generator.uniform(0, 0.3, (100, 2_000))
    harms = generator.random(bounds.shape) < bounds
    found = sum(evidence.is_alarm(run(*rows)[0], 0.01) for rows in zip(bounds, harms, strict=True))
    assert found <= 8  # P(Binomial(100, 0.01) > 8) < 1e-5
