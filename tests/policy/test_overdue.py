"""A time for reports in a policy: how it is written, what lint and diff say, and what a guard does with it."""

import pytest

from guardrail import guard as guards
from guardrail.domain import Decision, GuaranteeKind, ReasonCode
from guardrail.errors import PolicyError, ReportConflict
from guardrail.guard import Guard
from guardrail.policy.diff import diff
from guardrail.policy.lint import lint
from guardrail.policy.suite import run_suite

X = {"kind": "x"}


@pytest.fixture
def timed(policy):
    """The table policy with something in the place of what it says about reports."""

    def make(reporting, *edits):
        edits = (("description: d\n", f"description: d\nreporting: {reporting}\n"), *edits)
        return policy("table", ("reject_above: 0.2}", "reject_above: 0.35}"), *edits)

    return make


@pytest.fixture
def clock(monkeypatch):
    """The clock of guards in process."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(guards, "time", clock)
    return clock


def test_a_time_makes_another_policy_and_what_holds_anyway_makes_none(policy, timed):
    plain = policy("table", ("reject_above: 0.2}", "reject_above: 0.35}"))
    assert timed("{within: null}").revision == plain.revision != timed("{within: 10m}").revision
    assert timed("{within: 10m, overdue: reject}").revision == timed("{within: 600s}").revision
    assert timed("{within: 10m, overdue: escalate}").revision != timed("{within: 10m}").revision
    own, said = timed("{self_report: true}"), timed("{self_report: true, within: null}")
    # Data that was logged before policies could set a time stays under its revision.
    assert own.revision == said.revision == "ff82a5c84d9655ac82095f8a215a2721421d6241c3c5cf0df49490132a22f619"


@pytest.mark.parametrize(
    ("reporting", "message"),
    [
        ("{overdue: reject}", "add reporting.within"),
        ("{overdue: escalate}", "add reporting.within"),
        ("{within: 10}", "whole number and a unit"),
        ("{within: 31d}", "from 1s to 30d"),
        ("{within: 10m, overdue: ignore}", "reject, escalate or assume_harm"),
    ],
)
def test_what_is_no_time_is_named(timed, reporting, message):
    with pytest.raises(PolicyError, match=message):
        timed(reporting)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("linear", "number outcome has no one value"),
        ("mdp", "harm lies some steps ahead"),
    ],
)
def test_only_what_has_one_harmful_value_is_taken_for_harm(policy, family, message):
    edit = ("description: d\n", "description: d\nreporting: {within: 10m, overdue: assume_harm}\n")
    with pytest.raises(PolicyError, match=message):
        policy(family, edit)
    assert policy(family, (edit[0], edit[1].replace("assume_harm", "escalate")))


def test_lint_says_what_taking_for_harm_costs_and_what_shadow_mode_awaits(timed):
    assert [p for p in lint(timed("{within: 10m, overdue: assume_harm}")) if "ends the guarantee" in str(p)]
    shadow = timed("{within: 10m}", ("description: d\n", "description: d\nmode: shadow\n"))
    assert [p for p in lint(shadow) if "no outcome is awaited" in str(p)]
    assert lint(timed("{within: 10m}")) == []


def test_a_diff_says_that_the_guarantee_starts_anew(timed):
    found = diff(timed("{self_report: false}"), timed("{within: 10m, overdue: escalate}"))
    assert [change.path for change in found.changes] == ["reporting.overdue", "reporting.within"]
    assert found.restarts_guarantee
    assert "not reported in time" in found.reasons[0]
    assert len(found.reasons) == 1


def test_a_suite_awaits_nothing(timed, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "schema: guardrail-suite/v1\ncases:\n  - {name: one, action: {kind: x}, expect: {decision: accept}}\n"
    )
    made = []

    def make(policy):
        made.append(Guard(policy))
        return made[0]

    assert run_suite(timed("{within: 1s}"), suite, make_guard=make).passed
    assert made[0].policy.spec.reporting.within is None


# ---------------------------------------------------------------- in process


def test_a_guard_rejects_while_an_outcome_is_overdue(timed, clock):
    guard = Guard(timed("{within: 10m}"))
    verdict = guard.check({}, X)
    assert any("withheld" in assumption for assumption in verdict.guarantee.assumptions)
    clock.now = 599.0
    assert guard.check({}, X).accepted
    clock.now = 600.0
    late = guard.check({}, X)
    assert (late.decision, late.reasons[0].code) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)
    assert [n.code for n in late.notices] == [ReasonCode.OUTCOME_OVERDUE]
    guard.observe({}, X, False)
    assert not guard.check({}, X).accepted
    guard.observe({}, X, False, decision_id=verdict.decision_id)
    assert guard.check({}, X).accepted
    assert guard.fork().check({}, X).accepted


def test_a_guard_escalates_or_is_told_that_nothing_was_done(timed, clock):
    guard = Guard(timed("{within: 10m, overdue: escalate}"))
    verdicts = guard.check_many({}, [X, {"kind": "none"}, X])
    assert [v.accepted for v in verdicts] == [True, False, True]
    clock.now = 600.0
    assert guard.check({}, X).decision is Decision.ESCALATE
    guard.not_taken(verdicts[0].decision_id)
    assert guard.check({}, X).decision is Decision.ESCALATE
    guard.not_taken(verdicts[2].decision_id)
    guard.not_taken(verdicts[2].decision_id)
    assert guard.check({}, X).accepted


def test_an_outcome_that_the_oracle_could_not_take_up_is_still_awaited(timed, clock, monkeypatch):
    guard = Guard(timed("{within: 10m}"))
    verdict = guard.check({}, X)
    with monkeypatch.context() as patch:
        patch.setattr(type(guard._judge.oracle), "observe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            guard.observe({}, X, False, decision_id=verdict.decision_id)
    clock.now = 600.0
    assert guard.check({}, X).decision is Decision.REJECT


def test_a_guard_takes_what_is_overdue_for_harm_once(timed, clock):
    guard = Guard(timed("{within: 10m, overdue: assume_harm}"))
    verdict = guard.check({}, X)
    assert verdict.guarantee.kind is GuaranteeKind.THEOREM
    clock.now = 600.0
    for _ in range(2):
        after = guard.check({}, X)
        assert after.posterior_revision == guard.revision == 1
        assert after.guarantee.kind is GuaranteeKind.NONE
        assert "taken for harm" in after.guarantee.assumptions[0]
    for settle in (
        lambda: guard.observe({}, X, False, decision_id=verdict.decision_id),
        lambda: guard.not_taken(verdict.decision_id),
    ):
        with pytest.raises(ReportConflict):
            settle()
    assert guard.revision == 1


def test_a_guard_in_shadow_mode_awaits_nothing(timed, clock):
    guard = Guard(timed("{within: 10m}", ("description: d\n", "description: d\nmode: shadow\n")))
    guard.check({}, X)
    clock.now = 600.0
    assert guard.check({}, X).enforced_decision is Decision.ACCEPT


def test_what_another_thread_takes_for_harm_meanwhile_is_no_accept(timed, clock, monkeypatch):
    """The bound does not rest on it."""
    guard = Guard(timed("{within: 10m, overdue: assume_harm}"))
    assert guard.check({}, X).accepted
    real, asked = guard._judge.bounds, []

    def bounds(*arguments):
        asked.append(None)
        if len(asked) == 1:
            clock.now += 600.0
            guard.check({}, X)
        return real(*arguments)

    monkeypatch.setattr(guard._judge, "bounds", bounds)
    late = guard.check({}, X)
    assert guard.revision == 1
    assert (late.decision, late.reasons[0].code) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)


def test_what_becomes_of_the_dictionary_does_not_change_what_was_accepted(timed, clock):
    guard = Guard(timed("{within: 10m, overdue: assume_harm}"))
    action = dict(X)
    assert guard.check({}, action).accepted
    action.clear()
    clock.now += 600.0
    assert guard.check({}, X).guarantee.kind is GuaranteeKind.NONE
    assert guard.revision == 1
