"""Pages of escalations and of decisions as messages: tokens, and a size that a message may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from guardrail.errors import InvalidInput
from guardrail.server.approving import EscalationView, Place
from guardrail.server.recent import Listed, token_of
from guardrail.server.recent import Place as DecisionPlace
from guardrail.store.decisions import LoggedDecision
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire_approvals import escalation_to_proto

PAGE_BYTES: Final = 1_048_576
"""A page ends once it is as long: with the contexts of 1,000 decisions it could pass no message limit."""


def escalation_message(view: EscalationView, decision: Callable[[LoggedDecision], pb.DecisionRecord]) -> pb.Escalation:
    """An escalation with its decision, if that is there."""
    return escalation_to_proto(view.escalation, view.state, None if view.decision is None else decision(view.decision))


def escalations_page(
    views: Sequence[EscalationView], after: Place | None, decision: Callable[[LoggedDecision], pb.DecisionRecord]
) -> pb.ListEscalationsResponse:
    """A page of escalations.

    Args:
        views: what to show.
        after: where the next page begins if all of them fit into this one; None if it is the last.
        decision: makes a message of a decision.
    """
    answer, size = pb.ListEscalationsResponse(), 0
    for place, view in enumerate(views):
        message = escalation_message(view, decision)
        size += message.ByteSize()
        if answer.escalations and size > PAGE_BYTES:
            last = views[place - 1].escalation
            after = last.opened_at, last.escalation_id
            break
        answer.escalations.append(message)
    answer.next_page_token = "" if after is None else f"{after[0].hex()}\n{after[1]}"
    return answer


def decisions_page(
    listed: Sequence[Listed], after: DecisionPlace | None, decision: Callable[[LoggedDecision], pb.DecisionRecord]
) -> pb.ListDecisionsResponse:
    """A page of decisions; the arguments are those of `escalations_page`."""
    answer, size = pb.ListDecisionsResponse(), 0
    for number, one in enumerate(listed):
        message = decision(one.decision)
        size += message.ByteSize()
        if answer.decisions and size > PAGE_BYTES:
            after = listed[number - 1].place
            break
        answer.decisions.append(message)
    answer.next_page_token = token_of(after)
    return answer


def place_of(token: str) -> Place | None:
    """Where a page begins; None for the first.

    :raises InvalidInput: if the token is not one of `escalations_page`.
    """
    if not token:
        return None
    opened_at, _, escalation_id = token.partition("\n")
    try:
        place = float.fromhex(opened_at)
    except (ValueError, OverflowError):
        place = math.nan
    if not (math.isfinite(place) and escalation_id):
        raise InvalidInput("page_token is not one that this service gave out")
    return place, escalation_id
