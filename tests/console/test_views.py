"""Texts and charts, made of what the service says: without a browser and without a service."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.approvals import EscalationState
from guardrail.client.results import LoggedDecision, SessionState
from guardrail.console import charts, faults, rows, words, world_rows
from guardrail.console.feed import Link
from guardrail.console.pulse import Beat
from guardrail.domain import (
    Approval,
    CautiousHypothesis,
    Decision,
    Guarantee,
    GuaranteeKind,
    HarmBudget,
    Reason,
    ReasonCode,
    Search,
    Verdict,
)
from guardrail.server.health import CONSOLE, NAMES, SERVICE
from guardrail.v1 import guardrail_pb2 as pb

THEOREM = Guarantee(GuaranteeKind.THEOREM, 0.95, ("the truth is in the class",), "a paper")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVIL = "<img src=x onerror=alert(1)> {b} {{ 7 * 7 }} :onclick"


def decided(place=0, decision=Decision.ACCEPT, **more):
    fields = {
        "decision": decision,
        "harm_bound": 0.1,
        "threshold": 0.2,
        "escalate_above": 0.05,
        "predictive_harm": 0.01,
        "cautious_hypothesis": CautiousHypothesis("wild", {"rate": 0.3}, 0.3, math.log(0.25)),
        "guarantee": THEOREM,
        "reasons": (Reason(ReasonCode.WITHIN_THRESHOLD, "small enough"),),
        "policy": "coin",
        "policy_revision": "f" * 64,
        "world": "w",
        "posterior_revision": 7,
        "decision_id": f"id-{place}",
        **more,
    }
    return LoggedDecision(Verdict(**fields), {"a": 1.0}, {"kind": "low"}, START + timedelta(seconds=place), "agent")


def text_of(pairs):
    return "\n".join(f"{name}: {text}" for name, text in pairs)


class TestDecisions:
    def test_every_decision_differs_in_words_and_in_symbol(self):
        shadow = {"decision": Decision.ACCEPT, "shadow": True}
        made = [decided(decision=kind).verdict for kind in Decision]
        made += [decided(**{**shadow, "enforced_decision": kind}).verdict for kind in Decision]
        texts = [words.decision_text(verdict) for verdict in made]
        assert len(set(texts)) == 6
        assert [text for text in texts if "SHADOW" in text] == texts[3:]
        assert len(set(words.SYMBOLS.values())) == len(set(charts.SHAPES.values())) == 3

    def test_the_detail_holds_what_the_verdict_holds(self):
        one = decided(
            decision=Decision.ESCALATE,
            search=Search(truncated=True, scanned=0.25),
            budget=HarmBudget("session", "s1", 0.5, 0.25),
            approval=Approval("e1", "person", 0.0, "fine"),
            escalation_expires=60.0,
        )
        text = text_of(rows.decision_pairs(one))
        for part in ("0.1, rejected above 0.2", "0.05", "theorem", "0.95", "a paper", "wild, harm 0.3", "mass 0.25"):
            assert part in text
        for part in (
            "25.0%",
            "stopped by the deadline",
            "0.25 of 0.5",
            "session s1",
            "person",
            "fine",
            "id-0",
            "agent",
        ):
            assert part in text

    def test_tables_have_an_end(self):
        many = [decided(place) for place in range(3 * rows.SHOWN)]
        assert len(rows.decision_rows(many)) == rows.SHOWN
        wanted = rows.Wanted(policy="coin", world="W")
        assert rows.decision_rows(many, wanted) == []
        assert len(rows.decision_rows(many, rows.Wanted("coin", "w"))) == rows.SHOWN

    @given(st.floats(0, 1), st.floats(0, 1), st.booleans())
    def test_a_chart_holds_each_bound_and_its_threshold(self, bound, threshold, logarithmic):
        one = decided(harm_bound=bound, threshold=threshold)
        series = charts.bounds_over_time([one], logarithmic=logarithmic)["series"]
        points = [point for each in series[:6] for point in each["data"]]
        lowest = charts.FLOOR if logarithmic else 0.0
        assert [point["value"][1] for point in points] == [max(bound, lowest)]
        assert series[6]["data"][0][1] == max(threshold, lowest)

    def test_what_is_no_number_is_no_point(self):
        series = charts.bounds_over_time([decided(harm_bound=math.nan)], logarithmic=True)["series"]
        assert series[0]["data"][0]["value"][1] is None
        json.dumps(series, allow_nan=False)


def keys(value):
    """All keys of an options object."""
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item)


def world(**more):
    told = pb.World(
        policy="coin",
        world="w",
        policy_revision="f" * 64,
        posterior_revision=7,
        generation=2,
        class_size=3,
        plausible=1,
    )
    told.entropy = math.log(2)
    told.guarantee.kind = pb.GUARANTEE_KIND_THEOREM
    told.guarantee.confidence = 0.95
    told.guarantee.assumptions.append("the truth is in the class")
    told.hypotheses.add(name="mild", parameters={"rate": 0.1}, log_posterior=math.log(0.75), plausible=True)
    told.hypotheses.add(name="wild", parameters={"rate": 0.9}, log_posterior=math.log(0.25), plausible=False)
    for name, value in more.items():
        setattr(told, name, value)
    return told


def continuous():
    told = pb.World(policy="line", world="w", posterior_revision=7)
    told.parameters.add(name="slope", mean=1.0, deviation=0.5, plausible_low=-1.0, plausible_high=3.0)
    told.parameters.add(name="free", mean=1.0, deviation=0.5, plausible_low=-math.inf, plausible_high=math.inf)
    told.parameters.add(name="unknown", mean=2.0, deviation=0.1)
    return told


def test_no_chart_has_a_key_that_somebody_sent():
    """A key that begins with a colon is run as a program in the browser."""
    evil = decided(world=EVIL, policy=EVIL, budget=HarmBudget("session", EVIL, 0.5, 0.25))
    told = world()
    told.hypotheses.add(name=EVIL, parameters={":formatter": 1.0}, log_posterior=-1.0)
    lines = continuous()
    lines.parameters.add(name=":formatter", mean=0.0, deviation=1.0)
    made = [
        charts.bounds_over_time([evil], logarithmic=False),
        charts.posterior(told),
        charts.parameters(lines),
        charts.spent_over_time([evil], EVIL),
        charts.budget_bar(0.1, 0.5),
        charts.evidence(told),
    ]
    for options in made:
        assert options["tooltip"]["renderMode"] == "richText"
        assert not [key for key in keys(options) if not key.isalnum()]
        assert "formatter" not in set(keys(options["tooltip"]))
        json.dumps(options, allow_nan=False)


class TestWorlds:
    def test_a_world_at_a_glance(self):
        text = text_of(world_rows.world_pairs(world()))
        for part in ("in use", "7", "3, 1 plausible", "as if 2 hypotheses", "0.95", "the truth is in the class"):
            assert part in text
        assert "REFUTED" in text_of(world_rows.world_pairs(world(refuted=True)))

    def test_the_plausible_set_is_told_in_words_and_in_patterns(self):
        assert [row["plausible"] for row in world_rows.hypothesis_rows(world())] == ["● plausible", "○ ruled out"]
        inside, outside = charts.posterior(world())["series"]
        assert [bar and bar["value"] for bar in inside["data"]] == [pytest.approx(0.75), None]
        assert [bar and bar["value"] for bar in outside["data"]] == [None, pytest.approx(0.25)]
        assert inside["itemStyle"]["decal"] != outside["itemStyle"]["decal"]

    def test_where_nobody_knows_the_plausible_set_none_is_shown(self):
        told = world()
        told.ClearField("plausible")
        assert [row["plausible"] for row in world_rows.hypothesis_rows(told)] == ["–", "–"]
        inside, outside = charts.posterior(told)["series"]
        assert inside["name"] == "hypotheses"
        assert outside["data"] == [None, None]

    def test_parameters_with_their_ranges(self):
        assert [row["plausible"] for row in world_rows.parameter_rows(continuous())] == [
            "-1 to 3",
            "−∞ to ∞",
            "unknown to unknown",
        ]
        plausible, spread, mean = charts.parameters(continuous())["series"]
        assert plausible["data"] == [[-1.0, 0], [3.0, 0], None]
        assert spread["data"][:2] == [[0.0, 0], [2.0, 0]]
        assert len(mean["data"]) == 3
        assert len({one["lineStyle"]["type"] for one in (plausible, spread)}) == 2

    def test_calibration_and_awaited_outcomes(self):
        told = world()
        assert world_rows.calibration_pairs(told) == world_rows.awaited_pairs(told, 0.0) == []
        told.calibration.outcomes, told.calibration.harms, told.calibration.alarm = 10, 3, True
        told.calibration.log_e_alarm = 4.6
        told.awaited.within_seconds, told.awaited.overdue, told.awaited.overdue_action = 600, 2, "assume_harm"
        told.awaited.oldest_due.FromSeconds(1_000)
        assert "✕ ALARM" in text_of(world_rows.calibration_pairs(told))
        awaited = text_of(world_rows.awaited_pairs(told, 1_090.0))
        assert "✕ 2 OVERDUE" in awaited
        assert "assume harm" in awaited
        assert "1 min 30 s ago" in awaited
        codes = [fault.code for fault in faults.of_world("coin", "w", told)]
        assert codes == ["OUTCOME_OVERDUE", "CALIBRATION_ALARM"]
        told.refuted = True
        assert faults.of_world("coin", "w", told)[0].code == "CLASS_REFUTED"


class TestBudgets:
    def test_the_bar_says_its_numbers(self):
        spent, left = charts.budget_bar(0.375, 0.5)["series"]
        assert (spent["name"], left["name"]) == ("spent 0.375", "left 0.125")
        assert spent["itemStyle"]["decal"] != left["itemStyle"]["decal"]
        assert charts.budget_bar(0.7, 0.5)["series"][1]["data"] == [0.0]

    def test_a_session_and_its_promise(self):
        state = SessionState("coin", "w", HarmBudget("session", "s1", 0.5, 0.25), 2, START, True, THEOREM)
        text = text_of(rows.session_pairs(state))
        for part in (
            "0.25 of 0.5, 50%",
            "session s1",
            "another one now",
            "confidence 0.95",
            "the truth is in the class",
        ):
            assert part in text

    def test_each_session_once_with_its_newest_decision(self):
        made = [
            decided(place, budget=HarmBudget("session", name, 0.5, spent))
            for place, name, spent in ((3, "a", 0.3), (2, "b", 0.2), (1, "a", 0.1))
        ]
        found = [(row["session"], row["spent"]) for row in rows.budget_rows([*made, decided(0)])]
        assert found == [("a", "0.3"), ("b", "0.2")]
        spent, total = charts.spent_over_time(made, "a")["series"]
        assert [value for _, value in spent["data"]] == [0.1, 0.3]
        assert [value for _, value in total["data"]] == [0.5, 0.5]


class TestFaults:
    def test_every_part_that_health_knows_has_words(self):
        assert {*NAMES, CONSOLE} - {SERVICE} <= set(words.PARTS)

    def test_an_old_answer_is_never_shown_as_the_state_of_now(self):
        beat = Beat({"": "SERVING"}, at=100.0, why="")
        assert faults.of_health(beat, 101.0) == []
        (fault,) = faults.of_health(beat, 100.0 + faults.STALE_SECONDS + 1)
        assert (fault.code, fault.stops) == ("UNREACHABLE", True)
        assert "00:01:40 UTC" in fault.text
        (fault,) = faults.of_health(Beat(beat.parts, 100.0, "the service does not answer (UNAVAILABLE)"), 100.5)
        assert "UNAVAILABLE" in fault.text
        (fault,) = faults.of_health(Beat(), 0.0)
        assert "never heard" in fault.text
        assert [row["state"] for row in faults.part_rows(beat.parts, stale=True)] == ["? STALE"]

    def test_parts_that_do_not_serve_are_told(self):
        beat = Beat({"": "NOT_SERVING", "guardrail.policies": "NOT_SERVING", "guardrail.following": "SERVING"}, 1.0, "")
        assert [(fault.code, fault.stops) for fault in faults.of_health(beat, 1.0)] == [
            ("checks", True),
            ("guardrail.policies", False),
        ]

    def test_a_stream_that_broke_is_told_and_one_that_begins_is_not(self):
        assert faults.of_link(Link(connected=True, since=0.0)) == []
        assert faults.of_link(Link(connected=False, since=0.0, reason="CONNECTING")) == []
        (fault,) = faults.of_link(Link(connected=False, since=0.0, reason="PERMISSION_DENIED", why="may not"))
        assert fault.code == "PERMISSION_DENIED"

    def test_notices_are_those_of_the_newest_decision_of_each_policy(self):
        stale = Reason(ReasonCode.POLICY_STALE, "files changed")
        shadow = Reason(ReasonCode.SHADOW_MODE, "only watching")
        newest = decided(2, notices=(stale, shadow))
        assert [one.code for one in faults.of_notices([newest, decided(1)])] == ["POLICY_STALE"]
        assert faults.of_notices([decided(3), newest]) == []


def test_every_state_of_an_escalation_has_words():
    assert set(rows.STATES) == set(EscalationState)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3_600, "1 h 00 min"), (7_260, "2 h 01 min")]
)
def test_spans(seconds, text):
    assert words.span(seconds) == text


def test_numbers():
    assert [words.number(value) for value in (None, math.nan, math.inf, 0.123456)] == [
        "–",
        "not a number",
        "∞",
        "0.1235",
    ]
