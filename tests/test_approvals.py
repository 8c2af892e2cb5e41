"""What an approval binds, and what may follow what."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from guardrail.approvals import LONGEST_OPEN, Escalation, EscalationState, resolved, state_at, used
from guardrail.domain import Reason, ReasonCode
from guardrail.errors import EscalationClosed, EscalationMismatch
from guardrail.policy import durations

ONE = Escalation("e", "p", "r", "w", "agent", "d", opened_at=10.0, expires_at=20.0)
STATES = EscalationState


def approve(escalation, now=11.0, **said):
    return resolved(escalation, "d", **{"approve": True, "approver": "person", "note": "", "now": now, **said})


@pytest.mark.parametrize("now", [20.0, 20.5, math.inf, math.nan])
def test_nothing_is_approved_or_used_from_its_expiry_on(now):
    assert state_at(ONE, now) is STATES.EXPIRED
    with pytest.raises(EscalationClosed, match="expired"):
        approve(ONE, now)
    refusal = used(approve(ONE), "e", "d", "agent", "later", now)
    assert refusal.code is ReasonCode.APPROVAL_EXPIRED


def test_what_was_denied_or_used_does_not_expire():
    denied = approve(ONE, approve=False)
    spent = used(approve(ONE), "e", "d", "agent", "later", 12.0)
    assert (state_at(denied, 99.0), state_at(spent, 99.0)) == (STATES.DENIED, STATES.USED)


@pytest.mark.parametrize(
    ("escalation", "change", "code"),
    [
        (None, {}, "APPROVAL_UNKNOWN"),
        (ONE, {}, "APPROVAL_PENDING"),
        (approve(ONE, approve=False), {}, "APPROVAL_DENIED"),
        (approve(ONE), {"asked": "other"}, "APPROVAL_MISMATCH"),
        (approve(ONE), {"caller": "other"}, "APPROVAL_MISMATCH"),
        (approve(ONE), {"caller": ""}, "APPROVAL_MISMATCH"),
        (used(approve(ONE), "e", "d", "agent", "first", 12.0), {}, "APPROVAL_USED"),
    ],
    ids=["unknown", "pending", "denied", "digest", "caller", "nobody", "used"],
)
def test_why_an_approval_may_not_be_used(escalation, change, code):
    asked = {"asked": "d", "caller": "agent", "decision_id": "later", "now": 12.0, **change}
    refusal = used(escalation, "e", **asked)
    assert isinstance(refusal, Reason)
    assert refusal.code == code


def test_whoever_saw_something_else_resolves_nothing():
    for approve_it in (True, False):
        with pytest.raises(EscalationMismatch):
            resolved(ONE, "other", approve=approve_it, approver="person", note="", now=11.0)


def test_no_sequence_of_words_and_uses_lets_two_decisions_pass():
    """Every sequence of six steps: at most one decision, only after an approval, never after a denial."""

    def step(kind, at):
        def run(one):
            try:
                if kind == "approve":
                    return approve(one, at)
                if kind == "deny":
                    return approve(one, at, approve=False)
            except EscalationClosed:
                return one
            after = used(one, "e", "d", "agent", kind, at)
            return after if isinstance(after, Escalation) else one

        return run

    for kinds in itertools.product(["approve", "deny", "first", "second"], repeat=6):
        one, passed = ONE, set()
        for at, kind in enumerate(kinds, start=11):
            one = step(kind, float(at))(one)
            passed |= {one.used_by} - {""}
        assert len(passed) <= 1
        words = [kind for kind in kinds if kind in ("approve", "deny")]
        if passed:
            assert words[0] == "approve"
            assert kinds.index("approve") < kinds.index(next(iter(passed))) or kinds.count(next(iter(passed))) > 1
        assert dataclasses.replace(one, **_open) == ONE


_open = {"state": STATES.PENDING, "approver": "", "resolved_at": None, "used_at": None, "used_by": ""}


def test_no_policy_keeps_an_escalation_open_for_longer_than_the_store_looks_back():
    assert durations.LONGEST == LONGEST_OPEN
