"""Who may report: what a policy says about it, and what its guarantee assumes then."""

import pytest

from guardrail.domain import GuaranteeKind
from guardrail.guard import Guard
from guardrail.oracles.guarantees import SELF_REPORTED
from guardrail.policy.lint import lint

SELF = ("description: d\n", "description: d\nreporting: {self_report: true}\n")
NOT_SELF = ("description: d\n", "description: d\nreporting: {self_report: false}\n")


def test_saying_what_holds_anyway_makes_no_other_policy(policy):
    plain, said = policy("table"), policy("table", NOT_SELF)
    assert plain.revision == said.revision
    assert policy("table", SELF).revision != plain.revision
    # Data that was logged before policies could say this stays under its revision.
    assert plain.revision == "5b1acf1b2b6c5d7debae05474caf0b353810919c6a4749198b5a1cb98720ae38"


def test_the_guarantee_names_what_self_reports_assume(policy):
    action = {"kind": "x"}
    plain, own = (Guard(policy("table", *edits)).check({}, action).guarantee for edits in ((), (SELF,)))
    assert plain.kind is own.kind is GuaranteeKind.THEOREM
    assert SELF_REPORTED not in plain.assumptions
    assert own.assumptions == (*plain.assumptions, SELF_REPORTED)
    assert own.confidence == plain.confidence


def test_what_promises_nothing_assumes_nothing_more(policy):
    edits = (SELF, ("kind: ratio, delta: 0.05", "kind: predictive"))
    assert SELF_REPORTED not in Guard(policy("table", *edits)).check({}, {"kind": "x"}).guarantee.assumptions


def test_lint_says_what_self_reports_do(policy):
    assert [str(p) for p in lint(policy("table", SELF)) if "argue itself" in str(p)]


@pytest.mark.parametrize("text", ["reporting: {self_report: 1}", "reporting: {own: true}", "reporting: true"])
def test_other_words_are_refused(problems, text):
    assert problems("table", ("description: d\n", f"description: d\n{text}\n"))
