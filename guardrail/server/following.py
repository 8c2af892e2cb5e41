"""Follows what other replicas write, so that this one's posteriors stay level with the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from guardrail.domain import Reason, ReasonCode
from guardrail.errors import GuardrailError
from guardrail.server.catching_up import CatchUp, Key
from guardrail.server.registry import Registry
from guardrail.store.base import Changes, Feed

log = structlog.get_logger()

WAIT_SECONDS = 1.0
"""How long the feed is listened to before it is asked again: it says within that time whether it still is one."""
SILENCE_SECONDS = 5.0
"""After so long without a word from the feed this replica counts as behind, whatever holds it up."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Pauses between attempts to reach a lost feed again; each is twice the one before."""
AT_ONCE = 8
"""Worlds that are caught up with at the same time."""


class Following:
    """Brings every world that others write to up to its log. Call it from the event loop only.

    Args:
        registry: holds the worlds.
        feed: of the store; None if nobody else writes to it. It is closed in the end.
    """

    def __init__(self, registry: Registry, feed: Feed | None) -> None:
        self._registry = registry
        self._catch_up: CatchUp = registry.catch_up
        self._feed = feed
        self._thread = ThreadPoolExecutor(1, "guardrail-feed")
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._level_at = time.monotonic()
        self._lost = False

    async def start(self) -> None:
        """Begin; returns once all worlds are level with the log, or it cannot be followed for now."""
        if self._feed is not None:
            self._task = asyncio.create_task(self._follow(self._feed))
            await self._tried.wait()

    @property
    def shared(self) -> bool:
        """True if others may write to the store: then only the log itself tells how long it is."""
        return self._feed is not None

    @property
    def behind_since(self) -> float | None:
        """The `time.monotonic()` up to which posteriors are known to be level with the log; None while they are."""
        if self._feed is None:
            return None
        return self._level_at if self._lost or time.monotonic() - self._level_at > SILENCE_SECONDS else None

    def notices(self) -> tuple[Reason, ...]:
        """What a verdict that does not rest on a read of the log must say."""
        since = self.behind_since
        if since is None:
            return ()
        message = (
            f"other replicas have not been heard of for {time.monotonic() - since:.0f} s: the posterior may be older"
        )
        return (Reason(ReasonCode.POSTERIOR_BEHIND, message),)

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._feed is not None:
            await asyncio.to_thread(self._feed.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def _follow(self, feed: Feed) -> None:
        pause, look_at_all = FIRST_PAUSE_SECONDS, True
        while True:
            try:
                changes = await asyncio.get_running_loop().run_in_executor(self._thread, feed.next, WAIT_SECONDS)
                heard_at = time.monotonic()
                await self._take_up(changes, look_at_all or changes.missed)
            except Exception as error:
                if not isinstance(error, GuardrailError):
                    log.exception("following_failed")
                elif not self._lost:
                    log.warning("log_not_followed", why=str(error))
                self._lost = look_at_all = True
                self._tried.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if self._lost:
                log.info("log_followed_again", behind_seconds=round(heard_at - self._level_at, 3))
            pause, look_at_all = FIRST_PAUSE_SECONDS, False
            self._lost, self._level_at = False, heard_at
            self._tried.set()

    async def _take_up(self, changes: Changes, look_at_all: bool) -> None:
        if look_at_all:
            for policy in self._registry.policies():
                await self._catch_up.run_all(policy.name)
            return
        await self._worlds(key for key in changes.worlds if self._registry.find_policy(key[0]) is not None)

    async def _worlds(self, keys: Iterable[Key]) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(key: Key) -> None:
            async with free:
                await self._catch_up.attempt(*key)

        results = await asyncio.gather(*map(one, keys), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
