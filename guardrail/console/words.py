"""What pages call things. Every state has a word and a symbol, so that none is told by colour alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from guardrail.domain import Decision, Guarantee, GuaranteeKind, Verdict

SYMBOLS: Final[Mapping[Decision, str]] = MappingProxyType(
    {Decision.ACCEPT: "✓", Decision.ESCALATE: "▲", Decision.REJECT: "✕"}
)

PARTS: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "": (
            "Checks",
            "Actions are checked.",
            "No action is checked here: the store, the decision log or the computation of bounds fails. Every agent is "
            "blocked until it works again.",
        ),
        "guardrail.policies": (
            "Policies",
            "The policy files are loaded as they are.",
            "The policy files have changed and could not be loaded: the last good revision answers. `guardrail policy "
            "lint` says what is wrong.",
        ),
        "guardrail.decision-log": (
            "Decision log",
            "Decisions are written.",
            "Decisions cannot be written, so none are made.",
        ),
        "guardrail.following": (
            "Following",
            "What other replicas wrote is known here.",
            "The log may hold outcomes that this replica does not know yet: its posteriors may be behind.",
        ),
        "guardrail.outcomes": (
            "Outcomes",
            "No outcome is overdue.",
            "Outcomes of accepted actions are overdue, or cannot be looked after: what the policy sets for that holds.",
        ),
        "guardrail.console": (
            "Console",
            "These pages are answered.",
            "The thread of these pages does not answer; checks are not affected.",
        ),
    }
)
"""Name of a part, as health knows it -> what it is called, what it says when it serves, and when it does not."""

GUARANTEES: Final[Mapping[GuaranteeKind, str]] = MappingProxyType(
    {
        GuaranteeKind.THEOREM: "theorem: holds at all times at once",
        GuaranteeKind.ASYMPTOTIC: "asymptotic: holds from some unknown time on",
        GuaranteeKind.ESTIMATE: "estimate: part of it is an approximation without a bounded error",
        GuaranteeKind.NONE: "none: promises nothing",
    }
)


def decision_text(verdict: Verdict) -> str:
    """A decision as a symbol and a word; in shadow mode what would have been."""
    found = f"{SYMBOLS[verdict.found]} {verdict.found.value.upper()}"
    return f"SHADOW, would be {found}" if verdict.shadow else found


def guarantee_text(guarantee: Guarantee) -> str:
    """What a bound promises, in one line."""
    text = GUARANTEES[guarantee.kind]
    if guarantee.kind is GuaranteeKind.THEOREM:
        text += f", with confidence {number(guarantee.confidence)}"
    return text


def number(value: float | None) -> str:
    """A number with four digits; a dash if there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:.4g}"


def clock(at: datetime | float | None) -> str:
    """A time of day, UTC."""
    moment = _moment(at)
    return "–" if moment is None else f"{moment:%H:%M:%S} UTC"


def date_and_clock(at: datetime | float | None) -> str:
    """A date and a time of day, UTC."""
    moment = _moment(at)
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A length of time, as far as it matters."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60:02d} min"


def _moment(at: datetime | float | None) -> datetime | None:
    if at is None:
        return None
    return at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
