"""Decisions, budgets and escalations as rows of tables: texts for people, made of what the service said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guardrail.approvals import EscalationState
from guardrail.console.words import clock, date_and_clock, decision_text, guarantee_text, number
from guardrail.domain import Reason

if TYPE_CHECKING:
    from guardrail.client.results import EscalatedAction, LoggedDecision, SessionState
    from guardrail.domain import JsonValue

SHOWN: Final = 60
"""Most rows of a table of decisions."""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions to show; empty strings match everything."""

    policy: str = ""
    world: str = ""

    def takes(self, one: LoggedDecision) -> bool:
        """True if a decision is wanted: the policy of that name, and worlds whose id contains the text."""
        return self.policy in ("", one.verdict.policy) and self.world in one.verdict.world


def decision_row(one: LoggedDecision) -> dict[str, str]:
    """A decision in a table."""
    verdict = one.verdict
    return {
        "id": verdict.decision_id,
        "time": clock(one.decided_at),
        "policy": verdict.policy,
        "world": verdict.world,
        "decision": decision_text(verdict),
        "kind": f"{'shadow ' if verdict.shadow else ''}{verdict.found.value}",
        "bound": number(verdict.harm_bound),
        "threshold": number(verdict.threshold),
        "reason": verdict.reasons[0].code.value if verdict.reasons else "–",
    }


def decision_rows(decisions: Iterable[LoggedDecision], wanted: Wanted = Wanted()) -> list[dict[str, str]]:
    """The first decisions that are wanted."""
    rows = []
    for one in decisions:
        if wanted.takes(one):
            rows.append(decision_row(one))
            if len(rows) == SHOWN:
                break
    return rows


def decision_pairs(one: LoggedDecision) -> Pairs:
    """Everything about a decision but its reasons, context and action: what it is, and what it says."""
    verdict = one.verdict
    pairs = [
        ("Decision", decision_text(verdict)),
        ("Harm bound", f"{number(verdict.harm_bound)}, rejected above {number(verdict.threshold)}"),
    ]
    if verdict.escalate_above is not None:
        pairs.append(("Escalated above", number(verdict.escalate_above)))
    if verdict.predictive_harm is not None:
        pairs.append(("Predicted harm", f"{number(verdict.predictive_harm)} (promises nothing)"))
    pairs.append(("Guarantee", guarantee_text(verdict.guarantee)))
    if verdict.guarantee.source:
        pairs.append(("Proved by", verdict.guarantee.source))
    cautious = verdict.cautious_hypothesis
    if cautious is not None:
        pairs.append(
            ("Cautious hypothesis", f"{cautious.name}, harm {number(cautious.harm)}{_mass(cautious.log_posterior)}")
        )
        if cautious.parameters:
            pairs.append(("Its parameters", parameters_text(cautious.parameters)))
    if verdict.search is not None:
        stopped = "; stopped by the deadline, the bound is sound" if verdict.search.truncated else ""
        pairs.append(("Search", f"{verdict.search.scanned:.1%} of the class looked at{stopped}"))
    if verdict.budget is not None:
        budget = verdict.budget
        whose = f"session {budget.session}" if budget.per == "session" else "window of the world"
        pairs.append(("Budget", f"{number(budget.spent)} of {number(budget.total)} spent ({whose})"))
    if verdict.approval is not None:
        approval = verdict.approval
        who = approval.approver or "somebody on this machine"
        note = f": {approval.note}" if approval.note else ""
        pairs.append(("Approved", f"by {who} at {date_and_clock(approval.resolved_at)}{note}"))
    if verdict.escalation_expires is not None:
        pairs.append(("Can be approved until", date_and_clock(verdict.escalation_expires)))
    return [
        *pairs,
        ("Decided", date_and_clock(one.decided_at)),
        ("Policy", f"{verdict.policy}, revision {verdict.policy_revision[:12]}"),
        ("World", f"{verdict.world}, generation {one.generation}, {verdict.posterior_revision} observations"),
        ("Asked by", one.caller or "callers are not told apart"),
        ("Decision id", verdict.decision_id),
    ]


def reason_pairs(reasons: Iterable[Reason]) -> Pairs:
    """Reasons or notices: code and sentence."""
    return [(reason.code.value, reason.message) for reason in reasons]


def json_text(value: Mapping[str, JsonValue]) -> str:
    """A context or an action as text."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, sort_keys=True)


def parameters_text(parameters: Mapping[str, float]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{name} = {number(value)}" for name, value in parameters.items())


def session_pairs(state: SessionState) -> Pairs:
    """A session, or a window, at a glance."""
    budget = state.budget
    share = f", {budget.spent / budget.total:.0%}" if budget.total > 0 else ""
    pairs = [
        ("Spent", f"{number(budget.spent)} of {number(budget.total)}{share}"),
        ("Left", number(max(0.0, budget.total - budget.spent))),
        ("For", f"session {budget.session}" if budget.per == "session" else "the rolling window of the world"),
        ("Accepts that count", str(state.accepts)),
    ]
    if state.started_at is not None:
        pairs.append(("Began", date_and_clock(state.started_at)))
    if state.changed:
        pairs.append(("Changed", "✕ the policy's budget is another one now: further checks of it are rejected"))
    pairs.append(("Promise", f"any harm within it: {guarantee_text(state.guarantee)}"))
    return [*pairs, *(("Assumes", assumption) for assumption in state.guarantee.assumptions)]


def budget_rows(decisions: Iterable[LoggedDecision]) -> list[dict[str, str]]:
    """What the newest decision of each session, or window, says of its budget."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for one in decisions:
        verdict = one.verdict
        if verdict.budget is None:
            continue
        budget = verdict.budget
        row = {
            "id": f"{verdict.policy}\n{verdict.world}\n{budget.session}",
            "policy": verdict.policy,
            "world": verdict.world,
            "name": budget.session,
            "session": budget.session or "window",
            "spent": number(budget.spent),
            "total": number(budget.total),
        }
        rows.setdefault((verdict.policy, verdict.world, budget.session), row)
    return list(rows.values())[:SHOWN]


STATES: Final[Mapping[EscalationState, str]] = {
    EscalationState.PENDING: "▲ PENDING",
    EscalationState.APPROVED: "✓ APPROVED, not used yet",
    EscalationState.DENIED: "✕ DENIED",
    EscalationState.EXPIRED: "✕ EXPIRED, counts as denied",
    EscalationState.USED: "✓ USED",
}


def escalation_pairs(one: EscalatedAction) -> Pairs:
    """What an approver must see besides the decision itself."""
    pairs = [("Asked by", one.caller or "callers are not told apart")]
    if one.decision is not None:
        verdict = one.decision.verdict
        bound = f"{number(verdict.harm_bound)}; escalated above {number(verdict.escalate_above)}, rejected above "
        pairs += [
            ("Harm bound", bound + number(verdict.threshold)),
            ("Guarantee", guarantee_text(verdict.guarantee)),
        ]
    return [
        *pairs,
        ("Escalated", date_and_clock(one.opened_at)),
        ("Expires", date_and_clock(one.expires_at)),
        ("Digest", one.digest),
        ("Escalation", one.escalation_id),
    ]


def escalation_rows(escalations: Iterable[EscalatedAction]) -> list[dict[str, str]]:
    """Escalations that wait for nobody."""
    return [
        {
            "id": one.escalation_id,
            "time": date_and_clock(one.opened_at),
            "state": STATES[one.state],
            "policy": one.policy,
            "world": one.world,
            "caller": one.caller or "–",
            "approver": one.approver or "–",
            "note": one.note or "–",
        }
        for one in escalations
    ][:SHOWN]


def _mass(log_posterior: float | None) -> str:
    return "" if log_posterior is None else f", posterior mass {number(math.exp(log_posterior))}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
