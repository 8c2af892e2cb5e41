"""The thread that runs numerics, so that the event loop never waits for a kernel."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from guardrail.server.stalls import Busy

log = structlog.get_logger()

T = TypeVar("T")


class KernelThread:
    """Runs work in the order in which it was submitted."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._busy = Busy()
        self._thread = threading.Thread(target=self._run, name="guardrail-kernel", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Queue work; it must handle its own errors. Returns at once. After `close` the work is done by the caller."""
        with self._lock:
            if not self._closed:
                self._work.put(work)
                return
        work()

    async def run(self, work: Callable[[], T]) -> T:
        """What some work returns, done in its turn."""
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

        self.submit(attempt)
        return await future

    def trouble(self, patience: float) -> str | None:
        """Why no work gets done: the thread has ended, or is busy with one piece for more than `patience` seconds."""
        if not self._thread.is_alive():
            return "the kernel thread has ended"
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
        while (work := self._work.get()) is not None:
            try:
                with self._busy:
                    work()
            except Exception:
                log.exception("kernel_work_failed")
