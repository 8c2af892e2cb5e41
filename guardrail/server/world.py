"""One world in the service: its posterior, the checks that wait for it, the observations to apply.

Everything but `_drain` runs on the event loop, so the queues and flags need no lock. `_drain`
runs on the kernel thread and touches only what was handed to it. While it runs, checks pile
up; together they are the next kernel call.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog

from guardrail.domain import NO_GUARANTEE, Guarantee, HarmBound, PosteriorSummary, ReasonCode
from guardrail.errors import DeadlinePassed, GuardrailError, NotServing, WorldUnavailable
from guardrail.guard import Judge, PreparedCheck
from guardrail.hypotheses.base import Row
from guardrail.oracles.base import MAX_BATCH
from guardrail.server.kernel import ENDED, KernelThread, T
from guardrail.server.metrics import Metrics

log = structlog.get_logger()


@dataclass(slots=True)
class _WaitingCheck:
    prepared: Sequence[PreparedCheck]
    deadline: float | None
    expires: float | None
    arrived: float
    future: asyncio.Future[tuple[list[HarmBound | None], int]]


@dataclass(slots=True)
class _CommittedObservation:
    row: Row
    outcome: float
    observation_id: str


@dataclass(slots=True)
class _Posterior:
    """A state with number and last id of the observations it rests on; replaced as one, never changed."""

    state: Any
    revision: int
    last_id: str | None


class World:
    """A judge's posterior over one world's observations.

    Attributes:
        generation: that of the log it rests on; 0 while it rests on nothing.
        last_id: id of the last observation that it has taken up; None while there is none.
        first_assumed: the first observation of its log that nobody made, but that was taken for harm; None if there is
            none. Bounds that rest on it promise nothing.
    """

    def __init__(
        self,
        judge: Judge,
        world_id: str,
        state: Any,
        revision: int,
        *,
        kernel: KernelThread,
        metrics: Metrics,
        on_advance: Callable[[World], None],
        generation: int = 0,
        last_id: str | None = None,
        first_assumed: int | None = None,
    ) -> None:
        self.judge = judge
        self.world_id = world_id
        self.generation = generation
        self.last_id = last_id
        self.first_assumed = first_assumed
        self.snapshot_revision = revision
        self._posterior = _Posterior(state, revision, last_id)
        self._committed = revision
        self._kernel = kernel
        self._metrics = metrics
        self._on_advance = on_advance
        self._loop = asyncio.get_running_loop()
        self._checks: deque[_WaitingCheck] = deque()
        self._observations: deque[_CommittedObservation] = deque()
        self._draining = False
        self._refuted, self._refuted_at = False, 0
        self._failure: str | None = None

    @property
    def revision(self) -> int:
        """Number of observations the posterior rests on."""
        return self._posterior.revision

    @property
    def committed(self) -> int:
        """Number of observations that the log is known to hold; the posterior may not have taken them all up yet."""
        return self._committed

    @property
    def log_generation(self) -> int:
        """Generation of the log that `revision` counts in: the first, while nothing was ever reported."""
        return max(self.generation, 1)

    @property
    def failed(self) -> bool:
        """True if the posterior is lost; the log still has everything."""
        return self._failure is not None

    @property
    def refuted(self) -> bool:
        """True if the data refute the whole class, as the last check or the last look found."""
        return self._refuted

    @property
    def waiting(self) -> int:
        """Number of checks that wait for a kernel call."""
        return len(self._checks)

    async def bounds(
        self, prepared: Sequence[PreparedCheck], deadline: float | None = None, expires: float | None = None
    ) -> tuple[list[HarmBound | None], int]:
        """Bound prepared checks against one posterior; waits for its turn in a shared kernel call.

        Args:
            prepared: the checks.
            deadline: of `time.monotonic()`; a search that reaches it gives the best sound bound so far.
            expires: of `time.monotonic()`; a check whose turn comes later is dropped.

        :raises DeadlinePassed: if its turn came after `expires`.
        :raises LimitExceeded: OVERLOADED, if it waited too long for its turn.
        :raises NotServing: if the kernel thread has ended.
        :raises WorldUnavailable: if the posterior is lost.
        """
        self._require_usable()
        if all(p.row is None for p in prepared):
            return [None] * len(prepared), self.revision
        future: asyncio.Future[tuple[list[HarmBound | None], int]] = self._loop.create_future()
        self._checks.append(_WaitingCheck(prepared, deadline, expires, time.monotonic(), future))
        if not self._draining:
            # After whatever else the loop has ready: checks that arrived together share a kernel call.
            self._loop.call_soon(self._schedule)
        return await future

    def commit(
        self,
        row: Row,
        outcome: float,
        sequence: int,
        generation: int,
        observation_id: str,
        *,
        assumed: bool = False,
    ) -> bool:
        """Take up an observation that the log holds as number `sequence`; `settled` tells when checks rest on it.

        The one door for what was reported here and for what others wrote. What has been taken up already is
        not taken up again, and nothing is left out. `assumed` says that it was taken for harm.

        Returns:
            True if it was taken up; False if it has been already, or others lie between, or the log is of
            another generation: reading the log tells.
        """
        if self._committed == 0 and sequence == 1:
            self.generation = max(self.generation, generation)  # what a closed log holds is not taken up late
        if generation != self.generation or self._failure is not None:
            return False
        if sequence == self._committed and self.last_id not in (None, observation_id):
            self.fail(f"number {sequence} of the log is {observation_id!r}, and was {self.last_id!r} before")
        if sequence != self._committed + 1:
            return False
        self._committed, self.last_id = sequence, observation_id
        if assumed and self.first_assumed is None:
            self.first_assumed = sequence
        self._observations.append(_CommittedObservation(row, outcome, observation_id))
        self._schedule()
        return True

    async def settled(self, revision: int | None = None) -> None:
        """Wait until committed observations are applied: the first `revision` of them, or all up to now.

        :raises NotServing: if the kernel thread has ended.
        :raises WorldUnavailable: if the posterior is lost.
        """
        target = self._committed if revision is None else min(revision, self._committed)
        while self.revision < target:
            self._require_usable()
            waiter = self._loop.create_future()
            resolve = functools.partial(_resolve_from_thread, self._loop, waiter)
            self._kernel.submit(resolve, resolve)
            await waiter
        self._require_usable()

    def assumed(self, revision: int) -> bool:
        """True if bounds of a revision of the posterior rest on an outcome that was taken for harm."""
        return self.first_assumed is not None and revision >= self.first_assumed

    async def summary(self, detail: int = 0) -> tuple[PosteriorSummary, Guarantee]:
        """The posterior at a glance, and what bounds from it promise: nothing once it is refuted or failed.

        Args:
            detail: most hypotheses, or parameters, to tell of in full.

        :raises WorldUnavailable: if the posterior is lost.
        """
        self._require_usable()
        oracle, state, generation = self.judge.oracle, self._posterior.state, self.log_generation
        assumed = self.assumed(self._posterior.revision)

        def look() -> tuple[PosteriorSummary, Guarantee]:
            summary = oracle.summary(state)
            if detail:
                summary = replace(summary, detail=oracle.detail(state, detail))
            void = summary.refuted or oracle.failed(state)
            return summary, NO_GUARANTEE if void else self.judge.stated(oracle.guarantee, generation, assumed=assumed)

        seen = await self._aside(look)
        self._see(seen[0].revision, refuted=seen[0].refuted)
        return seen

    async def dump(self) -> tuple[int, str | None, dict[str, Any]]:
        """Revision, id of the last observation, and arrays of the present posterior, for a snapshot."""
        posterior = self._posterior
        arrays = await self._aside(lambda: self.judge.oracle.dump(posterior.state))
        return posterior.revision, posterior.last_id, arrays

    async def _aside(self, work: Callable[[], T]) -> T:
        """Run something that may take a while; what asks a program waits on that program's own thread."""
        if self.judge.policy.program is not None:
            return await self._kernel.run(work)
        return await asyncio.to_thread(work)

    def _require_usable(self) -> None:
        if self._kernel.ended:
            raise NotServing(ENDED)
        if self._failure is not None:
            raise WorldUnavailable(f"world {self.world_id!r} cannot answer: {self._failure}")

    def _schedule(self) -> None:
        if self._draining or not (self._checks or self._observations):
            return
        self._draining = True
        observations = list(self._observations)
        self._observations.clear()
        checks = self._take_checks()
        self._kernel.submit(
            lambda: self._drain(observations, checks),
            lambda: self._loop.call_soon_threadsafe(self._abandoned, observations, checks),
        )

    def _take_checks(self) -> list[_WaitingCheck]:
        """As many waiting checks as fit one kernel call; those whose caller is gone are dropped."""
        taken: list[_WaitingCheck] = []
        rows = 0
        while self._checks and (not taken or rows + len(self._checks[0].prepared) <= MAX_BATCH):
            check = self._checks.popleft()
            if not check.future.cancelled():
                taken.append(check)
                rows += len(check.prepared)
        return taken

    def _drain(self, observations: list[_CommittedObservation], checks: list[_WaitingCheck]) -> None:
        started = time.perf_counter()
        posterior, error = self._posterior, None
        answers: list[list[HarmBound | None]] = []
        checks, dropped = self._timely(checks, time.monotonic())
        try:
            posterior = self._observe(posterior, observations)
            answers = self._bound(posterior, checks)
        except Exception as caught:
            log.exception("kernel_failed", world=self.world_id, policy=self.judge.policy.name)
            self._metrics.kernel_failed()
            error = caught
        seconds = time.perf_counter() - started
        self._kernel.delay.called(seconds)
        self._metrics.kernel_call(seconds, len(checks))
        self._loop.call_soon_threadsafe(self._deliver, posterior, observations, checks, answers, error, dropped)

    def _timely(
        self, checks: list[_WaitingCheck], now: float
    ) -> tuple[list[_WaitingCheck], list[tuple[_WaitingCheck, GuardrailError]]]:
        """The checks whose turn has come, and those for which it comes too late, with why."""
        timely: list[_WaitingCheck] = []
        dropped: list[tuple[_WaitingCheck, GuardrailError]] = []
        for check in checks:
            waited = now - check.arrived
            why: GuardrailError | None = self._kernel.delay.refusal(waited, now)
            if check.expires is not None and check.expires <= now:
                why = DeadlinePassed("the caller's deadline passed before the check's turn came")
            if why is None:
                self._metrics.waited(waited)
                timely.append(check)
            else:
                dropped.append((check, why))
        return timely, dropped

    def _observe(self, posterior: _Posterior, observations: list[_CommittedObservation]) -> _Posterior:
        if not observations:
            return posterior
        rows = np.stack([o.row for o in observations])
        outcomes = np.array([o.outcome for o in observations])
        state = self.judge.oracle.observe(posterior.state, rows, outcomes)
        return _Posterior(state, posterior.revision + len(observations), observations[-1].observation_id)

    def _bound(self, posterior: _Posterior, checks: list[_WaitingCheck]) -> list[list[HarmBound | None]]:
        if not checks:
            return []
        if not self.judge.oracle.unhurried:
            # A search takes longer than starting it: each has the time that its own caller gives.
            return [self.judge.bounds(posterior.state, check.prepared, check.deadline) for check in checks]
        flat = iter(self.judge.bounds(posterior.state, [p for check in checks for p in check.prepared]))
        return [[next(flat) for _ in check.prepared] for check in checks]

    def _deliver(
        self,
        posterior: _Posterior,
        observations: list[_CommittedObservation],
        checks: list[_WaitingCheck],
        answers: list[list[HarmBound | None]],
        error: Exception | None,
        dropped: list[tuple[_WaitingCheck, GuardrailError]],
    ) -> None:
        self._draining = False
        for check, why in dropped:
            _settle(check.future, None, why)
        if error is not None and len(observations) > posterior.revision - self._posterior.revision:
            self.fail(f"the posterior could not take up an observation ({type(error).__name__})")
        advanced = posterior.revision > self._posterior.revision
        self._posterior = posterior
        refuted = _find_refuted(answers)
        if refuted is not None:
            self._see(posterior.revision, refuted=refuted)
        unavailable = None if error is None else WorldUnavailable("the harm bound could not be computed")
        for position, check in enumerate(checks):
            if unavailable is not None:
                _settle(check.future, None, unavailable)
            else:
                _settle(check.future, (answers[position], posterior.revision), None)
        if advanced:
            self._on_advance(self)
        self._schedule()

    def _see(self, revision: int, *, refuted: bool) -> None:
        """Take note of whether a posterior is refuted, unless a later one was looked at already."""
        if revision >= self._refuted_at:
            self._refuted, self._refuted_at = refuted, revision

    def _abandoned(self, observations: list[_CommittedObservation], checks: list[_WaitingCheck]) -> None:
        """The kernel thread has ended: nobody is left waiting for it."""
        self._draining = False
        for check in (*checks, *self._checks):
            _settle(check.future, None, NotServing(ENDED))
        self._checks.clear()
        if observations or self._observations:
            self.fail(ENDED)

    def fail(self, why: str) -> None:
        """Stop answering: the posterior is not what the log says."""
        if self._failure is not None:
            return
        log.error("world_failed", world=self.world_id, policy=self.judge.policy.name, why=why)
        self._failure = why
        for check in self._checks:
            _settle(check.future, None, WorldUnavailable(why))
        self._checks.clear()
        self._observations.clear()


def _find_refuted(answers: list[list[HarmBound | None]]) -> bool | None:
    """What checks found; None if there were none, or none that asked for a bound."""
    for bound in answers[-1] if answers else ():
        if bound is not None:
            return bound.failure is not None and bound.failure.code is ReasonCode.CLASS_REFUTED
    return None


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # a caller that is gone must not make the loop complain


def _resolve_from_thread(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(_settle, future, None, None)
