"""P(any harm in a session) <= delta + total, computed exactly: every outcome of a tiny world, the worst agent in it."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import pytest

from guardrail.budgets import Ground, delta_of, promise
from guardrail.domain import GuaranteeKind
from guardrail.guard import Guard
from guardrail.policy import parse_policy

TOTAL, DELTA, STEPS = 0.5, 0.2, 5
RATES = {"calm": {"x": 0.05, "y": 0.125}, "wild": {"x": 0.4, "y": 0.75}}
POLICY = f"""
schema: guardrail/v1
name: tiny
description: Two hypotheses and two actions.
action: {{kind: string}}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {{name: calm, prior: 0.8, rates: {{x: 0.05, y: 0.125}}}}
    - {{name: wild, prior: 0.2, rates: {{x: 0.4, y: 0.75}}}}
outcome: {{name: hurt, type: bool}}
harm: outcome.hurt
bound: {{kind: ratio, delta: {DELTA}, running: true}}
decision: {{reject_above: 0.9, budget: {{per: session, total: {TOTAL}}}}}
"""


@pytest.fixture(scope="module")
def guard():
    return Guard(parse_policy(POLICY))


def worst(guard, truth, budget):
    """The largest probability of any harm that an agent can bring about that knows the truth and chooses by all it saw.

    After a harm the session is lost, so only outcomes without one are followed; but before, the agent may try, outside
    of the session, whatever it likes to mislead the posterior, with outcomes that count for no harm.
    """
    rates = RATES[truth]

    @cache
    def bound(history):
        fork = guard.fork()
        for kind, outcome in history:
            fork.observe({}, {"kind": kind}, outcome)
        return {kind: fork.check({}, {"kind": kind}, session="s").harm_bound for kind in rates}

    @cache
    def value(history, spent):
        if len(history) == STEPS:
            return Fraction(0)
        best = Fraction(0)
        for kind, rate in rates.items():
            share, now = Fraction(rate), Fraction(bound(history)[kind])
            after = spent + now
            rest = {outcome: ((*history, (kind, outcome)), spent) for outcome in (False, True)}
            # outside of the session: no harm counts, the posterior learns
            best = max(best, (1 - share) * value(*rest[False]) + share * value(*rest[True]))
            if budget is None or after <= budget:
                best = max(best, share + (1 - share) * value(rest[False][0], after))
        return best

    return value((), Fraction(0))


@pytest.mark.parametrize("truth", RATES)
def test_no_agent_brings_about_harm_more_often_than_promised(guard, truth):
    probability = worst(guard, truth, Fraction(TOTAL))
    assert probability <= Fraction(DELTA) + Fraction(TOTAL)
    assert probability > Fraction(1, 10), "the agent hardly tried"
    bounds = guard.fork().check({}, {"kind": "x"}, session="s").guarantee
    promised = promise(bounds, [Ground("r", 1, delta_of(bounds))], TOTAL, "r")
    assert promised.kind is GuaranteeKind.THEOREM
    assert probability <= 1 - Fraction(promised.confidence)


def test_without_the_budget_it_would_be_more_often(guard):
    """The test above would see a budget that does nothing."""
    assert worst(guard, "wild", None) > Fraction(DELTA) + Fraction(TOTAL)


def test_the_guard_keeps_the_budget_that_was_computed_with(guard):
    fork, spent = guard.fork(), Fraction(0)
    for kind in ("x", "y", "x", "x", "y"):
        verdict = fork.check({}, {"kind": kind}, session="s")
        fits = spent + Fraction(verdict.harm_bound) <= Fraction(TOTAL)
        assert verdict.accepted is (fits and verdict.harm_bound <= 0.9)
        spent += Fraction(verdict.harm_bound) * verdict.accepted
        fork.observe({}, {"kind": kind}, False)
    assert Fraction(0) < spent <= Fraction(TOTAL)
