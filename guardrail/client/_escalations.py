"""Requests and replies about escalations, shared by the synchronous and the asyncio client."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from guardrail.approvals import EscalationState
from guardrail.client._call import Call
from guardrail.client._failures import no_service
from guardrail.client._reads import logged
from guardrail.client._shared import require
from guardrail.client.results import EscalatedAction
from guardrail.domain import Decision, ReasonCode
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire_approvals import STATE_FROM_PROTO, STATE_TO_PROTO

if TYPE_CHECKING:
    from guardrail.domain import Verdict

APPROVAL_POLL_SECONDS: Final = 2.0
"""Pause of `guarded` between asking whether an escalated action was approved. Each time is a check, and logged."""


def escalations(
    policy: str | None, world: str | None, state: EscalationState | str | None, token: str
) -> Call[tuple[list[EscalatedAction], str]]:
    """ListEscalations: one page, and the token of the next one, empty on the last.

    :raises ValueError: if there is no such state.
    """

    def decode(data: bytes) -> tuple[list[EscalatedAction], str]:
        reply = pb.ListEscalationsResponse.FromString(data)
        if reply.next_page_token and reply.next_page_token == token:
            raise ValueError("the next page is the same page")
        return [_escalation(one) for one in reply.escalations], reply.next_page_token

    request = pb.ListEscalationsRequest(
        policy=policy or "",
        world=world or "",
        state=pb.ESCALATION_STATE_UNSPECIFIED if state is None else STATE_TO_PROTO[EscalationState(state)],
        page_token=token,
    )
    return Call("ListEscalations", request, decode, no_service)


def resolve(escalation_id: str, digest: str, approve: bool, note: str) -> Call[EscalatedAction]:
    """ResolveEscalation. An answer about another escalation, or that says otherwise, is malformed."""

    def decode(data: bytes) -> EscalatedAction:
        reply = pb.ResolveEscalationResponse.FromString(data)
        require(reply, "escalation")
        found = _escalation(reply.escalation)
        if (found.escalation_id, found.digest) != (escalation_id, digest):
            raise ValueError(f"it is about escalation {found.escalation_id!r}")
        if (found.state is EscalationState.DENIED) is approve:
            raise ValueError(f"it says {found.state.value}")
        return found

    request = pb.ResolveEscalationRequest(
        escalation_id=escalation_id,
        resolution=pb.RESOLUTION_APPROVE if approve else pb.RESOLUTION_DENY,
        digest=digest,
        note=note,
    )
    return Call("ResolveEscalation", request, decode, no_service)


def waits_for_a_person(verdict: Verdict) -> bool:
    """True if nobody has decided yet: asking again may bring an accept."""
    codes = [reason.code for reason in verdict.reasons]
    return verdict.decision is Decision.REJECT and codes[:1] == [ReasonCode.APPROVAL_PENDING]


def _escalation(message: pb.Escalation) -> EscalatedAction:
    state = STATE_FROM_PROTO.get(message.state)
    if state is None:
        raise ValueError(f"its state ({message.state}) is none that this client knows")
    return EscalatedAction(
        escalation_id=message.escalation_id,
        policy=message.policy,
        policy_revision=message.policy_revision,
        world=message.world,
        caller=message.caller,
        digest=message.digest,
        state=state,
        opened_at=message.opened_at.ToDatetime(tzinfo=UTC),
        expires_at=message.expires_at.ToDatetime(tzinfo=UTC),
        approver=message.approver,
        resolved_at=message.resolved_at.ToDatetime(tzinfo=UTC) if message.HasField("resolved_at") else None,
        note=message.note,
        decision=logged(message.decision) if message.HasField("decision") else None,
    )
