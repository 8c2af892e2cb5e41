"""What is wrong, in words: from health, the link, notices in decisions, and the states of worlds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guardrail.console.pulse import SERVING, Beat
from guardrail.console.words import PARTS, clock, date_and_clock, span

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision
    from guardrail.console.feed import Link
    from guardrail.v1 import guardrail_pb2 as pb

STALE_SECONDS: Final = 5.0
"""An answer that is older is shown as stale."""
_STATES: Final = frozenset({"SHADOW_MODE"})
"""Notices that say how a policy is run, not that something is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        code: stable.
        text: what it means, for the person who has to act.
        stops: True if actions are blocked by it.
    """

    code: str
    text: str
    stops: bool = False


def of_health(beat: Beat, now: float) -> list[Fault]:
    """What health says is wrong. An old answer says nothing."""
    if beat.why or now - beat.at > STALE_SECONDS:
        heard = f"last heard {clock(beat.at)}, {span(now - beat.at)} ago" if beat.at else "never heard"
        return [
            Fault("UNREACHABLE", f"The service does not answer this console: {heard}. {beat.why}".strip(), stops=True)
        ]
    return [
        Fault(name or "checks", PARTS[name][2], stops=name in ("", "guardrail.decision-log"))
        for name, status in beat.parts.items()
        if status != SERVING and name in PARTS
    ]


def of_link(link: Link) -> list[Fault]:
    """Why decisions do not arrive here."""
    if link.connected or link.reason == "CONNECTING":
        return []
    return [Fault(link.reason, f"Decisions do not arrive since {clock(link.since)}: {link.why}")]


def of_notices(decisions: Iterable[LoggedDecision]) -> list[Fault]:
    """What the newest decision of each policy notes about the state it was decided in; newest first."""
    newest: dict[str, LoggedDecision] = {}
    for one in decisions:
        newest.setdefault(one.verdict.policy, one)
    return [
        Fault(notice.code.value, f"{policy}, {date_and_clock(one.decided_at)}: {notice.message}")
        for policy, one in sorted(newest.items())
        for notice in one.verdict.notices
        if notice.code.value not in _STATES
    ]


def of_world(policy: str, name: str, world: pb.World) -> list[Fault]:
    """What is wrong with a world."""
    where = f"{policy} / {name}"
    faults = []
    if world.refuted:
        faults.append(
            Fault(
                "CLASS_REFUTED",
                f"{where} is refuted: no hypothesis explains what was reported, and every check is rejected. Look at "
                "its reports; `guardrail worlds reset` starts it anew.",
            )
        )
    if world.HasField("awaited") and world.awaited.overdue:
        told = world.awaited
        means = told.overdue_action.replace("_", " ")
        faults.append(Fault("OUTCOME_OVERDUE", f"{where}: {told.overdue} outcomes are overdue, which means: {means}."))
    if world.HasField("calibration") and world.calibration.alarm:
        faults.append(
            Fault(
                "CALIBRATION_ALARM",
                f"{where}: harm was reported more often than the bounds allow. They, or the reports, are wrong.",
            )
        )
    return faults


def part_rows(parts: Mapping[str, str], *, stale: bool) -> list[dict[str, str]]:
    """Health by parts."""
    rows = []
    for name, (called, good, bad) in PARTS.items():
        status = parts.get(name)
        if status is None:
            continue
        works = status == SERVING
        state = "? STALE" if stale else "✓ SERVING" if works else "✕ NOT SERVING"
        rows.append({"id": name or "checks", "part": called, "state": state, "text": good if works else bad})
    return rows
