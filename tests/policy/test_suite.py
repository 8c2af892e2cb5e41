"""Suites against a guard whose bound is 1 / (1 + observations), so that every expectation is plain to see."""

import json
import sys

import pytest

from guardrail.domain import NO_GUARANTEE, Decision, Reason, ReasonCode, Verdict
from guardrail.errors import InvalidInput, PolicyError
from guardrail.policy.suite import run_suite

HEAD = "schema: guardrail-suite/v1\ncases:\n"


class CountingGuard:
    """Harm bound 1 / (1 + observations); the policy's own rules and thresholds."""

    made = 0

    def __init__(self, policy):
        self.policy = policy
        self.seen = []
        CountingGuard.made += 1

    def fork(self):
        guard = object.__new__(CountingGuard)
        guard.policy, guard.seen = self.policy, []
        return guard

    def observe(self, context, action, outcome):
        self.policy.features(self.policy.inputs(context, action))
        self.policy.outcome_value(outcome)
        self.seen.append((context, action, outcome))

    def check(self, context, action):
        bound = 1 / (1 + len(self.seen))
        thresholds = self.policy.spec.decision
        try:
            rule = self.policy.match_rule(self.policy.inputs(context, action))
        except InvalidInput as error:
            return self.verdict(Decision.REJECT, 1.0, ReasonCode(error.reason))
        if rule is not None:
            return self.verdict(Decision(rule.decide), 1.0, ReasonCode.RULE_MATCHED)
        if bound > thresholds.reject_above:
            return self.verdict(Decision.REJECT, bound, ReasonCode.HARM_BOUND_ABOVE_REJECT)
        if thresholds.escalate_above is not None and bound > thresholds.escalate_above:
            return self.verdict(Decision.ESCALATE, bound, ReasonCode.HARM_BOUND_ABOVE_ESCALATE)
        return self.verdict(Decision.ACCEPT, bound, ReasonCode.WITHIN_THRESHOLD)

    def verdict(self, decision, bound, code):
        reasons = (Reason(code, "why"),)
        predictive = None if bound == 1.0 else bound / 2
        return Verdict(decision, bound, 0.2, 0.1, predictive, None, NO_GUARANTEE, reasons, "p", "r", "w", 0, "d")


@pytest.fixture
def run(policy, tmp_path):
    """run(cases, *edits) -> the report on a suite of the logistic policy."""

    def run_cases(cases, *edits, name="logistic"):
        path = tmp_path / "suite.yaml"
        path.write_text(HEAD + cases)
        return run_suite(policy(name, *edits), path, make_guard=CountingGuard)

    return run_cases


INPUT = "context: {temp: 1, phi: [1, 2, 3]}, action: {tool: x, count: 1, dry: true}"
HISTORY = f"history: [{{{INPUT}, outcome: false, times: %d}}]"


def case(name, expect, times=0, check=INPUT):
    history = f"{HISTORY % times}, " if times else ""
    return f"  - {{name: {name}, {history}{check}, expect: {expect}}}\n"


def test_cases_pass_and_cover(run):
    before = CountingGuard.made
    report = run(
        case("new", "{decision: reject, harm_bound: {min: 1}, reasons: [HARM_BOUND_ABOVE_REJECT]}")
        + case("some", "{decision: escalate, harm_bound: {min: 0.16, max: 0.17}}", 5)
        + case("many", "{decision: accept, harm_bound: {max: 0.1}, predictive_harm: {min: 0.01, max: 0.05}}", 19)
        + case("rule", "{decision: reject, reasons: [RULE_MATCHED]}", check="action: {tool: x}")
    )
    assert CountingGuard.made == before + 1
    assert report.passed
    assert [c.passed for c in report.cases] == [True] * 4
    assert [c.line for c in report.cases] == [3, 4, 5, 6]
    assert [c.rule for c in report.cases] == [None, None, None, 0]
    assert report.unreached_rules == report.unreached_decisions == ()
    assert report.unreached_reasons == ("FEATURE_MISSING",)
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_failures_say_what_was_expected_and_got(run):
    report = run(
        case("new", "{decision: accept, harm_bound: {max: 0.5}, predictive_harm: {max: 0.5}, reasons: [RULE_MATCHED]}")
        + case("some", "{decision: escalate, predictive_harm: {min: 0.5}}", 5)
    )
    assert not report.passed
    assert report.cases[0].failures == (
        "decision: expected accept, got reject (HARM_BOUND_ABOVE_REJECT: why)",
        "harm_bound: expected 0 to 0.5, got 1",
        "predictive_harm: expected 0 to 0.5, got none",
        "reasons: expected RULE_MATCHED, got HARM_BOUND_ABOVE_REJECT",
    )
    assert report.cases[1].failures == ("predictive_harm: expected 0.5 to 1, got 0.0833333",)


def test_what_no_case_reaches_is_told(run):
    report = run(case("new", "{decision: reject}"))
    assert report.passed
    assert report.unreached_rules == ("1: no temperature",)
    assert report.unreached_decisions == ("accept", "escalate")
    assert report.unreached_reasons == (
        "WITHIN_THRESHOLD",
        "HARM_BOUND_ABOVE_ESCALATE",
        "RULE_MATCHED",
        "FEATURE_MISSING",
    )
    never_escalates = run("  - {name: a, action: {kind: x}, expect: {decision: reject}}\n", name="beta")
    assert never_escalates.unreached_decisions == ("accept",)
    assert never_escalates.unreached_reasons == ("WITHIN_THRESHOLD", "UNKNOWN_CATEGORY")


def test_a_history_that_does_not_fit_fails_its_case_only(run):
    bad = HISTORY.replace("tool: x", "tool: 5") % 1
    report = run(
        f"  - {{name: bad, {bad}, {INPUT}, expect: {{decision: reject}}}}\n" + case("new", "{decision: reject}")
    )
    assert [c.passed for c in report.cases] == [False, True]
    assert report.cases[0].failures == ("the history cannot be observed: action.tool is a number, needs a string",)
    assert report.cases[0].verdict is None


def test_a_bad_input_is_a_case_like_any_other(run):
    assert run(case("nan", "{decision: reject, reasons: [NOT_FINITE]}", check="context: {temp: .nan}")).passed
    assert run(case("unknown", "{decision: reject, reasons: [UNKNOWN_FIELD]}", check="context: {x: 1}")).passed


FILE_CASE = """  - name: file
    history_file:
      path: history.csv
      columns: {%s}
    context: {temp: 1, phi: [1, 2, 3]}
    action: {tool: x, count: 1, dry: true}
    expect: {decision: escalate, harm_bound: {min: 0.25, max: 0.25}}
"""
COLUMNS = "context.temp: t, context.phi: [a, b, c], action.tool: tool, action.count: n, action.dry: dry, outcome: bad"
ROWS = "t,a,b,c,tool,n,dry,bad\n1.5,1,2,3,x,1,true,0\n2,1,2,3,y,2,False,no\n3,1,2,3,z,3,1,true\n"


def test_a_history_file_comes_before_the_history(run, tmp_path):
    (tmp_path / "history.csv").write_text(ROWS)
    report = run(FILE_CASE % COLUMNS, ("reject_above: 0.2", "reject_above: 0.3"))
    assert report.cases[0].failures == ()
    longer = FILE_CASE.replace("    context: {temp", f"    {HISTORY % 16}\n    context: {{temp") % COLUMNS
    longer = longer.replace(
        "{decision: escalate, harm_bound: {min: 0.25, max: 0.25}}", "{decision: accept, harm_bound: {max: 0.05}}"
    )
    assert run(longer).cases[0].failures == ()


def test_a_history_file_is_read_with_the_declared_types(policy, tmp_path):
    from guardrail.policy.suite_file import read_history
    from guardrail.policy.suite_schema import HistoryFile

    (tmp_path / "history.csv").write_text(ROWS.replace("2,1,2,3,y", ",1,2,3,y"))
    columns = {"context.temp": "t", "context.phi": ("a", "b", "c"), "action.tool": "tool", "outcome.bad": "bad"}
    columns |= {"action.count": "n", "action.dry": "dry"}
    events = list(read_history(HistoryFile(path="history.csv", columns=columns), tmp_path, policy("logistic")))
    assert [event.outcome for event in events] == [False, False, True]
    assert events[0].context == {"temp": 1.5, "phi": [1.0, 2.0, 3.0]}
    assert events[0].action == {"tool": "x", "count": 1.0, "dry": True}
    assert events[1].context == {"phi": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (None, COLUMNS, "history.csv is not a file beside the suite"),
        (ROWS, COLUMNS.replace("temp: t,", "temp: tt,"), "history.csv has no column 'tt'"),
        (ROWS, COLUMNS.replace("context.temp", "context.tmp"), "the policy has no 'context.tmp'"),
        (ROWS, COLUMNS.replace("context.temp: t", "context.temp: [t, a]"), "context.temp is one value and needs one"),
        (ROWS.replace("1.5", "warm"), COLUMNS, "history.csv:2: could not convert string to float: 'warm'"),
        (ROWS.replace("False", "maybe"), COLUMNS, "history.csv:3: 'maybe' is not true or false"),
        (ROWS.replace("1.5", "nan"), COLUMNS, "context.temp is nan, needs a finite number"),
        (ROWS.replace(",no\n", "\n"), COLUMNS, "outcome.bad is absent"),
        ("\xff", COLUMNS, "history.csv has no column"),
    ],
)
def test_a_history_file_that_does_not_fit_fails_the_case(run, tmp_path, rows, columns, message):
    if rows is not None:
        (tmp_path / "history.csv").write_text(rows)
    report = run(FILE_CASE % columns)
    assert not report.passed
    assert message in report.cases[0].failures[0]


BAD = [
    (
        "  - {name: a, expect: {decision: acept}}",
        "3:34: decision is 'acept'; needs accept, escalate or reject; did you",
    ),
    ("  - {name: a, expects: {}}", "3:5: field 'expect' is missing; add it"),
    ("  - {name: a, expect: {decision: reject, reasons: [NAN]}}", "3:52: unknown reason code 'NAN'; "),
    ("  - {name: a, expect: {decision: reject, harm_bound: {min: 2}}}", "3:60: min is 2; needs a number of at most 1"),
    ("  - {name: a, expect: {decision: reject, harm_bound: {min: 0.5, max: 0.1}}}", "3:54: min is above max"),
    (
        "  - {name: a, expect: {decision: reject}}\n  - {name: a, expect: {decision: reject}}",
        "4:12: 'a' is given twice",
    ),
    ("  - {name: a, history: [{}], expect: {decision: reject}}", "3:25: field 'outcome' is missing; add it"),
    ("  - {name: a, history: [{outcome: 1, times: 0}], expect: {decision: reject}}", "3:45: times is 0; needs"),
    (
        "  - {name: a, history_file: {path: ../x.csv, columns: {outcome: y}}, expect: {decision: reject}}",
        "3:36: path is '../x.csv'; needs the name of a file in the same folder",
    ),
    (
        "  - {name: a, history_file: {path: x.csv, columns: {context.temp: y}}, expect: {decision: reject}}",
        "3:52: no column",
    ),
    ("  - {name: a, name: b, expect: {decision: reject}}", "3:15: key 'name' is given twice, first in line 3"),
    ("  []", "3:3: cases is a list; must not be empty"),
]


@pytest.mark.parametrize(("cases", "start"), BAD, ids=[start[5:40] for _, start in BAD])
def test_a_wrong_suite_is_told_with_positions(run, tmp_path, cases, start):
    with pytest.raises(PolicyError) as caught:
        run(cases)
    assert str(caught.value.problems[0]).startswith(f"{tmp_path / 'suite.yaml'}:{start}"), caught.value
    assert len(caught.value.problems) == 1 or "expects" in cases


def test_an_absent_suite(policy, tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        run_suite(policy("beta"), tmp_path / "suite.yaml", make_guard=CountingGuard)


def test_reading_policies_loads_no_numerics():
    import subprocess

    code = (
        "import sys, guardrail.policy.suite, guardrail.policy.lint, guardrail.policy.diff, guardrail.policy.template; "
        "sys.exit(' '.join(m for m in ('jax', 'torch', 'numpy', 'grpc') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
