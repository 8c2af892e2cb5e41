import json

import pytest

from guardrail.policy.diff import diff

RULE = "  - when: '!has(context.temp)'\n    decide: reject\n    reason: no temperature\n"


def test_no_change(policy):
    found = diff(policy("logistic"), policy("logistic"))
    assert found.changes == ()
    assert not found.restarts_guarantee
    assert str(found) == "no change"


@pytest.mark.parametrize(
    ("name", "edits", "paths", "reason"),
    [
        ("logistic", [("upper: 3", "upper: 4")], ["hypotheses.coefficients.temp.upper"], "hypotheses:"),
        ("table", [("y: 0.4", "y: 0.5")], ["hypotheses.table[1].rates.y"], "hypotheses:"),
        (
            "table",
            [("name: a,", "name: a, prior: 0.3,"), ("name: b,", "name: b, prior: 0.7,")],
            ["hypotheses.table[0].prior", "hypotheses.table[1].prior"],
            "hypotheses:",
        ),
        ("logistic", [("temp: context.temp\n", "temp: context.temp * 2.0\n")], ["features.temp"], "features:"),
        ("lattice", [("length: 3", "length: 4")], ["context.phi.length"], "features:"),
        (
            "beta",
            [("kind: string", "kind: integer"), ("action.kind", "string(action.kind)")],
            ["action.kind", "hypotheses.category"],
            "hypotheses:",
        ),
        (
            "logistic",
            [("temp: {type: number, optional: true}", "temp: {type: integer, optional: true}")],
            ["context.temp.type"],
            "context or action:",
        ),
        ("lattice", [("harm: outcome.t > 3.0", "harm: outcome.t > 4.0")], ["harm"], "harm:"),
        ("beta", [("name: bad", "name: evil"), ("outcome.bad", "outcome.evil")], ["harm", "outcome.name"], "outcome:"),
        ("beta", [("delta: 0.05", "delta: 0.01")], ["bound.delta"], "bound:"),
        (
            "lattice",
            [("kind: ratio, delta: 0.05", "kind: iid")],
            ["bound.delta", "bound.kind", "bound.running"],
            "bound:",
        ),
        ("logistic", [("reject_above: 0.2", "reject_above: 0.3")], ["decision.reject_above"], "decision:"),
        ("logistic", [(", escalate_above: 0.1", "")], ["decision.escalate_above"], "decision:"),
        ("beta", [("name: p", "name: q")], ["name"], "name:"),
        (
            "beta",
            [("description: d\n", "description: d\nreporting: {self_report: true}\n")],
            ["reporting.self_report"],
            "reporting:",
        ),
    ],
)
def test_changes_that_restart_the_guarantee(policy, name, edits, paths, reason):
    found = diff(policy(name), policy(name, *edits))
    assert [change.path for change in found.changes] == paths
    assert found.restarts_guarantee
    assert any(r.startswith(reason) for r in found.reasons), found.reasons
    assert "the guarantee starts anew:" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["restarts_guarantee"] is True


@pytest.mark.parametrize(
    ("name", "edits", "text"),
    [
        ("beta", [("description: d", "description: e")], "~ description: d -> e"),
        ("lattice", [("type: number}", "type: number, unit: K}")], "+ outcome.unit: K"),
        ("lattice", [("harm: outcome.t > 3.0", "harm: 3.0 < outcome.t")], "~ harm: outcome.t > 3.0 -> 3.0 < outcome.t"),
        ("logistic", [("reason: no temperature", "reason: none")], "~ rules[0].reason: no temperature -> none"),
        ("logistic", [("rules:\n" + RULE, "")], "- rules[0]: "),
        ("logistic", [("  dry: bool\n", "  dry: bool\n  wet: bool\n")], "+ action.wet: bool"),
        ("logistic", [("  dry: bool\n", "")], "- action.dry: bool"),
    ],
)
def test_changes_that_leave_the_guarantee(policy, name, edits, text):
    found = diff(policy(name), policy(name, *edits))
    assert not found.restarts_guarantee
    assert str(found).startswith(text)
    assert str(found).endswith("the guarantee goes on")


def test_integer_and_string_keys_can_be_compared(policy):
    strings = policy("table")
    integers = policy(
        "table", ("kind: string", "kind: integer"), ("{x: 0.1, y: 0.2}", "{1: 0.1}"), ("{x: 0.3, y: 0.4}", "{1: 0.2}")
    )
    found = diff(strings, integers)
    assert {c.path for c in found.changes} >= {"hypotheses.table[0].rates.1", "hypotheses.table[0].rates.x"}
    json.dumps(found.to_dict())
