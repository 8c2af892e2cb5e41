"""Shadow mode: everything is let through, what was found is said, and nobody can take it for an accept."""

import pytest

from guardrail.domain import Decision, ReasonCode
from guardrail.guard import Guard
from guardrail.policy.lint import lint
from guardrail.records import verdict_from_dict, verdict_to_dict
from guardrail.store.decisions import LoggedDecision
from guardrail.wire import verdict_from_proto, verdict_to_proto

SHADOW = ("description: d\n", "description: d\nmode: shadow\n")
ENFORCE = ("description: d\n", "description: d\nmode: enforce\n")


@pytest.fixture
def verdicts(policy):
    """The verdict of the policy and that of the same policy in shadow mode, for an action that is rejected."""
    return [Guard(policy("table", *edits)).check({}, {"kind": "none"}) for edits in ((), (SHADOW,))]


def test_what_is_rejected_is_let_through_and_marked(verdicts):
    enforced, watched = verdicts
    assert enforced.decision is enforced.found is Decision.REJECT
    assert not enforced.shadow
    assert watched.accepted
    assert watched.shadow
    assert watched.found is Decision.REJECT
    assert [n.code for n in watched.notices] == [ReasonCode.SHADOW_MODE]
    assert [r.code for r in watched.reasons] == [r.code for r in enforced.reasons]


def test_it_goes_over_the_wire_and_into_the_log_as_what_was_found(verdicts):
    watched = verdicts[1]
    received = verdict_from_proto(verdict_to_proto(watched))
    assert (received.decision, received.found, received.shadow) == (Decision.ACCEPT, Decision.REJECT, True)
    assert verdict_from_dict(verdict_to_dict(watched)) == watched
    assert LoggedDecision(watched, {}, {}, 0.0).to_record().decision == "reject"


def test_an_accept_that_says_shadow_without_what_was_found_is_a_reject(verdicts):
    message = verdict_to_proto(verdicts[1])
    message.ClearField("enforced_decision")
    assert not verdict_from_proto(message).accepted


def test_a_reject_without_the_mark_is_none_that_a_defect_can_let_through(verdicts):
    message = verdict_to_proto(verdicts[1])
    message.shadow = False
    assert not verdict_from_proto(message).accepted


def test_what_was_found_to_be_an_accept_must_be_backed_in_shadow_mode_too(verdicts):
    message = verdict_to_proto(verdicts[1])
    message.enforced_decision = message.decision
    assert not verdict_from_proto(message).accepted


def test_lint_says_that_nothing_is_enforced_and_enforcing_is_what_holds_anyway(policy):
    assert any("let through" in str(problem) for problem in lint(policy("table", SHADOW)))
    assert policy("table", ENFORCE).revision == policy("table").revision != policy("table", SHADOW).revision
