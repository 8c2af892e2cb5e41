"""The Grafana dashboard and the alert rules against the metrics that the service has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import promql_parser
import pytest
import yaml

from guardrail.domain import Decision, ReasonCode
from guardrail.server.health import NAMES
from guardrail.server.metric_definitions import DEFINITIONS
from guardrail.server.metrics import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    WORLD_STATES,
    EscalationEvent,
    OutcomeEvent,
)
from guardrail.server.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "guardrail.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())

TARGET_LABELS = {"instance", "job"}  # what Prometheus itself puts on every series
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"}
VALUES = {
    "decision": set(Decision),
    "state": set(WORLD_STATES),
    "service": set(NAMES),
    "reason": {*REASONS, *ReasonCode, CANCELLED, DEADLINE_EXCEEDED, "OTHER"},
    "event": {*get_args(EscalationEvent), *get_args(OutcomeEvent)},
    "result": {"taken_up", "duplicate", "conflict", "refused", "success", "failure"},
}
COUNTERS = ("rate", "irate", "increase")


def series():
    """Exposed name -> its labels and whether it only ever rises."""
    found = {name: (TARGET_LABELS, name == "process_cpu_seconds_total") for name in PROCESS}
    for each in DEFINITIONS:
        labels = {*each.labels, *TARGET_LABELS}
        if each.kind == "histogram":
            found[f"{each.name}_bucket"] = ({*labels, "le"}, True)
            found |= {f"{each.name}_{part}": (labels, True) for part in ("sum", "count")}
        else:
            found[each.name] = (labels, each.kind == "counter")
    return found


SERIES = series()


def plain(expression):
    """An expression with Grafana's variables filled in."""
    return re.sub(
        r"\$(policy|instance)\b", ".*", expression.replace("$__rate_interval", "5m").replace("$__range", "3h")
    )


def nodes(node):
    """A node of a parsed expression and everything below it."""
    yield node
    children = []
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        children += [] if child is None else [child]
    children += getattr(node, "args", None) or []
    for child in children:
        yield from nodes(child)


def names(node):
    return {n.name for n in nodes(node) if isinstance(n, promql_parser.VectorSelector)}


def problems(expression):
    """What is wrong with an expression about the service's metrics; nothing if it can be right."""
    try:
        tree = promql_parser.parse(plain(expression))
    except ValueError as error:
        return [f"it cannot be parsed: {error}"]
    found = []
    known = names(tree) & SERIES.keys()
    found += [f"there is no metric {name}" for name in sorted(names(tree) - known)]
    for node in nodes(tree):
        if isinstance(node, promql_parser.VectorSelector) and node.name in known:
            labels = SERIES[node.name][0]
            for matcher in node.matchers.matchers:
                if matcher.name not in labels:
                    found.append(f"{node.name} has no label {matcher.name}")
                elif matcher.name in VALUES and ".*" not in matcher.value:
                    asked = set(matcher.value.split("|"))
                    found += [f"{matcher.name} is never {v}" for v in sorted(asked - VALUES[matcher.name])]
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            have = set().union(*(SERIES[name][0] for name in names(node) & known))
            found += [f"nothing in it has a label {label}" for label in node.modifier.labels if label not in have]
        elif isinstance(node, promql_parser.Call) and node.func.name in COUNTERS:
            found += [f"{name} does not count" for name in names(node) & known if not SERIES[name][1]]
        elif isinstance(node, promql_parser.Call) and node.func.name == "histogram_quantile":
            found += [f"{name} is no bucket" for name in names(node) if not name.endswith("_bucket")]
    return found


PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {f"{p['title']} {t['refId']}": t["expr"] for p in PANELS for t in p["targets"]}
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS |= {rule["alert"]: rule["expr"] for rule in RULES}


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_an_expression_asks_for_what_there_is(name):
    assert problems(EXPRESSIONS[name]) == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("guardrail_no_such_thing", "there is no metric guardrail_no_such_thing"),
        ("rate(guardrail_call_seconds[5m])", "there is no metric guardrail_call_seconds"),
        ('guardrail_checks_total{world="w"}', "guardrail_checks_total has no label world"),
        ('guardrail_checks_total{decision="deny"}', "decision is never deny"),
        ("sum by (world) (guardrail_checks_total)", "nothing in it has a label world"),
        ("rate(guardrail_waiting_checks[5m])", "guardrail_waiting_checks does not count"),
        ("histogram_quantile(0.5, rate(guardrail_call_seconds_sum[5m]))", "guardrail_call_seconds_sum is no bucket"),
        ("1 - sum(-(guardrail_no))", "there is no metric guardrail_no"),
        ("max_over_time(guardrail_no[5m:1m])", "there is no metric guardrail_no"),
    ],
)
def test_what_there_is_not_is_found(expression, problem):
    assert problems(expression) == [problem]


def test_what_is_no_expression_is_found():
    assert problems("sum(")[0].startswith("it cannot be parsed")


def test_variables_ask_for_what_there_is():
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            assert label in SERIES[metric][0]
            assert variable["query"]["query"] == variable["definition"]
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


def test_panels_stand_side_by_side_and_have_ids_of_their_own():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_alerts_say_what_they_mean():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
        for text in rule["annotations"].values():
            used = set(re.findall(r"\$labels\.(\w+)", text))
            tree = promql_parser.parse(rule["expr"])
            assert used <= set().union(*(SERIES[name][0] for name in names(tree)))
