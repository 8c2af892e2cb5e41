"""Redaction in a policy: what may be redacted, what is kept, and that it makes no other decision."""

import pytest

from guardrail.guard import Guard
from guardrail.policy.diff import diff
from guardrail.policy.lint import lint
from guardrail.policy.redaction import REDACTED, same_where_kept

FIELDS = (
    "action: {kind: string}",
    "context: {ssn: {type: string, optional: true}}\naction: {kind: string, to: string}",
)
REDACT = (FIELDS[0], FIELDS[1] + "\nredact: {context: [ssn], action: [to]}")
SECRET = "078-05-1120"


def test_saying_what_holds_anyway_makes_no_other_policy(policy):
    empty = ("description: d\n", "description: d\nredact: {context: []}\n")
    assert policy("table", empty).revision == policy("table").revision
    assert policy("table", REDACT).revision != policy("table", FIELDS).revision


def test_the_guarantee_goes_on(policy):
    assert not diff(policy("table", FIELDS), policy("table", REDACT)).restarts_guarantee


@pytest.mark.parametrize(
    ("redact", "told"),
    [
        ("{action: [kind]}", "hypotheses.category reads action.kind"),
        ("{action: [kinds]}", "action has no field 'kinds'"),
        ("{context: [kind]}", "context has no field 'kind'"),
        ("{outcome: [bad]}", "outcome"),
        ("[kind]", "mapping"),
    ],
)
def test_what_may_not_be_redacted_is_said(problems, redact, told):
    found = problems("table", ("harm: outcome.bad\n", f"harm: outcome.bad\nredact: {redact}\n"))
    assert any(told in str(problem) for problem in found), found


@pytest.mark.parametrize(
    ("field", "reader"),
    [("context: [temp]", "features.temp reads context.temp"), ("action: [tool]", "rules[1].when reads action.tool")],
)
def test_a_field_that_a_feature_or_a_rule_reads_stays(problems, field, reader):
    rule = (
        "reason: no temperature\n",
        "reason: no temperature\n  - {when: action.tool == 'rm', decide: reject, reason: r}\n",
    )
    redact = ("harm: outcome.bad\n", f"harm: outcome.bad\nredact: {{{field}}}\n")
    assert [reader in str(problem) for problem in problems("logistic", rule, redact)] == [True]


def test_a_field_whose_presence_a_rule_tests_stays(problems):
    rule = (
        "decision: {reject_above: 0.2}\n",
        "decision: {reject_above: 0.2}\nrules: [{when: has(context.ssn), decide: reject, reason: r}]\n",
    )
    assert any("rules[0].when" in str(problem) for problem in problems("table", REDACT, rule))


def test_a_mark_stands_for_what_is_redacted_and_for_what_is_not_declared(policy):
    redacting = policy("table", REDACT)
    assert redacting.kept_context({"ssn": SECRET}) == {"ssn": REDACTED}
    assert redacting.kept_context({"ssn": None}) == {"ssn": None}
    assert redacting.kept_context({"snn": SECRET}) == {"snn": REDACTED}
    assert redacting.kept_action({"kind": "x", "to": [SECRET]}) == {"kind": "x", "to": REDACTED}
    plain = policy("table", FIELDS)
    assert plain.kept_context({"snn": SECRET}) == {"snn": SECRET}


@pytest.mark.parametrize("value", [SECRET, 1, None, [], {"a": {"b": 1}}, float("nan"), REDACTED])
def test_what_is_kept_is_decided_about_as_what_was_asked(policy, value):
    """Whatever the value, also one of another type than is declared: a log shows only that there was one."""
    redacting = policy("table", REDACT)
    guard = Guard(redacting)
    asked = {"ssn": value}, {"kind": "x", "to": value}
    kept = redacting.kept_context(asked[0]), redacting.kept_action(asked[1])
    said, again = guard.check(*asked), guard.check(*kept)
    assert (said.decision, said.harm_bound, said.reasons) == (again.decision, again.harm_bound, again.reasons)
    assert SECRET not in repr(said)


def test_the_mark_is_refused_where_a_field_is_not_redacted(policy):
    verdict = Guard(policy("table", FIELDS)).check({}, {"kind": "x", "to": REDACTED})
    assert [reason.code for reason in verdict.reasons] == ["WRONG_TYPE"]


def test_lint_does_not_ask_to_use_what_is_redacted(policy):
    assert sum("only logged" in str(p) for p in lint(policy("table", FIELDS))) == 2
    assert not any("only logged" in str(p) for p in lint(policy("table", REDACT)))


def test_contexts_agree_as_far_as_both_are_kept():
    assert same_where_kept({"a": 1, "b": REDACTED}, {"a": 1, "b": 2})
    assert not same_where_kept({"a": 1, "b": REDACTED}, {"a": 2, "b": REDACTED})
    assert not same_where_kept({"a": REDACTED}, {})
    assert not same_where_kept([1], {})
