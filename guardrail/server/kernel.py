"""The thread that runs numerics, so that the event loop never waits for a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from guardrail.errors import NotServing
from guardrail.server.admission import ControlledDelay
from guardrail.server.stalls import Busy

log = structlog.get_logger()

T = TypeVar("T")

ENDED: Final = "the kernel thread has ended: restart the service"


@dataclass(eq=False, frozen=True, slots=True)
class _Work:
    do: Callable[[], object]
    abandon: Callable[[], object]


class KernelThread:
    """Runs work in the order in which it was submitted.

    Args:
        patience: seconds that a check may wait for its turn at most; see `ControlledDelay`.

    Attributes:
        delay: says which checks waited too long; for this thread only.
    """

    def __init__(self, patience: float) -> None:
        self.delay = ControlledDelay(patience)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # What is submitted and not done, in order: a thread that ends can say what it leaves behind.
        self._outstanding: dict[_Work, None] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._ended = False
        self._busy = Busy()
        self._thread = threading.Thread(target=self._run, name="guardrail-kernel", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """True if the thread has ended before `close`: nothing is computed any more."""
        return self._ended

    def submit(self, do: Callable[[], object], abandon: Callable[[], object]) -> None:
        """Queue work; it must handle its own errors. Returns at once. After `close` the work is done by the caller.

        Args:
            do: the work.
            abandon: called instead, on any thread, if the kernel thread has ended or ends before the work is done.
        """
        with self._lock:
            if not (self._closed or self._ended):
                work = _Work(do, abandon)
                self._outstanding[work] = None
                self._work.put(work)
                return
        (abandon if self._ended else do)()

    async def run(self, work: Callable[[], T]) -> T:
        """What some work returns, done in its turn.

        :raises NotServing: if the thread has ended, or ends before the work is done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def attempt() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - it goes to the caller
                error = caught
            loop.call_soon_threadsafe(settle, result, error)

        self.submit(attempt, lambda: loop.call_soon_threadsafe(settle, None, NotServing(ENDED)))
        return await future

    def trouble(self, patience: float) -> str | None:
        """Why no work gets done: the thread has ended, or is busy with one piece for more than `patience` seconds."""
        if not self._thread.is_alive():
            return ENDED
        if self._busy.seconds() > patience:
            return f"a kernel call has been running for more than {patience:g} s"
        return None

    def close(self) -> None:
        """Finish what is queued and stop."""
        with self._lock:
            self._closed = True
            self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work_off()
        except BaseException:
            # Only what is no Exception comes here: an exit, or a thread that was told to end.
            log.exception("kernel_thread_ended")
            self._abandon()

    def _work_off(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                with self._busy:
                    work.do()
            except Exception:
                log.exception("kernel_work_failed")
            del self._outstanding[work]

    def _abandon(self) -> None:
        with self._lock:
            self._ended = True
            left = list(self._outstanding)
            self._outstanding.clear()
        for work in left:
            with contextlib.suppress(RuntimeError):  # an event loop that is closed waits for nothing
                work.abandon()
