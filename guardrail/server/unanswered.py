"""Escalations that wait for a person, counted now and then."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from guardrail.approvals import EscalationState
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from guardrail.server.metrics import Metrics
    from guardrail.store.base import Store

log = structlog.get_logger()

COUNT_SECONDS: Final = 15.0
"""Between two counts."""
MAX_COUNTED: Final = 1_000
"""Most escalations that are counted, the newest ones."""
SHARE: Final = 0.02
"""Of the time, at most, in which the store is asked."""


class Unanswered:
    """Counts pending escalations by policy. Call it from the event loop only.

    Args:
        store: holds them.
        metrics: show how many there are, and since when the oldest one waits.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        self._found: dict[str, tuple[int, float]] = {}
        self._shown: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def pending(self, policy: str) -> int:
        """Number of a policy's escalations that may still be answered. Any thread may ask, as of the next one."""
        return self._found.get(policy, (0, 0.0))[0]

    def oldest(self, policy: str) -> float:
        """When the oldest of them was opened, seconds since the epoch; 0 if there is none."""
        return self._found.get(policy, (0, 0.0))[1]

    async def count(self) -> None:
        """Count once.

        :raises StoreError: if the store cannot be read.
        """
        now = time.time()
        pending = await asyncio.to_thread(
            partial(self._store.escalations, state=EscalationState.PENDING, now=now, limit=MAX_COUNTED)
        )
        found: dict[str, tuple[int, float]] = {}
        for one in pending:
            number, oldest = found.get(one.policy, (0, one.opened_at))
            found[one.policy] = (number + 1, min(oldest, one.opened_at))
        self._found = found
        for policy in found.keys() - self._shown:
            self._shown.add(policy)
            self._metrics.read("guardrail_escalations_pending", partial(self.pending, policy), policy)
            self._metrics.read("guardrail_oldest_pending_escalation_seconds", partial(self.oldest, policy), policy)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.count()
            except GuardrailError as error:
                log.warning("escalations_not_counted", why=str(error))
            except Exception:
                log.exception("escalations_not_counted")
            await asyncio.sleep(max(COUNT_SECONDS, (time.monotonic() - began) / SHARE))
