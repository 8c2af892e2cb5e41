"""What every call passes before its request is read, and what the request passes before it is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import structlog

from guardrail.errors import PermissionDenied, SecurityInvalid, Unauthenticated
from guardrail.server.security.authentication import Authenticator
from guardrail.server.security.callers_file import read_callers
from guardrail.server.security.grants import ANYONE, RULES, Caller, Scope
from guardrail.server.security.rate import RateLimiter

log = structlog.get_logger()

LOG_SECONDS = 1.0
"""Refused credentials are logged at most this often, with how many there were: whoever sends them pays for no disk."""

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class Gate:
    """Who may do what, for one server. Call it from the event loop only.

    Args:
        path: of the callers file; None lets everybody do everything.
        certificates: whether callers can show certificates that were verified.
        now: seconds since the epoch.
        clock: seconds, monotonic.

    :raises SecurityInvalid: if the callers file, or a file that it names, is wrong.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        certificates: bool = False,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._certificates, self._now, self._clock = path, certificates, now, clock
        self._limiter = RateLimiter(clock)
        self._refused, self._logged = 0, float("-inf")
        self._reloading = asyncio.Lock()
        self._authenticator = None if path is None else self._read(path)

    @property
    def open(self) -> bool:
        """True if callers are not told apart."""
        return self._authenticator is None

    def caller(self, context: Context) -> Caller:
        """Who calls, by credentials alone.

        :raises Unauthenticated: if the call shows none, a wrong one, or two that differ.
        """
        if self._authenticator is None:
            return ANYONE
        try:
            peer = context.auth_context() if self._authenticator.reads_certificates else {}
            return self._authenticator.identify(context.invocation_metadata() or (), _bytes(peer))
        except Unauthenticated as error:
            self._log_refusal(error, context)
            raise

    def enter(self, rpc: str, context: Context) -> Caller:
        """Let a call in before its request is read: who is it, has it the role, does it ask too often?

        :raises Unauthenticated: as `caller`.
        :raises PermissionDenied: if no grant of the caller has a role that the RPC takes.
        :raises LimitExceeded: RATE_LIMITED if the caller asks too often.
        """
        caller = self.caller(context)
        if caller is ANYONE:
            return caller
        structlog.contextvars.bind_contextvars(caller=caller.name)  # each call runs in a context of its own
        caller.require_role(rpc)
        if caller.rate is not None:
            self._limiter.take(caller.name, caller.rate)
        return caller

    def permit(self, caller: Caller, rpc: str, request: Any) -> None:
        """Let a request through: does a grant cover what it names?

        :raises PermissionDenied: if none does.
        """
        if caller is ANYONE:
            return
        rule = RULES.get(rpc)
        if rule is None:
            raise PermissionDenied(f"{rpc} has no rule, so nobody may call it")
        if rule.scope is Scope.WORLD:
            caller.require(rpc, request.policy, request.world)
        elif rule.scope is Scope.POLICY:
            caller.require(rpc, request.name, "")
        else:
            caller.require(rpc, "", "")

    async def reload_with(self, load: Callable[[], Awaitable[T]]) -> T:
        """Read the callers file again, and then what `load` reads. If that fails, the callers are in use all the same:
        whoever was taken out of the file is kept out, whatever is wrong elsewhere.

        It goes on to its end even if the caller is gone meanwhile.

        :raises SecurityInvalid: if the callers file, or a file that it names, is wrong; `load` was not called.
        """
        return await asyncio.shield(asyncio.create_task(self._reload_with(load)))

    async def _reload_with(self, load: Callable[[], Awaitable[T]]) -> T:
        async with self._reloading:  # a reload that began earlier must not bring back callers that a later one took out
            fresh = None if self._path is None else await asyncio.to_thread(self._read, self._path)
            if fresh is not None:
                self._authenticator = fresh
                log.info("callers_read", path=str(self._path))
            return await load()

    def _read(self, path: Path) -> Authenticator:
        callers = read_callers(path)
        if callers.needs_client_ca and not self._certificates:
            raise SecurityInvalid(
                f"{path}: a caller is known by its certificate, but certificates are not asked for; "
                "start with --client-ca, --tls-certificate and --tls-key"
            )
        return Authenticator(callers, self._now, self._clock)

    def _log_refusal(self, error: Unauthenticated, context: Context) -> None:
        self._refused += 1
        now = self._clock()
        if now - self._logged >= LOG_SECONDS:
            log.warning(
                "credentials_refused", reason=error.reason, why=str(error), peer=context.peer(), calls=self._refused
            )
            self._refused, self._logged = 0, now


def _bytes(peer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {str(name): list(values) for name, values in peer.items()}
