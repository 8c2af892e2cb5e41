"""Asks the service in the name of one person: every call carries that person's credential, and no other."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from guardrail.client._call import CHANNEL_OPTIONS
from guardrail.client._failures import from_call, no_service
from guardrail.client.access import bearer
from guardrail.client.sync import Client
from guardrail.console.feed import Feed
from guardrail.errors import GuardrailError, ServiceError, Unauthenticated
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.v1 import guardrail_pb2_grpc

if TYPE_CHECKING:
    from guardrail.approvals import EscalationState
    from guardrail.client.results import EscalatedAction, LoggedDecision, PolicyInfo, SessionState, WorldEntry

T = TypeVar("T")

CALL_SECONDS: Final = 3.0
"""How long the service may take to answer the console."""
MAX_HYPOTHESES: Final = 60
MAX_WORLDS: Final = 500
MAX_ESCALATIONS: Final = 200


class Desk:
    """One person's way to the service.

    The calls block on threads of their own: grpc.aio shares one queue between all event loops of a process, and
    what happens on the console's loop must not touch the service's.

    Args:
        target: the service.
        token: the person's key or token; None where callers are not told apart.

    Attributes:
        feed: decisions as they are made.
        refused: why the service does not know the credential any more, a stable code; None while it does.

    :raises ValueError: if the token holds what no header may.
    """

    def __init__(self, target: str, token: str | None) -> None:
        self._metadata = () if token is None else (("authorization", bearer(token)),)
        options = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.insecure_channel(target, options=options)
        self._client = Client(target, timeout=CALL_SECONDS, metadata=self._metadata, channel=self._channel)
        self._stub = guardrail_pb2_grpc.GuardrailServiceStub(self._channel)
        self._places = threading.BoundedSemaphore(4)
        self.refused: str | None = None
        self.feed = Feed(self._client, self._heard)

    def close(self) -> None:
        """Forget the credential, and what was heard with it. Returns at once."""
        self._metadata = ()
        self.feed.stop()
        threading.Thread(target=self._client.close, name="guardrail-console-close", daemon=True).start()

    async def policies(self) -> tuple[PolicyInfo, ...]:
        """The loaded policies; the cheapest question that needs a credential."""
        return await self._ask(self._client.policies)

    async def worlds(self) -> list[WorldEntry]:
        """Worlds that this person may see."""
        return await self._ask(lambda: list(itertools.islice(self._client.worlds(), MAX_WORLDS)))

    async def world(self, policy: str, world: str) -> pb.World:
        """One world, with its posterior in full."""

        def ask() -> pb.World:
            request = pb.GetWorldRequest(policy=policy, world=world, hypotheses=MAX_HYPOTHESES)
            try:
                reply = self._stub.GetWorld(request, timeout=CALL_SECONDS, metadata=self._metadata)
            except grpc.RpcError as error:
                raise from_call(error, no_service) from error
            except ValueError as error:
                raise ServiceError("the session is over", "CLIENT_CLOSED", "CANCELLED") from error
            return reply.world

        return await self._ask(ask)

    async def decision(self, decision_id: str) -> LoggedDecision:
        """One record of the decision log."""
        return await self._ask(lambda: self._client.decision(decision_id))

    async def decisions(self, policy: str, world: str, limit: int) -> list[LoggedDecision]:
        """The newest records about a world, newest first; none if they cannot be had."""
        try:
            return await self._ask(lambda: list(self._client.decisions(policy, world, limit=limit)))
        except GuardrailError:
            return []

    async def session(self, policy: str, world: str, session: str) -> SessionState:
        """What a session, or with an empty name the window of a world, has spent."""
        return await self._ask(lambda: self._client.session(policy, world, session))

    async def escalations(self, state: EscalationState | None) -> list[EscalatedAction]:
        """Escalated actions, newest first."""
        return await self._ask(lambda: list(itertools.islice(self._client.escalations(state=state), MAX_ESCALATIONS)))

    async def resolve(self, escalation_id: str, digest: str, *, approve: bool, note: str) -> EscalatedAction:
        """Approve or deny."""
        return await self._ask(
            lambda: self._client.resolve_escalation(escalation_id, digest=digest, approve=approve, note=note)
        )

    async def _ask(self, call: Callable[[], T]) -> T:
        """Run a call on a thread.

        :raises GuardrailError: whatever the service, or the client, refuses it with.
        """

        def one() -> T:
            if not self._places.acquire(timeout=CALL_SECONDS):
                raise ServiceError("too many questions wait for an answer", "OVERLOADED", "RESOURCE_EXHAUSTED")
            try:
                return call()
            finally:
                self._places.release()

        try:
            return await asyncio.to_thread(one)
        except GuardrailError as error:
            self._heard(error)
            raise

    def _heard(self, error: GuardrailError) -> None:
        if isinstance(error, Unauthenticated):
            self.refused = error.reason
