"""Escalated actions and what a person says about them: what an approval binds, and what may follow what. Pure.

A verdict `escalate` opens an escalation under the decision's id. It is pending until a person approves or denies it;
an approved one is used by one check, once. When its time is over, a pending or approved one has expired. Each function
takes the present time from its caller, in seconds since the epoch; a time that is no number counts as too late.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from guardrail.domain import Reason, ReasonCode
from guardrail.errors import EscalationClosed, EscalationMismatch

LONGEST_OPEN: Final = 30 * 86_400.0
"""Most seconds from opening to expiry: the longest duration that a policy can name."""


class EscalationState(enum.StrEnum):
    """What became of an escalation. EXPIRED follows from the time and is never kept."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Escalation:
    """An escalated action.

    Attributes:
        escalation_id: id of the decision that escalated.
        policy: policy name.
        policy_revision: digest of the policy document.
        world: world id.
        caller: who asked; empty if callers were not authenticated.
        digest: of what an approval binds, see `binding`.
        opened_at: seconds since the epoch, UTC, as all times here.
        expires_at: from then on it can be neither approved nor used.
        state: as it was kept; see `state_at`.
        approver: who resolved it; empty while it is pending, or if callers were not authenticated.
        note: what the approver noted.
        resolved_at: when it was resolved; None while it is pending.
        used_at: when it was used; None if it was not.
        used_by: id of the decision that used it; empty if it was not used.
    """

    escalation_id: str
    policy: str
    policy_revision: str
    world: str
    caller: str
    digest: str
    opened_at: float
    expires_at: float
    state: EscalationState = EscalationState.PENDING
    approver: str = ""
    note: str = ""
    resolved_at: float | None = None
    used_at: float | None = None
    used_by: str = ""


def state_at(escalation: Escalation, now: float) -> EscalationState:
    """What has become of an escalation by a time."""
    open_ended = escalation.state in (EscalationState.PENDING, EscalationState.APPROVED)
    return EscalationState.EXPIRED if open_ended and not now < escalation.expires_at else escalation.state


def resolved(escalation: Escalation, seen: str, *, approve: bool, approver: str, note: str, now: float) -> Escalation:
    """The escalation after a person has spoken; the same words of the same person again change nothing.

    Args:
        escalation: as it stands.
        seen: the digest that the person saw.
        approve: whether the action may be carried out.
        approver: who speaks.
        note: for the record.
        now: the time.

    :raises EscalationMismatch: if the person saw something else.
    :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
    """
    if seen != escalation.digest:
        raise EscalationMismatch(
            f"escalation {escalation.escalation_id!r} is about something else than what was seen: look at it again"
        )
    if escalation.state is not EscalationState.PENDING:
        approved = escalation.state is not EscalationState.DENIED
        if (approved, escalation.approver, escalation.note) == (approve, approver, note):
            return escalation
    state = state_at(escalation, now)
    if state is not EscalationState.PENDING:
        raise EscalationClosed(f"escalation {escalation.escalation_id!r} is {state.value}: let the agent ask again")
    said = EscalationState.APPROVED if approve else EscalationState.DENIED
    return replace(escalation, state=said, approver=approver, note=note, resolved_at=now)


def used(
    escalation: Escalation | None, escalation_id: str, asked: str, caller: str, decision_id: str, now: float
) -> Escalation | Reason:
    """The escalation after a check has used its approval, or why it may not. The same decision may use it again.

    Args:
        escalation: as it stands; None if there is none of that id.
        escalation_id: what the check calls it.
        asked: digest of what is checked.
        caller: who asks.
        decision_id: of the check's decision.
        now: the time.
    """
    if escalation is None:
        return Reason(ReasonCode.APPROVAL_UNKNOWN, f"there is no escalation {escalation_id!r}")
    named = f"escalation {escalation_id!r}"
    if asked != escalation.digest:
        what = f"{named} is about another action, context, world or policy revision"
        return Reason(ReasonCode.APPROVAL_MISMATCH, what)
    if caller != escalation.caller:
        return Reason(ReasonCode.APPROVAL_MISMATCH, f"{named} was opened by another caller")
    if escalation.state is EscalationState.USED:
        if escalation.used_by == decision_id:
            return escalation
        return Reason(ReasonCode.APPROVAL_USED, f"{named} was approved for one action, which was let through before")
    match state_at(escalation, now):
        case EscalationState.APPROVED:
            return replace(escalation, state=EscalationState.USED, used_at=now, used_by=decision_id)
        case EscalationState.PENDING:
            return Reason(ReasonCode.APPROVAL_PENDING, f"nobody has decided about {named} yet")
        case EscalationState.DENIED:
            return Reason(ReasonCode.APPROVAL_DENIED, f"{named} was denied")
        case _:
            return Reason(ReasonCode.APPROVAL_EXPIRED, f"the time of {named} is over: ask again without an approval")
