"""Who watches decisions as they are made. A watcher that reads too slowly is cut off, nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from guardrail.errors import LimitExceeded
from guardrail.store.decisions import LoggedDecision

QUEUE_LIMIT = 1_024


@dataclass(eq=False, slots=True)
class _Watcher:
    policy: str
    world: str
    queue: asyncio.Queue[LoggedDecision | None] = field(default_factory=lambda: asyncio.Queue(QUEUE_LIMIT + 1))
    lost: bool = False


class Watchers:
    """Fans decisions out to subscribers. Call it from the event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._watchers: set[_Watcher] = set()

    @property
    def count(self) -> int:
        """Number of subscribers."""
        return len(self._watchers)

    def publish(self, decision: LoggedDecision) -> None:
        """Hand a decision to everyone whose filter it matches. Returns at once."""
        for watcher in self._watchers:
            if watcher.policy not in ("", decision.verdict.policy) or watcher.world not in ("", decision.verdict.world):
                continue
            if watcher.queue.qsize() >= QUEUE_LIMIT:
                watcher.lost = True
            else:
                watcher.queue.put_nowait(decision)

    async def subscribe(self, policy: str, world: str) -> AsyncIterator[LoggedDecision]:
        """Decisions from now on; empty strings match everything.

        :raises LimitExceeded: if too many watch already, or the caller reads too slowly.
        """
        if len(self._watchers) >= self._limit:
            raise LimitExceeded(f"{self._limit} callers watch decisions already")
        watcher = _Watcher(policy, world)
        self._watchers.add(watcher)
        try:
            while (decision := await watcher.queue.get()) is not None:
                yield decision
                if watcher.lost:
                    raise LimitExceeded(f"this watcher fell {QUEUE_LIMIT} decisions behind")
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End every subscription."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)
