"""The thread that runs numerics, so that the event loop never waits for a kernel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class KernelThread:
    """Runs work in the order in which it was submitted."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="guardrail-kernel", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> None:
        """Queue work; it must handle its own errors. Returns at once."""
        self._work.put(work)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("kernel_work_failed")
