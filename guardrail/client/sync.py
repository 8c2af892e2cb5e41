"""The synchronous client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import grpc

from guardrail.approvals import EscalationState
from guardrail.client import _escalations, _reads, _shared, _tracing
from guardrail.client._call import DEFAULT_TIMEOUT, Call, Metadata, seconds
from guardrail.client._escalations import waits_for_a_person
from guardrail.client._failures import from_call
from guardrail.client._guarded import (
    Guarded,
    dress,
    kind_of,
    next_wait,
    refuse,
    require_accept,
    unreported,
    waiting,
)
from guardrail.client.access import Tls, Token, access
from guardrail.client.results import (
    CheckedActions,
    EscalatedAction,
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
    new_observation_id,
)
from guardrail.client.watching import Watch

if TYPE_CHECKING:
    from types import TracebackType

    from guardrail.client._guarded import ActionOf, ContextOf, OutcomeOf, SessionOf
    from guardrail.domain import JsonObject, JsonValue, Verdict

T = TypeVar("T")
P = ParamSpec("P")
Send = Callable[..., Any]


class Client:
    """Asks a guardrail service. Safe to share between threads.

    Every failure of a check is a NoVerdict: without a verdict there is no permission. A call is
    retried while the service is unreachable, until its deadline. Whatever else the service refuses a caller for who
    it is raises Unauthenticated or PermissionDenied, and for asking too much LimitExceeded.

    Args:
        target: where the service listens, for instance `localhost:50051`.
        timeout: seconds that each call may take, retries included.
        token: a key or token that says who calls, or a callable that gives the present one before every call. Over
            an unencrypted connection it is only sent to this machine.
        tls: an encrypted connection; without it, and without `credentials`, nothing is encrypted.
        credentials: of the channel, for TLS set up otherwise.
        metadata: sent with every call, for instance an authorization header.
        channel: a channel to use instead of opening one to `target`; the client closes it. Retries and
            message limits are then the channel's own.

    :raises ValueError: if `timeout` is not a positive, finite number, if a token would go unencrypted to another
        machine, or if two arguments contradict each other.
    :raises OSError: if a file of `tls` cannot be read.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        token: Token | None = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        channel: grpc.Channel | None = None,
    ) -> None:
        self._timeout = seconds(timeout)
        self._access = access(
            target,
            token=token,
            tls=tls,
            credentials=credentials,
            metadata=metadata,
            own_channel=channel is not None,
        )
        self._closed = threading.Event()
        self._methods: dict[str, Send] = {}
        if channel is not None:
            self._channel = channel
        elif self._access.credentials is not None:
            self._channel = grpc.secure_channel(target, self._access.credentials, options=self._access.options)
        else:
            self._channel = grpc.insecure_channel(target, options=self._access.options)

    def close(self) -> None:
        """Close the channel. Calls under way end without a verdict; calling it again does nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, call: Call[T], timeout: float | None = None) -> T:
        tracer = _tracing.tracer()
        if tracer is None:
            return self._send(call, timeout)
        with _tracing.traced(tracer, call) as span:
            return span.tell(self._send(call, timeout, span.headers))

    def _send(self, call: Call[T], timeout: float | None, headers: Metadata = ()) -> T:
        limit = self._timeout if timeout is None else seconds(timeout)
        if self._closed.is_set():
            raise call.closed()
        send = self._methods.get(call.path)
        if send is None:
            send = self._methods[call.path] = self._channel.unary_unary(call.path, call.serialize, None)
        metadata = (*self._access.headers(call), *headers)
        try:
            reply: bytes = send(call.request, timeout=limit, metadata=metadata)
        except grpc.RpcError as error:
            raise from_call(error, call.failure) from error
        except ValueError as error:  # closed by another thread since
            if self._closed.is_set():
                raise call.closed() from error
            raise
        return call.finish(reply)

    def check(
        self,
        *,
        policy: str,
        world: str,
        context: JsonObject,
        action: JsonObject,
        policy_revision: str | None = None,
        min_revision: int | None = None,
        session: str = "",
        approval: str | None = None,
        timeout: float | None = None,
    ) -> Verdict:
        """Ask about one action. Only a verdict whose `accepted` is true permits it.

        Args:
            policy: name of the policy.
            world: id of the world.
            context: the context's fields.
            action: the action's fields.
            policy_revision: if given, another revision of the policy gives no verdict.
            min_revision: how many observations the verdict must rest on at least: what `Reported.posterior_revision`
                says, to have a report counted, whichever replica answers. More than the log holds gives no verdict.
            session: what the action belongs to, where the policy has a harm budget for each session. Every accept
                takes its share of the budget, whether it is carried out or not.
            approval: id of the escalation that a person approved for exactly this check: the decision id of the verdict
                that escalated. It lets one check pass, once.
            timeout: seconds, instead of the client's.

        :raises ValueError: if `min_revision` is negative.
        :raises NoVerdict: if there is no verdict, for whatever reason; its `reason` says which.
        """
        asked = _shared.question(context, action, session)
        call = _shared.check(policy, world, asked, policy_revision, min_revision, approval)
        return self._run(call, timeout)

    def check_many(
        self,
        *,
        policy: str,
        world: str,
        context: JsonObject,
        actions: Sequence[JsonObject],
        policy_revision: str | None = None,
        min_revision: int | None = None,
        session: str = "",
        timeout: float | None = None,
    ) -> CheckedActions:
        """Ask about several candidate actions against one posterior. The arguments are those of `check`.

        :raises ValueError: if `min_revision` is negative.
        :raises NoVerdict: if there are no verdicts, for whatever reason.
        """
        return self._run(
            _shared.check_many(policy, world, context, actions, policy_revision, min_revision, session), timeout
        )

    def report(
        self,
        *,
        policy: str,
        world: str,
        context: JsonObject,
        action: JsonObject,
        outcome: JsonValue,
        observation_id: str | None = None,
        timeout: float | None = None,
    ) -> Reported:
        """Report the outcome of one action. When this returns, the observation is durable and counts.

        Args:
            policy: name of the policy.
            world: id of the world.
            context: the context in which the action was taken.
            action: the action that was taken.
            outcome: an object with the policy's outcome field, or its bare value.
            observation_id: unique within the world; a fresh one if not given. Report again with the
                same id after a failure: it counts once.
            timeout: seconds, instead of the client's.

        :raises InvalidInput: if the report does not fit the policy.
        :raises ReportConflict: if the id was used before with other content.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises ServiceError: if the report failed otherwise; it may have been written all the same.
        """
        one = Report(context, action, outcome, observation_id or new_observation_id())
        return self._run(_shared.report(policy, world, one), timeout)

    def report_many(
        self, *, policy: str, world: str, reports: Sequence[Report], timeout: float | None = None
    ) -> tuple[Reported, ...]:
        """Report several outcomes of one world in order.

        :raises GuardrailError: as `report` does. After a ReportConflict all reports but the conflicting ones
            count; after a ServiceError they may; after any other error none does.
        """
        return self._run(_shared.report_many(policy, world, tuple(reports)), timeout)

    def report_not_taken(
        self, policy: str, world: str, decision_ids: Sequence[str], *, timeout: float | None = None
    ) -> int:
        """Say that accepted actions were not carried out, so that their outcomes are not awaited any more. Idempotent.

        Args:
            policy: name of the policy.
            world: id of the world.
            decision_ids: of the verdicts that accepted them; at most 1024. If any was never awaited in this world, or
                its outcome was reported, none is taken up.
            timeout: seconds, instead of the client's.

        Returns:
            How many of them were awaited until now.

        :raises DecisionNotFound: if the outcome of any of them was never awaited in this world.
        :raises ReportConflict: if the outcome of any of them was reported, or taken for harm.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises ServiceError: if the call failed otherwise; they may have been taken up all the same.
        """
        return self._run(_shared.not_taken(policy, world, decision_ids), timeout)

    def world(self, policy: str, world: str, *, hypotheses: int = 0) -> WorldState:
        """One world and its posterior at a glance.

        Args:
            policy: name of the policy.
            world: id of the world.
            hypotheses: tell in full, in `posterior.detail`, of at most so many of the most probable hypotheses, or
                of a continuous class of its parameters; at most 1000.

        :raises ValueError: if `hypotheses` is negative or too large.
        :raises WorldNotFound: if it does not exist.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.world(policy, world, hypotheses))

    def worlds(self, policy: str | None = None) -> Iterator[WorldEntry]:
        """Worlds that hold observations, sorted by policy and world, fetched page by page.

        :raises ServiceError: if a page cannot be fetched.
        """
        token = ""
        while True:
            page, token = self._run(_reads.worlds(policy, token))
            yield from page
            if not token:
                return

    def session(self, policy: str, world: str, session: str = "") -> SessionState:
        """What a session, or with an empty name the rolling window of a world, has spent of its harm budget.

        :raises SessionNotFound: if nothing was ever accepted in it.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.session(policy, world, session))

    def decision(self, decision_id: str) -> LoggedDecision:
        """One record of the decision log.

        :raises DecisionNotFound: if there is none of that id.
        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.decision(decision_id))

    def decisions(
        self, policy: str | None = None, world: str | None = None, *, limit: int | None = None
    ) -> Iterator[LoggedDecision]:
        """Decisions that the caller may see, newest first, fetched page by page.

        Args:
            policy: only those of this policy.
            world: only those of this world.
            limit: most of them; without one all that are kept.

        :raises ValueError: if `limit` is less than 1.
        :raises ServiceError: if a page cannot be fetched.
        """
        token, left = "", limit
        while True:
            page, token = self._run(_reads.decisions(policy, world, left, token))
            yield from page[:left]
            left = None if left is None else left - len(page)
            if not token or (left is not None and left <= 0):
                return

    def escalations(
        self,
        policy: str | None = None,
        world: str | None = None,
        state: EscalationState | str | None = EscalationState.PENDING,
    ) -> Iterator[EscalatedAction]:
        """Escalated actions that the caller may see, newest first, fetched page by page.

        Args:
            policy: only those of this policy.
            world: only those of this world.
            state: only those in this state, without one those in any; by default those that wait for a person.

        :raises ValueError: if there is no such state.
        :raises ServiceError: if a page cannot be fetched.
        """
        token = ""
        while True:
            page, token = self._run(_escalations.escalations(policy, world, state, token))
            yield from page
            if not token:
                return

    def resolve_escalation(
        self, escalation_id: str, *, digest: str, approve: bool, note: str = "", timeout: float | None = None
    ) -> EscalatedAction:
        """Approve or deny an escalated action. The same words again are answered as before.

        Args:
            escalation_id: id of the decision that escalated.
            digest: that of the escalation that the person saw: for anything else nothing is resolved.
            approve: whether the action may be carried out.
            note: for the record, at most 500 characters.
            timeout: seconds, instead of the client's.

        :raises EscalationNotFound: if there is none of that id that the caller may resolve, or its decision is not in
            the log.
        :raises EscalationMismatch: if the digest is another one.
        :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
        :raises PermissionDenied: if the caller is the one who asked (SELF_APPROVAL), or approves nothing.
        :raises ServiceError: if the call failed otherwise; it may have been resolved all the same.
        """
        return self._run(_escalations.resolve(escalation_id, digest, approve, note), timeout)

    def policies(self) -> tuple[PolicyInfo, ...]:
        """The loaded policies, sorted by name, without their documents.

        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.policies())

    def policy(self, name: str) -> PolicyInfo:
        """One loaded policy with its document.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.policy(name))

    def validate_policy(self, document: str, path: str = "policy.yaml") -> PolicyCheck:
        """Whether a YAML document is a policy; it is not loaded. `path` names the file in the problems.

        :raises InvalidInput: if the document is empty or too large.
        :raises ServiceError: if the call failed.
        """
        return self._run(_reads.validate_policy(document, path))

    def reset_world(
        self, policy: str, world: str, *, generation: int, reason: str, timeout: float | None = None
    ) -> WorldReset:
        """Close the log of a world and start a new one from the prior, with a guarantee of its own.

        Call it again with the same arguments after a failure: the world is reset once.

        Args:
            policy: name of the policy.
            world: id of the world.
            generation: the one that is to end, as `world` or `worlds` says.
            reason: why, for whoever looks at the records later.
            timeout: seconds, instead of the client's.

        :raises ValueError: if `generation` is not positive.
        :raises WorldNotFound: if nothing was ever reported on the world.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises GenerationMismatch: if another generation is the present one.
        :raises ServiceError: if the call failed otherwise; the world may have been reset all the same.
        """
        return self._run(_reads.reset_world(policy, world, generation, reason), timeout)

    def reload_policies(self, timeout: float | None = None) -> Reloaded:
        """Make the service read its policy files again, all or none.

        :raises ServiceError: if a file is not a policy (reason POLICY_INVALID, nothing was loaded) or the call failed.
        """
        return self._run(_reads.reload_policies(), timeout)

    def watch(self, policy: str | None = None, world: str | None = None) -> Watch:
        """Decisions as they are made, from now on; without an end unless closed.

        Args:
            policy: only decisions of this policy.
            world: only decisions of this world.

        :raises ServiceError: while iterating, if the stream breaks.
        """
        call = _reads.watch(policy, world)
        if self._closed.is_set():
            raise call.closed()
        stream: Send = self._channel.unary_stream(call.path, call.serialize, None)
        return Watch(stream(call.request, metadata=self._access.headers(call)), call)

    def _permitted(self, plan: Guarded, asked: _shared.Question, patience: float) -> Verdict:
        """An accept, if need be by a person's approval.

        :raises ActionBlocked: if there is none in time.
        :raises NoVerdict: if there is no verdict.
        """
        until = time.monotonic() + patience
        first = verdict = self._run(plan.check(asked))
        while not verdict.accepted and (pause := next_wait(verdict, until)) is not None:
            self._closed.wait(pause)
            verdict = self._run(plan.check(asked, first.decision_id))
        require_accept(first if waits_for_a_person(verdict) else verdict)
        return verdict

    def guarded(
        self,
        policy: str,
        world: str,
        *,
        action: ActionOf | None = None,
        context: ContextOf | None = None,
        report: OutcomeOf | None = None,
        session: SessionOf = "",
        approval_wait: float | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Wrap a callable so that it runs only after an accept of exactly this call.

        The arguments are copied into the question and not read again: do not change a mutable argument
        while the call is under way.

        Args:
            policy: name of the policy.
            world: id of the world.
            action: makes the action from the arguments; without it the action is {parameter: argument},
                defaults included, without a method's instance.
            context: the context, or a callable that makes it from the arguments; empty without it.
            report: makes the outcome from the result, reported under the decision's id; None for none yet.
                A call that raises reports nothing. If the report fails, its error is raised with a note
                that the action was carried out.
            session: whose harm budget the calls count in, or a callable that says it from the arguments.
            approval_wait: seconds to wait for a person to approve a call that is escalated, asking every
                2 seconds; without it an escalation blocks at once. The escalation's own time ends the wait, too.

        :raises ValueError: if `approval_wait` is not a finite number of at least 0.
        :raises TypeError: if what is wrapped is a coroutine function or a generator function, or is not callable.

        The wrapped callable raises ActionBlocked for any verdict but an accept, and NoVerdict if there is none.
        """
        patience = waiting(approval_wait)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            kind = kind_of(function)
            if kind == "coroutine":
                raise refuse(function, kind, "guard it with AsyncClient")
            if kind != "plain":
                raise refuse(function, kind, "its body would run after the check, piece by piece; guard the pieces")
            plan = Guarded(function, policy, world, action=action, context=context, outcome=report, session=session)

            def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                asked = plan.ask(wrapper, args, kwargs)
                verdict = self._permitted(plan, asked, patience)
                result = function(*args, **kwargs)
                try:
                    told = plan.report(asked, verdict, result)
                    if told is not None:
                        self._run(told)
                except Exception as error:
                    unreported(error, verdict)
                    raise
                return result

            dress(wrapper, function)
            return wrapper

        return decorate
