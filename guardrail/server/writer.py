"""The one thread that writes to the store.

Observations are committed in groups before anybody is told of them. Decisions are logged off
the hot path: they wait in a bounded buffer, and nothing leaves the buffer before it is durable.
While decisions cannot be written, or too many wait, `require_log` refuses further checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from guardrail.errors import DecisionLogUnavailable, GuardrailError, StoreCorrupt, StoreError
from guardrail.server import tracing
from guardrail.server.admission import overloaded
from guardrail.server.decision_lines import tell
from guardrail.server.metrics import Metrics
from guardrail.server.stalls import Busy
from guardrail.store.base import Appended, NewObservation, Store
from guardrail.store.decisions import LoggedDecision

log = structlog.get_logger()

GROUP_LIMIT = 1_000
"""Most observations, and most decisions, in one transaction."""
GROUP_BYTES = 8 * 2**20
"""Of the requests whose decisions are written in one transaction, unless a single one has more."""
FLUSH_SECONDS = 0.1
"""How long a decision waits for company before it is written."""
RETRY_SECONDS = 0.5
"""Pause between attempts while decisions cannot be written, or the store cannot be reached."""
PROBE_SECONDS = 5.0
"""After so long without work the store is asked whether it is there."""

ENDED = "the thread that writes has ended: restart the service"

T = TypeVar("T")


@dataclass(slots=True)
class _Append:
    observations: Sequence[NewObservation]
    on_commit: Callable[[list[Appended]], None]
    future: asyncio.Future[list[Appended]]


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Queues:
    appends: deque[_Append] = field(default_factory=deque)
    jobs: deque[_Job] = field(default_factory=deque)
    decisions: deque[LoggedDecision] = field(default_factory=deque)
    sizes: deque[int] = field(default_factory=deque)


class Writer:
    """Serialises every write. Call it from the event loop only."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        max_waiting_reports: int,
        max_unwritten_decisions: int,
        max_unwritten_bytes: int = 64 * 2**20,
        log_decisions: bool = False,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._max_reports = max_waiting_reports
        self._max_decisions = max_unwritten_decisions
        self._log_decisions = log_decisions
        self._max_bytes = max_unwritten_bytes
        # Of decisions that were queued, and of those that were written: each counted by one thread.
        self._queued_bytes, self._written_bytes = 0, 0
        self._loop = asyncio.get_running_loop()
        self._queues = _Queues()
        self._taken = _Queues()
        self._waiting_reports = 0
        self._log_failure: str | None = None
        self._store_failure: str | None = None
        self._busy = Busy()
        self._wake = threading.Condition()
        self._urgent = False
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="guardrail-writer", daemon=True)
        self._thread.start()

    @property
    def log_failure(self) -> str | None:
        """Why decisions cannot be written; None if they can."""
        return self._log_failure

    def store_trouble(self, patience: float) -> str | None:
        """Why the store cannot be used: its last answer was an error, or it has not answered for `patience` seconds."""
        if self._store_failure is not None:
            return self._store_failure
        if not self._thread.is_alive() and not self._closing:
            return "the thread that writes has ended"
        if self._busy.seconds() > patience:
            return f"the store has not answered for more than {patience:g} s"
        return None

    @property
    def waiting_reports(self) -> int:
        """Number of reports that wait for their commit."""
        return self._waiting_reports

    @property
    def unwritten_decisions(self) -> int:
        """Number of decisions that are not durable yet."""
        return len(self._queues.decisions)

    def append(
        self, observations: Sequence[NewObservation], on_commit: Callable[[list[Appended]], None]
    ) -> asyncio.Future[list[Appended]]:
        """Commit observations durably and in order; the future tells when, or fails with StoreError.

        Args:
            observations: at most GROUP_LIMIT of them.
            on_commit: called on the event loop, in commit order, even if the caller is gone by then.

        :raises LimitExceeded: OVERLOADED, if too many reports wait already.
        :raises StoreError: if the thread that writes has ended.
        """
        if self._waiting_reports + len(observations) > self._max_reports:
            raise overloaded(f"{self._waiting_reports} reports wait to be written already", RETRY_SECONDS)
        future: asyncio.Future[list[Appended]] = self._loop.create_future()
        with self._wake:
            self._require_alive()
            self._queues.appends.append(_Append(observations, on_commit, future))
            self._rouse()
        self._waiting_reports += len(observations)
        return future

    async def run(self, work: Callable[[], T]) -> T:
        """Run other store work on the writer thread.

        :raises StoreError: if the thread has ended.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            self._require_alive()
            self._queues.jobs.append(_Job(work, future))
            self._rouse()
        with tracing.part("guardrail.store.transaction"):
            return await asyncio.shield(future)

    def require_log(self) -> None:
        """Refuse a check whose decision could not be logged.

        :raises DecisionLogUnavailable: if decisions cannot be written, or too many wait.
        """
        if self._log_failure is not None:
            raise DecisionLogUnavailable(f"decisions cannot be logged: {self._log_failure}")
        if len(self._queues.decisions) >= self._max_decisions:
            raise DecisionLogUnavailable(f"{len(self._queues.decisions)} decisions wait to be written already")
        waiting = self._queued_bytes - self._written_bytes
        if waiting >= self._max_bytes:
            raise DecisionLogUnavailable(f"decisions about {waiting} bytes of requests wait to be written already")

    def log_decision(self, decision: LoggedDecision, size: int = 0) -> None:
        """Queue a decision for the log. It stays queued until it is durable.

        Args:
            decision: the decision.
            size: bytes of what is kept of the request; they count until it is durable.
        """
        self._queued_bytes += size
        self._queues.sizes.append(size)  # first: whoever sees the decision finds its size
        self._queues.decisions.append(decision)
        waiting = len(self._queues.decisions)
        if waiting == 1:
            self._loop.call_later(FLUSH_SECONDS, self._rouse_from_loop)
        elif waiting == GROUP_LIMIT:
            self._rouse_from_loop()

    def unwritten(self, decision_id: str) -> LoggedDecision | None:
        """A decision that waits to be written; None if it does not wait."""
        return next((d for d in tuple(self._queues.decisions) if d.verdict.decision_id == decision_id), None)

    def waiting_decisions(self) -> list[LoggedDecision]:
        """Decisions that wait to be written, newest first."""
        return list(reversed(tuple(self._queues.decisions)))

    def close(self) -> None:
        """Write what is queued and stop. Blocks."""
        with self._wake:
            self._closing = True
            self._rouse()
        self._thread.join()
        if self._ended:
            self._write_all_decisions()

    def _require_alive(self) -> None:
        if self._ended:
            raise StoreError(ENDED)

    def _rouse_from_loop(self) -> None:
        with self._wake:
            self._rouse()

    def _rouse(self) -> None:
        self._urgent = True
        self._wake.notify()

    def _run(self) -> None:
        try:
            self._work_off()
        except BaseException:
            # Only what is no Exception comes here: an exit, or a thread that was told to end.
            log.exception("writer_thread_ended")
            self._abandon()

    def _abandon(self) -> None:
        """Nobody is left waiting for a thread that has ended. What it was at may have been written."""
        with self._wake:
            self._ended = True
            self._log_failure = self._store_failure = ENDED
            appends = [*self._taken.appends, *self._queues.appends]
            jobs = [*self._taken.jobs, *self._queues.jobs]
            for queues in (self._taken, self._queues):
                queues.appends.clear()
                queues.jobs.clear()
        with contextlib.suppress(RuntimeError):  # an event loop that is closed waits for nothing
            self._loop.call_soon_threadsafe(self._report_failure, appends, StoreError(ENDED))
            for job in jobs:
                self._loop.call_soon_threadsafe(_settle, job.future, None, StoreError(ENDED))

    def _work_off(self) -> None:
        closing = False
        while not closing:
            with self._wake:
                idle = not self._urgent and not self._wake.wait(self._pause())
                self._urgent = False
                closing = self._closing
                self._take()
            with self._busy:
                self._commit(list(self._taken.appends))
                self._taken.appends.clear()
                while self._taken.jobs:
                    self._do(self._taken.jobs[0])
                    self._taken.jobs.popleft()
                while self._queues.decisions and self._write_decisions() and not self._urgent:
                    pass
                if idle and not self._queues.decisions:
                    self._probe()
        self._write_all_decisions()

    def _write_all_decisions(self) -> None:
        while self._queues.decisions and self._write_decisions():
            pass

    def _pause(self) -> float:
        """Seconds to wait for work. While the store fails it is tried again by itself: nobody may ask any more."""
        return PROBE_SECONDS if self._log_failure is None and self._store_failure is None else RETRY_SECONDS

    def _probe(self) -> None:
        try:
            self._store.head("", "")
        except Exception as error:  # noqa: BLE001  (logged there)
            self._store_failed(error)
            return
        self._store_answered()

    def _store_failed(self, error: Exception) -> None:
        if self._store_failure is None:
            log.error("store_failed", exc_info=None if isinstance(error, GuardrailError) else error, why=str(error))
        self._store_failure = str(error) if isinstance(error, GuardrailError) else type(error).__name__

    def _store_answered(self) -> None:
        if self._store_failure is not None:
            log.info("store_recovered")
        self._store_failure = None

    def _take(self) -> None:
        waiting, taken = self._queues.appends, self._taken.appends
        size = 0
        while waiting and (not taken or size + len(waiting[0].observations) <= GROUP_LIMIT):
            size += len(waiting[0].observations)
            taken.append(waiting.popleft())
        self._urgent = bool(waiting)
        self._taken.jobs.extend(self._queues.jobs)
        self._queues.jobs.clear()

    def _commit(self, appends: list[_Append]) -> None:
        if not appends:
            return
        try:
            results = self._store.append_observations([o for a in appends for o in a.observations])
        except Exception as error:
            if isinstance(error, StoreCorrupt) and len(appends) > 1:
                # Nothing was written. The log of one world is damaged: the others' reports are not to share its fate.
                for append in appends:
                    self._commit([append])
                return
            self._metrics.report_commit_failed()
            log.exception("observations_not_written", observations=sum(len(a.observations) for a in appends))
            failure = error if isinstance(error, GuardrailError) else StoreError("the observation log failed")
            self._store_failed(error)
            self._loop.call_soon_threadsafe(self._report_failure, appends, failure)
            return
        self._store_answered()
        self._loop.call_soon_threadsafe(self._report_commit, appends, results)

    def _report_failure(self, appends: list[_Append], failure: Exception) -> None:
        for append in appends:
            self._waiting_reports -= len(append.observations)
            if not append.future.done():
                append.future.set_exception(failure)
                append.future.exception()  # a caller that is gone must not make the loop complain

    def _report_commit(self, appends: list[_Append], results: list[Appended]) -> None:
        start = 0
        for append in appends:
            own = results[start : start + len(append.observations)]
            start += len(append.observations)
            self._waiting_reports -= len(append.observations)
            append.on_commit(own)
            if not append.future.done():
                append.future.set_result(own)

    def _do(self, job: _Job) -> None:
        try:
            result, error = job.work(), None
        except Exception as caught:  # noqa: BLE001  (handed to the caller)
            result, error = None, caught
        self._loop.call_soon_threadsafe(_settle, job.future, result, error)

    def _next_decisions(self) -> list[LoggedDecision]:
        batch: list[LoggedDecision] = []
        size = 0
        for place in range(min(GROUP_LIMIT, len(self._queues.decisions))):
            size += self._queues.sizes[place]
            if batch and size > GROUP_BYTES:
                break
            batch.append(self._queues.decisions[place])
        return batch

    def _write_decisions(self) -> bool:
        batch = self._next_decisions()
        if not batch:
            return True
        try:
            self._store.append_decisions([d.to_record() for d in batch])
        except Exception as error:
            self._metrics.decision_write_failed()
            if isinstance(error, StoreCorrupt):
                self._metrics.decision_log_damaged()
            if self._log_failure is None:
                log.exception("decision_log_failed", waiting=len(self._queues.decisions))
            self._log_failure = str(error) if isinstance(error, GuardrailError) else type(error).__name__
            return False
        for _ in batch:
            self._queues.decisions.popleft()
            self._written_bytes += self._queues.sizes.popleft()
        self._metrics.decisions_written(len(batch))
        if self._log_failure is not None:
            log.info("decision_log_recovered")
        self._log_failure = None
        self._store_answered()
        if self._log_decisions:
            tell(batch)
        return True


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
