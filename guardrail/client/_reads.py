"""What the client reads, and how it runs a service; shared by the synchronous and the asyncio one."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from guardrail import wire_posterior
from guardrail.client._call import Call
from guardrail.client._failures import no_service
from guardrail.client._shared import generation_of, require
from guardrail.client.results import (
    AwaitedOutcomes,
    CalibrationState,
    LoggedDecision,
    PolicyCheck,
    PolicyInfo,
    Reloaded,
    SessionState,
    WorldEntry,
    WorldReset,
    WorldState,
)
from guardrail.domain import PosteriorSummary
from guardrail.errors import Problem
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import (
    budget_from_proto,
    guarantee_from_proto,
    struct_to_dict,
    verdict_from_proto,
)

if TYPE_CHECKING:
    pass


MAX_HYPOTHESES: Final = 1_000
"""Most hypotheses that may be asked for at once."""
DECISIONS_PAGE: Final = 200
"""Decisions that are asked for at once."""


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
            generation_of(message.generation),
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
        entries = [WorldEntry(w.policy, w.world, w.observations, generation_of(w.generation)) for w in reply.worlds]
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
        generation_of(message.generation),
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
