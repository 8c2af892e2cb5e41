"""Every request and reply of the client, shared by the synchronous and the asyncio one."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

from guardrail import wire_posterior
from guardrail.client._call import Call
from guardrail.client._failures import no_service, no_verdict
from guardrail.client.results import (
    AwaitedOutcomes,
    CalibrationState,
    CheckedActions,
    LoggedDecision,
    PolicyCheck,
    PolicyInfo,
    Reloaded,
    Report,
    Reported,
    SessionState,
    WorldEntry,
    WorldReset,
    WorldState,
)
from guardrail.domain import JsonObject, PosteriorSummary, Verdict
from guardrail.errors import InvalidInput, NoVerdict, Problem
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import (
    budget_from_proto,
    dict_to_struct,
    guarantee_from_proto,
    plain_to_value,
    struct_to_dict,
    verdict_from_proto,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct


MAX_HYPOTHESES: Final = 1_000
"""Most hypotheses that may be asked for at once."""
DECISIONS_PAGE: Final = 200
"""Decisions that are asked for at once."""


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
    return Reported(one.observation_id, result.posterior_revision, result.duplicate, _generation(result.generation))


def _generation(number: int) -> int:
    """A service that knows no resets leaves the field out: all its logs are first ones."""
    return number or 1


# ---------------------------------------------------------------- reads


def world(policy: str, name: str, hypotheses: int = 0) -> Call[WorldState]:
    """GetWorld. More hypotheses than were asked for are malformed.

    :raises ValueError: if `hypotheses` is not a number from 0 to MAX_HYPOTHESES.
    """
    if not 0 <= hypotheses <= MAX_HYPOTHESES:
        raise ValueError(f"hypotheses is a number from 0 to {MAX_HYPOTHESES}, not {hypotheses}")

    def decode(data: bytes) -> WorldState:
        reply = pb.GetWorldResponse.FromString(data)
        require(reply, "world")
        message = reply.world
        if max(len(message.hypotheses), len(message.parameters)) > hypotheses:
            raise ValueError(f"more than {hypotheses} hypotheses are in it")
        posterior = PosteriorSummary(
            revision=message.posterior_revision,
            refuted=message.refuted,
            class_size=message.class_size if message.HasField("class_size") else None,
            plausible=message.plausible if message.HasField("plausible") else None,
            entropy=message.entropy if message.HasField("entropy") else None,
            # The wire's map has no order; the most probable come first again.
            top=dict(sorted(message.top.items(), key=lambda item: (-item[1], item[0]))),
            detail=wire_posterior.detail_of(message),
        )
        guarantee = guarantee_from_proto(message.guarantee)
        return WorldState(
            message.policy,
            message.policy_revision,
            message.world,
            posterior,
            guarantee,
            _generation(message.generation),
            awaited=_awaited(message),
            calibration=_calibration(message.calibration) if message.HasField("calibration") else None,
        )

    return Call("GetWorld", pb.GetWorldRequest(policy=policy, world=name, hypotheses=hypotheses), decode, no_service)


def _awaited(world: pb.World) -> AwaitedOutcomes | None:
    if not world.HasField("awaited"):
        return None
    message = world.awaited
    return AwaitedOutcomes(
        message.within_seconds,
        message.overdue_action,
        message.awaited,
        message.overdue,
        message.oldest_due.ToDatetime(tzinfo=UTC) if message.HasField("oldest_due") else None,
        tuple(message.overdue_decisions),
        message.assumed_harms,
    )


def worlds(policy: str | None, token: str) -> Call[tuple[list[WorldEntry], str]]:
    """ListWorlds: one page, and the token of the next one, empty on the last."""

    def decode(data: bytes) -> tuple[list[WorldEntry], str]:
        reply = pb.ListWorldsResponse.FromString(data)
        if reply.next_page_token and reply.next_page_token == token:
            raise ValueError("the next page is the same page")
        entries = [WorldEntry(w.policy, w.world, w.observations, _generation(w.generation)) for w in reply.worlds]
        return entries, reply.next_page_token

    request = pb.ListWorldsRequest(policy=policy or "", page_token=token)
    return Call("ListWorlds", request, decode, no_service)


def session(policy: str, world: str, name: str) -> Call[SessionState]:
    """GetSession."""

    def decode(data: bytes) -> SessionState:
        reply = pb.GetSessionResponse.FromString(data)
        require(reply, "session")
        message = reply.session
        require(message, "budget")
        return SessionState(
            message.policy,
            message.world,
            budget_from_proto(message.budget),
            message.accepts,
            message.started_at.ToDatetime(tzinfo=UTC) if message.HasField("started_at") else None,
            message.changed,
            guarantee_from_proto(message.guarantee),
        )

    return Call("GetSession", pb.GetSessionRequest(policy=policy, world=world, session=name), decode, no_service)


def decision(decision_id: str) -> Call[LoggedDecision]:
    """GetDecision."""

    def decode(data: bytes) -> LoggedDecision:
        reply = pb.GetDecisionResponse.FromString(data)
        require(reply, "decision")
        return logged(reply.decision)

    return Call("GetDecision", pb.GetDecisionRequest(decision_id=decision_id), decode, no_service)


def decisions(
    policy: str | None, world: str | None, left: int | None, token: str
) -> Call[tuple[list[LoggedDecision], str]]:
    """ListDecisions: one page, and the token of the next one, empty on the last.

    :raises ValueError: if less than 1 is left to ask for.
    """
    if left is not None and left < 1:
        raise ValueError(f"a list has a limit of at least 1, not {left}")

    def decode(data: bytes) -> tuple[list[LoggedDecision], str]:
        reply = pb.ListDecisionsResponse.FromString(data)
        if reply.next_page_token and reply.next_page_token == token:
            raise ValueError("the next page is the same page")
        return [logged(one) for one in reply.decisions], reply.next_page_token

    size = DECISIONS_PAGE if left is None else min(left, DECISIONS_PAGE)
    request = pb.ListDecisionsRequest(policy=policy or "", world=world or "", page_size=size, page_token=token)
    return Call("ListDecisions", request, decode, no_service)


def watch(policy: str | None, world: str | None) -> Call[LoggedDecision]:
    """WatchDecisions; `finish` reads one message of the stream."""

    def decode(data: bytes) -> LoggedDecision:
        reply = pb.WatchDecisionsResponse.FromString(data)
        require(reply, "decision")
        return logged(reply.decision)

    request = pb.WatchDecisionsRequest(policy=policy or "", world=world or "")
    return Call("WatchDecisions", request, decode, no_service)


def logged(message: pb.DecisionRecord) -> LoggedDecision:
    """A record of the decision log."""
    return LoggedDecision(
        verdict_from_proto(message.verdict),
        struct_to_dict(message.context),
        struct_to_dict(message.action),
        message.decided_at.ToDatetime(tzinfo=UTC),
        message.caller,
        _generation(message.generation),
    )


def policies() -> Call[tuple[PolicyInfo, ...]]:
    """ListPolicies."""

    def decode(data: bytes) -> tuple[PolicyInfo, ...]:
        return tuple(map(_policy, pb.ListPoliciesResponse.FromString(data).policies))

    return Call("ListPolicies", pb.ListPoliciesRequest(), decode, no_service)


def policy(name: str) -> Call[PolicyInfo]:
    """GetPolicy."""

    def decode(data: bytes) -> PolicyInfo:
        reply = pb.GetPolicyResponse.FromString(data)
        require(reply, "policy")
        return _policy(reply.policy)

    return Call("GetPolicy", pb.GetPolicyRequest(name=name), decode, no_service)


def validate_policy(document: str, path: str) -> Call[PolicyCheck]:
    """ValidatePolicy; problems carry `path` as their file name."""

    def decode(data: bytes) -> PolicyCheck:
        reply = pb.ValidatePolicyResponse.FromString(data)
        problems = tuple(Problem(path, p.line, p.column, p.message) for p in reply.problems)
        return PolicyCheck(problems, reply.revision or None)

    return Call("ValidatePolicy", pb.ValidatePolicyRequest(document=document), decode, no_service)


def reload_policies() -> Call[Reloaded]:
    """ReloadPolicies."""

    def decode(data: bytes) -> Reloaded:
        reply = pb.ReloadPoliciesResponse.FromString(data)
        return Reloaded(tuple(map(_policy, reply.policies)), tuple(reply.changed))

    return Call("ReloadPolicies", pb.ReloadPoliciesRequest(), decode, no_service)


def reset_world(policy: str, world: str, generation: int, reason: str) -> Call[WorldReset]:
    """ResetWorld. An answer that does not name the next generation is malformed.

    :raises ValueError: if `generation` is not positive, or has no form on the wire.
    """
    if not 1 <= generation < 2**63:
        raise ValueError(f"generation counts from 1, {generation!r} is none")

    def decode(data: bytes) -> WorldReset:
        reply = pb.ResetWorldResponse.FromString(data)
        if reply.generation != generation + 1:
            raise ValueError(f"generation {reply.generation} does not follow {generation}")
        return WorldReset(reply.generation, reply.closed_observations)

    request = pb.ResetWorldRequest(policy=policy, world=world, generation=generation, reason=reason)
    return Call("ResetWorld", request, decode, no_service)


def _calibration(message: pb.Calibration) -> CalibrationState:
    predicted = message.HasField("predicted")
    return CalibrationState(
        outcomes=message.outcomes,
        harms=message.harms,
        bounds=message.bounds,
        log_e_value=message.log_e_value,
        log_e_peak=message.log_e_peak,
        log_e_alarm=message.log_e_alarm,
        alarm=message.alarm,
        predicted=message.predicted if predicted else None,
        harm_low=message.harm_low if predicted else None,
        harm_high=message.harm_high if predicted else None,
    )


def _policy(message: pb.Policy) -> PolicyInfo:
    return PolicyInfo(message.name, message.revision, message.description, message.document)
