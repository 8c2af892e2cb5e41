"""Harm budgets in a policy: how they are written, what lint says, and what a guard in process does with them."""

import pytest

from guardrail.domain import Decision, ReasonCode
from guardrail.errors import PolicyError
from guardrail.guard import Guard
from guardrail.policy.lint import lint
from guardrail.policy.suite import run_suite

X = {"kind": "x"}


@pytest.fixture
def budgeted(policy):
    """The table policy with something in the place of a budget."""

    def make(budget, *edits):
        return policy("table", ("reject_above: 0.2}", f"reject_above: 0.35, budget: {budget}}}"), *edits)

    return make


def test_a_budget_makes_another_policy_and_none_makes_none(policy, budgeted):
    plain = policy("table", ("reject_above: 0.2}", "reject_above: 0.35}"))
    assert budgeted("null").revision == plain.revision != budgeted("{per: session, total: 0.5}").revision


def test_equal_windows_are_the_same_policy(budgeted):
    hours, day, other = (budgeted(f"{{per: window, window: {w}, total: 0.5}}") for w in ("24h", "1d", "23h"))
    assert hours.revision == day.revision != other.revision
    assert hours.spec.decision.budget.window == 86_400.0


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("{total: 0.5}", "field 'per' is missing"),
        ("{per: day, total: 0.5}", "known are session, window"),
        ("{per: session}", "field 'total' is missing"),
        ("{per: session, total: 0}", "greater than 0"),
        ("{per: session, total: 1.1}", "at most 1"),
        ("{per: session, total: .nan}", "number"),
        ("{per: session, total: half}", "needs a number"),
        ("{per: session, total: 0.5, window: 1h}", "unknown field 'window'"),
        ("{per: window, total: 0.5}", "field 'window' is missing"),
        ("{per: window, total: 0.5, window: 60}", "whole number and a unit"),
        ("{per: window, total: 0.5, window: 0s}", "whole number and a unit"),
        ("0.5", "mapping"),
    ],
)
def test_what_is_no_budget_is_named(budgeted, budget, message):
    with pytest.raises(PolicyError, match=message):
        budgeted(budget)


@pytest.mark.parametrize(
    ("total", "edits", "message"),
    [
        ("0.5", (), None),
        ("0.3", (), "none above 0.3 ever fits"),
        ("0.96", (), "says nothing"),
        ("0.5", (("kind: ratio, delta: 0.05", "kind: iid"),), "promises nothing at all times"),
        ("0.5", (("kind: ratio, delta: 0.05", "kind: plausible, alpha: 0.3"),), "says nothing"),
    ],
)
def test_lint_says_what_a_budget_does_not_do(budgeted, total, edits, message):
    found = [str(problem) for problem in lint(budgeted(f"{{per: session, total: {total}}}", *edits))]
    assert [m for m in found if message and message in m] or (message is None and not found), found


# ---------------------------------------------------------------- in process


def test_a_guard_keeps_a_budget_for_each_session(budgeted):
    guard = Guard(budgeted("{per: session, total: 0.7}"))
    verdicts = [guard.check({}, X, session=s) for s in ("a", "a", "a", "b")]
    assert [v.accepted for v in verdicts] == [True, True, False, True]
    assert verdicts[2].reasons[0].code == ReasonCode.BUDGET_EXHAUSTED
    assert verdicts[2].harm_bound == 0.3
    assert verdicts[2].budget == verdicts[1].budget
    assert guard.check({}, X).reasons[0].code == ReasonCode.SESSION_MISSING
    assert guard.fork().check({}, X, session="a").accepted


def test_a_guard_keeps_a_window_whatever_the_session(budgeted):
    guard = Guard(budgeted("{per: window, window: 24h, total: 0.7}"))
    assert [guard.check({}, X, session=s).accepted for s in ("", "a", "b")] == [True, True, False]


def test_the_safest_of_several_come_first(budgeted):
    guard = Guard(budgeted("{per: session, total: 0.35}", ("rates: {x: 0.3, y: 0.4}", "rates: {x: 0.3, y: 0.05}")))
    verdicts = guard.check_many({}, [X, {"kind": "y"}, {"kind": "none"}], session="s")
    assert [v.decision for v in verdicts] == [Decision.REJECT, Decision.ACCEPT, Decision.REJECT]


def test_a_suite_leaves_the_budget_out_and_says_so(budgeted, tmp_path):
    suite = tmp_path / "suite.yaml"
    case = "  - {name: %s, action: {kind: x}, expect: {decision: accept}}\n"
    suite.write_text("schema: guardrail-suite/v1\ncases:\n" + case % "one" + case % "two")
    report = run_suite(budgeted("{per: session, total: 0.3}"), suite)
    assert report.passed, report.to_dict()
    assert report.budget_left_out
    assert report.to_dict()["budget_left_out"] is True
