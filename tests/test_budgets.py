"""The arithmetic of harm budgets against exact fractions, the ledger in memory, and what a sum promises."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.budgets import UNIT, Ground, Ledger, Terms, amount, delta_of, fits, promise, total_units, units_of
from guardrail.domain import NO_GUARANTEE, Guarantee, GuaranteeKind

PROBABILITY = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 5e-324, 0.1, 0.2, 0.25, 0.5, 1.0]))
TOTAL = st.one_of(st.floats(0.0, 1.0, exclude_min=True), st.sampled_from([0.3, 0.5, 1.0]))
THEOREM = Guarantee(GuaranteeKind.THEOREM, 0.95, ("the truth is in the class",), "a source")


@given(PROBABILITY)
def test_a_bound_is_rounded_up_by_less_than_a_unit(bound):
    exact = Fraction(units_of(bound)) * Fraction(UNIT)
    assert 0 <= exact - Fraction(bound) < Fraction(UNIT)


@given(TOTAL)
def test_a_total_is_rounded_down_by_less_than_a_unit(total):
    exact = Fraction(total_units(total)) * Fraction(UNIT)
    assert 0 <= Fraction(total) - exact < Fraction(UNIT)


@given(st.lists(PROBABILITY, max_size=30), TOTAL)
def test_the_exact_sum_of_what_fits_never_exceeds_the_total(bounds, total):
    ledger, accepted = Ledger(Terms("session", total)), []
    for bound in bounds:
        before = ledger.spent
        if ledger.reserve(bound, 0.0):
            accepted.append(Fraction(bound))
        else:
            assert ledger.spent == before
        assert sum(accepted) <= Fraction(ledger.state("s").spent) <= Fraction(total)


@given(st.lists(st.sampled_from([2.0**-4, 2.0**-6]), max_size=40))
def test_what_fits_exactly_is_not_refused(bounds):
    ledger, spent = Ledger(Terms("session", 0.5)), Fraction(0)
    for bound in bounds:
        fit = spent + Fraction(bound) <= Fraction(1, 2)
        assert ledger.reserve(bound, 0.0) is fit
        spent += Fraction(bound) * fit


@given(st.lists(st.tuples(PROBABILITY, st.floats(-50.0, 50.0)), max_size=30), TOTAL)
def test_no_window_holds_more_than_the_total_whatever_the_clock_does(steps, total):
    ledger, accepted, now = Ledger(Terms("window", total, 60.0)), [], 0.0
    highest = -math.inf
    for bound, step in steps:
        now += step
        highest = max(highest, now)
        if ledger.reserve(bound, now):
            accepted.append((highest, Fraction(bound)))
        for end, _ in accepted:
            assert sum(b for at, b in accepted if end - 60.0 < at <= end) <= Fraction(total)


def test_a_window_gives_back_what_has_left_it_and_only_that():
    ledger = Ledger(Terms("window", 0.5, 60.0))
    assert ledger.reserve(0.3, 0.0)
    assert ledger.reserve(0.2, 30.0)
    assert not ledger.reserve(0.3, 59.0)
    assert not ledger.reserve(0.3, -1e9)
    assert ledger.reserve(0.3, 60.0)
    assert not ledger.reserve(0.1, 60.0)


def test_what_is_reserved_after_a_jump_back_leaves_as_late_as_what_came_before():
    ledger = Ledger(Terms("window", 0.5, 60.0))
    assert ledger.reserve(0.25, 1000.0)
    assert ledger.reserve(0.25, 950.0)
    assert not ledger.reserve(0.25, 1059.0)
    assert ledger.reserve(0.5, 1060.0)


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), -0.1, 1.1])
def test_what_is_no_probability_is_refused(bound):
    with pytest.raises(ValueError):
        units_of(bound)


@pytest.mark.parametrize("total", [float("nan"), 0.0, -0.1, 1.1])
def test_what_is_no_total_is_refused(total):
    with pytest.raises(ValueError):
        total_units(total)


def test_nothing_fits_beside_a_negative_sum():
    assert not fits(-1, 0, 0.5)
    assert not fits(0, -1, 0.5)


@given(st.integers(0, 2**60))
def test_units_are_shown_rounded_up(units):
    assert Fraction(amount(units)) >= units * Fraction(UNIT)


# ---------------------------------------------------------------- the promise


def test_the_promise_is_delta_and_total_and_names_what_it_assumes():
    grounds = [Ground("r", 1, delta_of(THEOREM))]
    promised = promise(THEOREM, grounds, 0.5, "r")
    assert promised.kind is GuaranteeKind.THEOREM
    assert 0.45 - 1e-9 < promised.confidence <= 0.45
    assert set(THEOREM.assumptions) < set(promised.assumptions)
    assert any("in a session under its name, was checked" in assumption for assumption in promised.assumptions)


def test_each_revision_and_generation_adds_its_delta():
    grounds = [Ground("r", 1, 0.05), Ground("r", 2, 0.05), Ground("other", 2, 0.1)]
    promised = promise(THEOREM, grounds, 0.5, "r")
    assert promised.confidence == pytest.approx(0.3)
    assert any("revision other" in assumption for assumption in promised.assumptions)


@pytest.mark.parametrize(
    ("bounds", "grounds", "total"),
    [
        (NO_GUARANTEE, [Ground("r", 1, 0.05)], 0.5),
        (THEOREM, [Ground("r", 1, 0.05), Ground("r", 2, None)], 0.5),
        (THEOREM, [Ground("r", 1, 0.05)], 0.96),
        (THEOREM, [], 0.96),
    ],
    ids=["no theorem now", "no theorem then", "says nothing", "says nothing of none"],
)
def test_without_a_theorem_or_beyond_one_nothing_is_promised(bounds, grounds, total):
    assert promise(bounds, grounds, total, "r").kind is GuaranteeKind.NONE
