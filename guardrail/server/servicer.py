"""proto <-> domain. Each method translates, calls the service, and translates back."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
import structlog

from guardrail import wire_posterior
from guardrail.domain import Decision, HarmBudget, JsonValue
from guardrail.errors import DeadlinePassed, GuardrailError, InvalidInput, PolicyError, Unauthenticated
from guardrail.policy import Policy, parse_policy
from guardrail.server import contract, recent, tracing
from guardrail.server.admission import Door
from guardrail.server.awaiting import AwaitedView
from guardrail.server.budgets import SessionView
from guardrail.server.calibrating import calibration_message
from guardrail.server.listing import decisions_page, escalation_message, escalations_page, place_of
from guardrail.server.metrics import CANCELLED, DEADLINE_EXCEEDED, Metrics
from guardrail.server.reasons import INTERNAL
from guardrail.server.reporting import Report
from guardrail.server.requests import admit
from guardrail.server.security.gate import Gate
from guardrail.server.security.grants import Caller
from guardrail.server.service import Service, WorldView
from guardrail.server.status import DEFECT, abort, abort_with
from guardrail.store.base import Appended
from guardrail.store.decisions import LoggedDecision
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import (
    budget_to_proto,
    dict_to_struct,
    guarantee_to_proto,
    struct_to_dict,
    value_to_plain,
    verdict_to_proto,
)
from guardrail.wire_approvals import STATE_FROM_PROTO

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

SHARE_FOR_THE_REPLY = 0.2
"""Of the time that a caller gives, what a search leaves for the answer's way back."""

MAX_REPEATED_BYTES: Final = 16 * 2**20
"""What one request may have the decision log keep of its context, which stands beside each of its actions."""

CHECKS: Final = frozenset({"CheckAction", "CheckActions"})

Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M")


def unary(
    method: Callable[[Servicer, Any, Context, Caller], Awaitable[M]],
) -> Callable[[Servicer, bytes, Context], Awaitable[M]]:
    """Let the caller in, parse its request, check it, and turn every error into a status."""
    name = method.__name__
    is_check = name in CHECKS

    @functools.wraps(method)
    async def call(self: Servicer, data: bytes, context: Context) -> M:
        started = time.perf_counter()
        try:
            caller = self._gate.enter(name, context)
            with tracing.rpc(self._tracer, name, context):
                if is_check:  # whether there is room comes before the work of reading the request
                    with self._door:
                        reply = await method(self, admit(self._gate, caller, name, data), context, caller)
                else:
                    reply = await method(self, admit(self._gate, caller, name, data), context, caller)
        except asyncio.CancelledError:
            if is_check:
                self.metrics.no_verdict(_why_gone(context))
            raise
        except Exception as error:  # noqa: BLE001  (each becomes a status)
            await refuse(self.metrics, context, name, error)
        self.metrics.answered(name, time.perf_counter() - started)
        return reply

    return call


async def refuse(metrics: Metrics, context: Context, method: str, error: Exception) -> NoReturn:
    """End a call with the status of an error, and count it. Every status other than OK comes from here."""
    known = error if isinstance(error, GuardrailError) else None
    reason = INTERNAL if known is None else known.reason
    metrics.refused(reason)
    if isinstance(error, Unauthenticated):
        metrics.authentication_failed(reason)
    if method in CHECKS:
        metrics.no_verdict(reason)
    if isinstance(error, DeadlinePassed):  # the transport has told the caller already
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
    elif known is not None:
        await abort_with(context, known)
    log.error("request_failed", method=method, exc_info=error)
    await abort(context, INTERNAL, DEFECT)


def _why_gone(context: Context) -> str:
    remaining = context.time_remaining()
    return CANCELLED if remaining is None or remaining > 0 else DEADLINE_EXCEEDED


def _deadlines(context: Context) -> tuple[float | None, float | None]:
    """When a search must end so that its answer still reaches the caller, and when the caller is gone.

    None if the caller waits for ever.
    """
    now, remaining = time.monotonic(), context.time_remaining()
    search = None if remaining is None else now + remaining * (1.0 - SHARE_FOR_THE_REPLY)
    return search, None if remaining is None else now + remaining


class Servicer:
    """The RPCs of `guardrail.v1.GuardrailService`."""

    def __init__(
        self, service: Service, gate: Gate, metrics: Metrics, door: Door, tracer: Tracer | None = None
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._gate = gate
        self._door = door
        self.metrics = metrics
        # A hostile document takes seconds to read: one at a time, and never those whose callers are gone.
        self._documents = ThreadPoolExecutor(1, "guardrail-documents")

    @unary
    async def CheckAction(self, request: Any, context: Context, caller: Caller) -> pb.CheckActionResponse:
        verdicts = await self._service.check(
            request.policy,
            request.world,
            struct_to_dict(request.context),
            [struct_to_dict(request.action)],
            request.policy_revision,
            *_deadlines(context),
            request.min_revision,
            caller,
            [request.context.ByteSize() + request.action.ByteSize()],
            session=request.session,
            approval=request.approval,
        )
        return pb.CheckActionResponse(verdict=verdict_to_proto(verdicts[0]))

    @unary
    async def CheckActions(self, request: Any, context: Context, caller: Caller) -> pb.CheckActionsResponse:
        context_bytes = request.context.ByteSize()
        if context_bytes * len(request.actions) > MAX_REPEATED_BYTES:
            raise InvalidInput(
                f"the context of {context_bytes} bytes is logged with each of {len(request.actions)} actions; at most "
                f"{MAX_REPEATED_BYTES} bytes in all: ask about fewer actions at once, or with less context",
                "INPUT_TOO_LARGE",
            )
        sizes = [context_bytes + action.ByteSize() for action in request.actions]
        actions = [struct_to_dict(action) for action in request.actions]
        verdicts = await self._service.check(
            request.policy,
            request.world,
            struct_to_dict(request.context),
            actions,
            request.policy_revision,
            *_deadlines(context),
            request.min_revision,
            caller,
            sizes,
            session=request.session,
        )
        accepted = [i for i, verdict in enumerate(verdicts) if verdict.decision is Decision.ACCEPT]
        return pb.CheckActionsResponse(
            verdicts=map(verdict_to_proto, verdicts),
            allowed=sorted(accepted, key=lambda i: verdicts[i].harm_bound),
        )

    @unary
    async def ReportOutcome(self, request: Any, context: Context, caller: Caller) -> pb.ReportOutcomeResponse:
        results = await self._service.report(request.policy, request.world, [_report(request.report)], caller)
        return pb.ReportOutcomeResponse(result=_result(results[0]))

    @unary
    async def ReportOutcomes(self, request: Any, context: Context, caller: Caller) -> pb.ReportOutcomesResponse:
        reports = [_report(report) for report in request.reports]
        results = await self._service.report(request.policy, request.world, reports, caller)
        return pb.ReportOutcomesResponse(results=map(_result, results))

    @unary
    async def ReportNotTaken(self, request: Any, context: Context, caller: Caller) -> pb.ReportNotTakenResponse:
        released = await self._service.not_taken(request.policy, request.world, request.decision_ids, caller)
        return pb.ReportNotTakenResponse(released=released)

    @unary
    async def GetWorld(self, request: Any, context: Context, caller: Caller) -> pb.GetWorldResponse:
        view = await self._service.world(request.policy, request.world, request.hypotheses)
        answer = pb.GetWorldResponse(world=_world(view))
        wire_posterior.tell(view.summary.detail, answer.world)
        return answer

    @unary
    async def ListWorlds(self, request: Any, context: Context, caller: Caller) -> pb.ListWorldsResponse:
        records = await self._service.worlds(request.policy or None, caller)
        after = _page_start(request.page_token)
        rest = [r for r in records if after is None or (r.policy, r.world) > after]
        page = rest[: request.page_size or 100]
        token = f"{page[-1].policy}\n{page[-1].world}" if len(page) < len(rest) else ""
        entries = [
            pb.WorldEntry(policy=r.policy, world=r.world, observations=r.observations, generation=r.generation)
            for r in page
        ]
        return pb.ListWorldsResponse(worlds=entries, next_page_token=token)

    @unary
    async def ListDecisions(self, request: Any, context: Context, caller: Caller) -> pb.ListDecisionsResponse:
        after, limit = recent.place_of(request.page_token), request.page_size or 100
        listed, following = await self._service.decisions(request.policy, request.world, after, limit, caller)
        return decisions_page(listed, following, _decision)

    @unary
    async def GetDecision(self, request: Any, context: Context, caller: Caller) -> pb.GetDecisionResponse:
        decision = await self._service.decision(request.decision_id, caller)
        return pb.GetDecisionResponse(decision=_decision(decision))

    async def WatchDecisions(self, data: bytes, context: Context) -> AsyncIterator[pb.WatchDecisionsResponse]:
        try:
            name = "WatchDecisions"
            caller = self._gate.enter(name, context)
            request = admit(self._gate, caller, name, data)
            # Headers tell the caller that decisions from here on reach it.
            await context.send_initial_metadata(())
            async for decision in self._service.watch(request.policy, request.world):
                # Asked again each time: a stream outlives its caller's token, key and grants.
                caller = self._gate.caller(context)
                caller.require_role("WatchDecisions")
                if caller.sees("WatchDecisions", decision.verdict.policy, decision.verdict.world):
                    yield pb.WatchDecisionsResponse(decision=_decision(decision))
        except Exception as error:  # noqa: BLE001  (each becomes a status)
            await refuse(self.metrics, context, "WatchDecisions", error)

    @unary
    async def ListPolicies(self, request: Any, context: Context, caller: Caller) -> pb.ListPoliciesResponse:
        return pb.ListPoliciesResponse(policies=map(_policy, self._seen(caller)))

    @unary
    async def GetPolicy(self, request: Any, context: Context, caller: Caller) -> pb.GetPolicyResponse:
        policy = self._service.policy(request.name)
        answer = _policy(policy)
        answer.document = policy.document
        return pb.GetPolicyResponse(policy=answer)

    @unary
    async def ValidatePolicy(self, request: Any, context: Context, caller: Caller) -> pb.ValidatePolicyResponse:
        try:
            loop = asyncio.get_running_loop()
            policy = await loop.run_in_executor(self._documents, parse_policy, request.document)
        except PolicyError as error:
            problems = [pb.Problem(line=p.line, column=p.column, message=p.message) for p in error.problems]
            return pb.ValidatePolicyResponse(problems=problems)
        return pb.ValidatePolicyResponse(revision=policy.revision)

    @unary
    async def ReloadPolicies(self, request: Any, context: Context, caller: Caller) -> pb.ReloadPoliciesResponse:
        changed = await self._gate.reload_with(self._service.reload)
        return pb.ReloadPoliciesResponse(policies=map(_policy, self._service.policies()), changed=changed)

    @unary
    async def ResetWorld(self, request: Any, context: Context, caller: Caller) -> pb.ResetWorldResponse:
        record = await self._service.reset(
            request.policy, request.world, request.generation, request.reason, caller.name
        )
        return pb.ResetWorldResponse(generation=record.generation + 1, closed_observations=record.observations)

    @unary
    async def GetSession(self, request: Any, context: Context, caller: Caller) -> pb.GetSessionResponse:
        view = await self._service.session(request.policy, request.world, request.session)
        return pb.GetSessionResponse(session=_session(view))

    @unary
    async def ListEscalations(self, request: Any, context: Context, caller: Caller) -> pb.ListEscalationsResponse:
        state, after = STATE_FROM_PROTO.get(request.state), place_of(request.page_token)
        views, following = await self._service.escalations(
            request.policy, request.world, state, after, request.page_size or 100, caller
        )
        return escalations_page(views, following, _decision)

    @unary
    async def ResolveEscalation(self, request: Any, context: Context, caller: Caller) -> pb.ResolveEscalationResponse:
        approve = request.resolution == pb.RESOLUTION_APPROVE
        view = await self._service.resolve_escalation(
            request.escalation_id, request.digest, approve, request.note, caller
        )
        return pb.ResolveEscalationResponse(escalation=escalation_message(view, _decision))

    def _seen(self, caller: Caller) -> list[Policy]:
        return [policy for policy in self._service.policies() if caller.sees("ListPolicies", policy.name)]


class UnknownMethods(grpc.GenericRpcHandler):
    """Answers what no other handler does, so that this, too, has a reason."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = str(handler_call_details.method)[:200]

        async def answer(requests: Any, context: Context) -> None:
            self._metrics.refused("METHOD_UNKNOWN")
            await abort(context, "METHOD_UNKNOWN", f"this service has no method {method}")

        return grpc.stream_stream_rpc_method_handler(answer)


def generic_handler(servicer: Servicer) -> grpc.GenericRpcHandler:
    """Bind the servicer's methods to their names. They get bytes: what cannot be parsed must have a status, too."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in contract.POOL.FindServiceByName(contract.SERVICE).methods:
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = make(
            getattr(servicer, method.name),
            response_serializer=lambda message: message.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(contract.SERVICE, handlers)


def _report(report: Any) -> Report:
    outcome: JsonValue = value_to_plain(report.outcome)
    return Report(report.observation_id, struct_to_dict(report.context), struct_to_dict(report.action), outcome)


def _result(appended: Appended) -> pb.ReportResult:
    return pb.ReportResult(
        posterior_revision=appended.sequence, duplicate=appended.duplicate, generation=appended.generation
    )


def _world(view: WorldView) -> pb.World:
    summary = view.summary
    calibration = None if view.calibration is None else calibration_message(view.calibration)
    message = pb.World(
        policy=view.policy.name,
        policy_revision=view.policy.revision,
        world=view.world,
        posterior_revision=summary.revision,
        refuted=summary.refuted,
        class_size=summary.class_size,
        plausible=summary.plausible,
        entropy=summary.entropy,
        top=summary.top,
        guarantee=guarantee_to_proto(view.guarantee),
        generation=view.generation,
        calibration=calibration,
    )
    if view.awaited is not None:
        message.awaited.CopyFrom(_awaited(view.awaited))
    return message


def _awaited(view: AwaitedView) -> pb.AwaitedOutcomes:
    message = pb.AwaitedOutcomes(
        within_seconds=view.within,
        overdue_action=view.action,
        awaited=view.state.awaited,
        overdue=view.state.overdue,
        overdue_decisions=view.overdue,
        assumed_harms=view.state.assumed,
    )
    if view.state.oldest_due is not None:
        message.oldest_due.FromNanoseconds(round(view.state.oldest_due * 1e9))
    return message


def _session(view: SessionView) -> pb.Session:
    record, terms = view.record, view.record.terms
    message = pb.Session(
        policy=record.policy,
        world=record.world,
        budget=budget_to_proto(HarmBudget(terms.per, record.session, terms.total, record.spent)),
        accepts=record.accepts,
        changed=view.changed,
        guarantee=guarantee_to_proto(view.guarantee),
    )
    if record.session:
        message.started_at.FromNanoseconds(round(record.started_at * 1e9))
    return message


def _decision(decision: LoggedDecision) -> pb.DecisionRecord:
    record = pb.DecisionRecord(
        verdict=verdict_to_proto(decision.verdict),
        context=dict_to_struct(decision.context),
        action=dict_to_struct(decision.action),
        caller=decision.caller,
        generation=decision.generation,
    )
    record.decided_at.FromNanoseconds(round(decision.decided_at * 1e9))
    return record


def _policy(policy: Policy) -> pb.Policy:
    return pb.Policy(name=policy.name, revision=policy.revision, description=policy.description)


def _page_start(token: str) -> tuple[str, str] | None:
    if not token:
        return None
    policy, separator, world = token.partition("\n")
    if not separator:
        raise InvalidInput("page_token is not one that this service gave out")
    return policy, world
