"""Work that many ask for at once and that each needs done anew: one run at a time, shared by those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class SharedRuns(Generic[K, T]):
    """Runs work for a key. Call it from the event loop only.

    Args:
        work: what a run for a key does; runs for one key never overlap.
    """

    def __init__(self, work: Callable[[K], Awaitable[T]]) -> None:
        self._work = work
        self._running: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def fresh(self, key: K) -> T:
        """What a run gives that starts after this call; all who ask before it starts share it.

        It goes on to its end even if the caller is gone meanwhile.

        :raises Exception: whatever the work raises.
        """
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._run(key))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what runs and what waits to run."""
        while tasks := {*self._running.values(), *self._next.values()}:
            await asyncio.wait(tasks)

    async def _run(self, key: K) -> T:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait({before})
        task = self._running[key] = self._next.pop(key)
        try:
            return await self._work(key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]


def _seen(task: asyncio.Task[T]) -> None:
    """All callers may be gone; the loop must not complain about an error that nobody asks for."""
    if not task.cancelled():
        task.exception()
