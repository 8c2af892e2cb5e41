"""Frames of `guardrail top` without a service: what is counted, and how it reads at every width and without colour."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from guardrail.cli.top_state import MAX_RECENT, WINDOW_SECONDS, Seen, Tally
from guardrail.cli.top_view import BAR_CELLS, BAR_THRESHOLD, View, bar, plain
from guardrail.domain import Decision

NOW = 1_700_000_000.0
WIDTHS = (20, 40, 80, 120, 200)
WELL = {"": "SERVING", "guardrail.policies": "SERVING", "guardrail.decision-log": "SERVING"}


def one(at=NOW, **changed):
    usual = {
        "at": at,
        "policy": "tool-calls",
        "world": "prod/eu-1",
        "decision": Decision.ACCEPT,
        "shadow": False,
        "harm_bound": 0.034,
        "threshold": 0.05,
        "reason": "WITHIN_THRESHOLD",
        "message": "the harm bound is within the threshold",
        "decision_id": "d1",
    }
    return Seen(**{**usual, **changed})


def tally(*decisions, policies=("tool-calls",)):
    made = Tally("127.0.0.1:7410", NOW - 20)
    made.answered(WELL, policies, NOW - 20)
    for decision in decisions:
        made.decided(decision, decision.at)
    return made


def drawn(frame, width, height=None, colour=False):
    out = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=out, width=width, height=height or 100, color_system=system, force_terminal=colour)
    console.print(View(frame, height))
    return out.getvalue()


def test_shares_rates_and_busiest_worlds_are_those_of_the_window():
    made = tally(
        *(one(NOW - n) for n in range(6)),
        one(decision=Decision.REJECT, world="prod/us-1"),
        one(decision=Decision.ESCALATE, policy="refunds"),
        policies=("tool-calls", "refunds", "idle"),
    )
    frame = made.frame(NOW)
    idle, refunds, calls = frame.policies
    assert (idle.policy, idle.total, idle.per_second) == ("idle", 0, 0.0)
    assert (refunds.escalate, refunds.total) == (1, 1)
    assert (calls.accept, calls.escalate, calls.reject, calls.per_second) == (6, 0, 1, 7 / 20)
    assert [(w.world, w.decisions) for w in frame.worlds] == [("prod/eu-1", 6), ("prod/eu-1", 1), ("prod/us-1", 1)]
    assert frame.decisions[0].at == NOW
    later = made.frame(NOW + WINDOW_SECONDS + 1)
    assert (later.seen, sum(p.total for p in later.policies), later.worlds) == (8, 0, [])


def test_when_there_is_more_than_is_kept_the_rate_is_of_a_shorter_window():
    made = tally(*(one(NOW + n / 1000) for n in range(MAX_RECENT + 5000)))
    now = NOW + (MAX_RECENT + 5000) / 1000
    frame = made.frame(now)
    assert frame.window_seconds == pytest.approx(MAX_RECENT / 1000, rel=1e-3)
    assert frame.policies[0].per_second == pytest.approx(1000, rel=1e-3)


def test_a_notice_about_one_world_stands_beside_it_whatever_else_is_decided():
    alarm = {"CALIBRATION_ALARM": "harm is more frequent in this world than its bounds allow"}
    made = tally(one(NOW - 2, world="wrong", notices=alarm), *(one(NOW - 1, world="busy") for _ in range(9)))
    frame = made.frame(NOW)
    assert [(w.world, w.decisions, w.notices) for w in frame.worlds] == [
        ("wrong", 1, ("CALIBRATION_ALARM",)),
        ("busy", 9, ()),
    ]
    assert frame.notices == {}
    assert "wrong  ! CALIBRATION_ALARM" in drawn(frame, 100, None)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [None, 6, 12, 24, 60])
def test_a_frame_fits_its_terminal(width, height):
    many = [one(NOW - n / 10, world=f"world-{n}", shadow=n % 3 == 0, policy=f"policy-{n % 7}") for n in range(100)]
    made = tally(*many, one(notices={"POLICY_STALE": "the policy files cannot be loaded " * 5}))
    lines = drawn(made.frame(NOW), width, height).splitlines()
    assert max(map(len, lines)) <= width
    if height is not None:
        assert len(lines) <= max(height, 6)


@pytest.mark.parametrize("width", [80, 120])
def test_without_colour_words_and_signs_say_everything(width):
    made = tally(
        one(),
        one(NOW - 1, decision=Decision.ESCALATE, harm_bound=0.04, reason="HARM_BOUND_ABOVE_ESCALATE"),
        one(NOW - 2, decision=Decision.REJECT, harm_bound=0.2, reason="RULE_MATCHED"),
        one(NOW - 3, decision=Decision.REJECT, shadow=True),
        one(NOW - 4, decision=Decision.ACCEPT, shadow=True),
    )
    text = drawn(made.frame(NOW), width)
    assert "\x1b" not in text
    accepted, escalated, rejected, shadowed, passed = text.splitlines()[-5:]
    assert " accept " in accepted
    assert "====  |" in accepted
    assert " ESCALATE " in escalated
    assert " REJECT " in rejected
    assert "======|" in rejected
    assert "SHADOW REJECT" in shadowed
    assert "SHADOW accept" in passed
    assert "was let through whatever was found" in text
    assert "health  service serving  policies serving  decision-log serving" in text
    assert "accept 40 %  escalate 20 %  reject 40 %" in text


def test_no_policy_in_shadow_mode_no_word_of_it():
    text = drawn(tally(one()).frame(NOW), 80)
    assert "let through" not in text
    assert "SHADOW " not in text.replace("  SHADOW", "")  # the heading of the column


def test_what_is_wrong_comes_first():
    made = tally(one(notices={"POLICY_STALE": "since 12:00 the files cannot be loaded"}))
    made.answered({**WELL, "guardrail.policies": "NOT_SERVING"}, ["tool-calls"], NOW)
    text = drawn(made.frame(NOW), 80)
    assert "policies NOT SERVING" in text
    assert "! POLICY_STALE: since 12:00 the files cannot be loaded" in text
    # A notice lasts until the policy decides without it.
    made.decided(one(NOW + 1), NOW + 1)
    assert "POLICY_STALE" not in drawn(made.frame(NOW + 1), 80)


def test_a_lost_service_is_told_and_so_is_its_return():
    made = tally(one())
    made.silent("UNREACHABLE: connection refused", NOW + 5)
    made.silent("UNREACHABLE: connection refused", NOW + 9)
    text = drawn(made.frame(NOW + 10), 80)
    assert "NOT CONNECTED" in text
    assert "no contact for 5 s: UNREACHABLE: connection refused" in text
    assert "what stands below is old" in text
    made.answered(WELL, ["tool-calls"], NOW + 12)
    text = drawn(made.frame(NOW + 13), 80)
    assert "connected for 1 s" in text
    assert "connected anew once; what was decided meanwhile is missing here" in text


def test_a_first_connection_is_no_return():
    made = Tally("t", NOW)
    made.silent("no", NOW + 1)
    made.answered(WELL, [], NOW + 2)
    assert made.frame(NOW + 2).link.reconnects == 0


@given(st.floats() | st.sampled_from([0.0, 1.0]), st.floats(0, 1))
def test_a_bar_passes_the_mark_exactly_if_the_bound_is_above_the_threshold(bound, threshold):
    drawn_bar = bar(bound, threshold)
    assert len(drawn_bar) == BAR_CELLS
    assert drawn_bar[BAR_THRESHOLD] == "|"
    assert (drawn_bar[BAR_THRESHOLD + 1] != " ") == (math.isnan(bound) or bound > threshold)


@given(st.floats(0, 1))
def test_a_bound_just_above_its_threshold_passes_the_mark(threshold):
    assert bar(threshold, threshold)[BAR_THRESHOLD + 1] == " "
    assert bar(math.nextafter(threshold, 2), threshold)[BAR_THRESHOLD + 1] == "="


@given(st.text())
def test_nothing_of_the_service_is_obeyed_by_the_terminal(text):
    made = tally(one(world=text, policy=text, message=text, notices={text: text}), policies=(text,))
    made.silent(text, NOW)
    shown = drawn(made.frame(NOW), 200)
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_control_characters_are_replaced():
    assert plain("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"
