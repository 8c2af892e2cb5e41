"""Checks and reports of the client, request and reply, shared by the synchronous and the asyncio one."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardrail.client._call import Call
from guardrail.client._failures import no_service, no_verdict
from guardrail.client.results import (
    CheckedActions,
    Report,
    Reported,
)
from guardrail.domain import JsonObject, Verdict
from guardrail.errors import InvalidInput, NoVerdict
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import (
    dict_to_struct,
    plain_to_value,
    verdict_from_proto,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct


def require(reply: Message, field: str) -> None:
    """Insist on a field.

    :raises ValueError: if it is not there.
    """
    if not reply.HasField(field):
        raise ValueError(f"there is no {field} in it")


# ---------------------------------------------------------------- checks


@dataclass(frozen=True, slots=True)
class Question:
    """A context and an action as they go over the wire: what happens to the originals does not reach them."""

    context: Struct
    action: Struct
    session: str = ""


def question(context: JsonObject, action: JsonObject, session: str = "") -> Question:
    """Copy a context and an action, of a session.

    :raises NoVerdict: if they have no form on the wire.
    """
    try:
        return Question(dict_to_struct(context, "context"), dict_to_struct(action, "action"), session)
    except InvalidInput as error:
        raise NoVerdict(str(error), error.reason) from error


def check(
    policy: str,
    world: str,
    asked: Question,
    policy_revision: str | None,
    min_revision: int | None,
    approval: str | None = None,
) -> Call[Verdict]:
    """CheckAction. An answer about another policy, world, revision or approval, or an older posterior, is malformed.

    :raises ValueError: if `min_revision` is negative.
    """
    revisions = _Revisions(policy_revision or "", _at_least(min_revision))

    def decode(data: bytes) -> Verdict:
        reply = pb.CheckActionResponse.FromString(data)
        require(reply, "verdict")
        verdict = _answer(reply.verdict, policy, world, revisions)
        given = verdict.approval
        if given is not None and given.escalation_id != approval:
            raise ValueError(f"it rests on escalation {given.escalation_id!r}, which was not asked for")
        return verdict

    request = pb.CheckActionRequest(
        policy=policy,
        world=world,
        context=asked.context,
        action=asked.action,
        policy_revision=revisions.policy,
        min_revision=revisions.least,
        session=asked.session,
        approval=approval or "",
    )
    return Call("CheckAction", request, decode, no_verdict)


def check_many(
    policy: str,
    world: str,
    context: JsonObject,
    actions: Sequence[JsonObject],
    policy_revision: str | None,
    min_revision: int | None,
    session: str = "",
) -> Call[CheckedActions]:
    """CheckActions. Only candidates whose own verdict accepts count as allowed.

    :raises ValueError: if `min_revision` is negative.
    :raises NoVerdict: if the context or an action has no form on the wire.
    """
    revisions = _Revisions(policy_revision or "", _at_least(min_revision))

    def decode(data: bytes) -> CheckedActions:
        reply = pb.CheckActionsResponse.FromString(data)
        verdicts = tuple(_answer(v, policy, world, revisions) for v in reply.verdicts)
        if len(verdicts) != len(actions_sent):
            raise ValueError(f"{len(verdicts)} verdicts for {len(actions_sent)} actions")
        allowed = tuple(dict.fromkeys(reply.allowed))
        if any(index >= len(verdicts) for index in allowed):
            raise ValueError("an allowed index names no action")
        return CheckedActions(verdicts, tuple(index for index in allowed if verdicts[index].accepted))

    try:
        actions_sent = [dict_to_struct(action, f"actions[{place}]") for place, action in enumerate(actions)]
        sent_context = dict_to_struct(context, "context")
    except InvalidInput as error:
        raise NoVerdict(str(error), error.reason) from error
    request = pb.CheckActionsRequest(
        policy=policy,
        world=world,
        context=sent_context,
        actions=actions_sent,
        policy_revision=revisions.policy,
        min_revision=revisions.least,
        session=session,
    )
    return Call("CheckActions", request, decode, no_verdict)


@dataclass(frozen=True, slots=True)
class _Revisions:
    """What a check insists on: a revision of the policy (empty: any) and the fewest observations."""

    policy: str
    least: int


def _at_least(min_revision: int | None) -> int:
    revision = 0 if min_revision is None else operator.index(min_revision)
    if not 0 <= revision < 2**64:
        raise ValueError(f"min_revision is a number of observations, not {min_revision!r}")
    return revision


def _answer(message: pb.Verdict, policy: str, world: str, revisions: _Revisions) -> Verdict:
    if (message.policy, message.world) != (policy, world):
        raise ValueError(f"it is about policy {message.policy!r} and world {message.world!r}")
    if revisions.policy and message.policy_revision != revisions.policy:
        raise ValueError(f"it is about revision {message.policy_revision!r}")
    if message.posterior_revision < revisions.least:
        raise ValueError(f"it rests on {message.posterior_revision} observations, {revisions.least} were asked for")
    return verdict_from_proto(message)


# ---------------------------------------------------------------- reports


def report(policy: str, world: str, one: Report) -> Call[Reported]:
    """ReportOutcome.

    :raises InvalidInput: if the report has no form on the wire.
    """

    def decode(data: bytes) -> Reported:
        reply = pb.ReportOutcomeResponse.FromString(data)
        require(reply, "result")
        return _reported(one, reply.result)

    request = pb.ReportOutcomeRequest(policy=policy, world=world, report=_report(one, ""))
    return Call("ReportOutcome", request, decode, no_service)


def report_many(policy: str, world: str, reports: Sequence[Report]) -> Call[tuple[Reported, ...]]:
    """ReportOutcomes.

    :raises InvalidInput: if a report has no form on the wire.
    """

    def decode(data: bytes) -> tuple[Reported, ...]:
        reply = pb.ReportOutcomesResponse.FromString(data)
        return tuple(_reported(one, result) for one, result in zip(reports, reply.results, strict=True))

    messages = [_report(one, f"reports[{place}].") for place, one in enumerate(reports)]
    request = pb.ReportOutcomesRequest(policy=policy, world=world, reports=messages)
    return Call("ReportOutcomes", request, decode, no_service)


def not_taken(policy: str, world: str, decision_ids: Sequence[str]) -> Call[int]:
    """ReportNotTaken.

    :raises TypeError: if a single id is given.
    """
    if isinstance(decision_ids, str):
        raise TypeError("decision_ids is a list of ids, not one id")

    def decode(data: bytes) -> int:
        return int(pb.ReportNotTakenResponse.FromString(data).released)

    request = pb.ReportNotTakenRequest(policy=policy, world=world, decision_ids=decision_ids)
    return Call("ReportNotTaken", request, decode, no_service)


def _report(one: Report, path: str) -> pb.Report:
    return pb.Report(
        observation_id=one.observation_id,
        context=dict_to_struct(one.context, f"{path}context"),
        action=dict_to_struct(one.action, f"{path}action"),
        outcome=plain_to_value(one.outcome, f"{path}outcome"),
    )


def _reported(one: Report, result: pb.ReportResult) -> Reported:
    return Reported(one.observation_id, result.posterior_revision, result.duplicate, generation_of(result.generation))


def generation_of(number: int) -> int:
    """A service that knows no resets leaves the field out: all its logs are first ones."""
    return number or 1
