"""Escalations as protobuf messages and back, for client and server alike."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from guardrail.approvals import Escalation, EscalationState
from guardrail.v1 import guardrail_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_TO_PROTO: Final[Mapping[EscalationState, pb.EscalationState.ValueType]] = MappingProxyType(
    {
        EscalationState.PENDING: pb.ESCALATION_STATE_PENDING,
        EscalationState.APPROVED: pb.ESCALATION_STATE_APPROVED,
        EscalationState.DENIED: pb.ESCALATION_STATE_DENIED,
        EscalationState.EXPIRED: pb.ESCALATION_STATE_EXPIRED,
        EscalationState.USED: pb.ESCALATION_STATE_USED,
    }
)
STATE_FROM_PROTO: Final[Mapping[int, EscalationState]] = MappingProxyType({n: s for s, n in STATE_TO_PROTO.items()})
"""Holds states only: what is missing here is none, or means all of them."""


def escalation_to_proto(
    escalation: Escalation, state: EscalationState, decision: pb.DecisionRecord | None
) -> pb.Escalation:
    """An escalation as a message.

    Args:
        escalation: as it was kept.
        state: what has become of it by now.
        decision: the decision that escalated, if it is there.
    """
    message = pb.Escalation(
        escalation_id=escalation.escalation_id,
        policy=escalation.policy,
        policy_revision=escalation.policy_revision,
        world=escalation.world,
        caller=escalation.caller,
        digest=escalation.digest,
        state=STATE_TO_PROTO[state],
        approver=escalation.approver,
        note=escalation.note,
    )
    message.opened_at.FromNanoseconds(round(escalation.opened_at * 1e9))
    message.expires_at.FromNanoseconds(round(escalation.expires_at * 1e9))
    if escalation.resolved_at is not None:
        message.resolved_at.FromNanoseconds(round(escalation.resolved_at * 1e9))
    if decision is not None:
        message.decision.CopyFrom(decision)
    return message
