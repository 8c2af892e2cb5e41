"""Accepts that were kept as awaited and that nobody was told of in the end: their outcomes are awaited no longer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Self

import structlog

from guardrail.domain import Decision, Verdict
from guardrail.errors import DecisionNotFound, GuardrailError, ReportConflict, StoreCorrupt

if TYPE_CHECKING:
    from types import TracebackType

    from guardrail.server.writer import Writer
    from guardrail.store.base import Store

log = structlog.get_logger()

MAX_WITHDRAWN: Final = 10_000
"""Most accepts that nobody was told of and whose withdrawal is tried again; what is left out stays awaited."""


class Kept:
    """The verdicts of one question while its accepts are kept as awaited. Used as a block: accepts that are not told by
    its end are not awaited any more.

    Attributes:
        verdicts: as they stand; accepts of a world in which an outcome is overdue have become something else.
    """

    def __init__(self, verdicts: Sequence[Verdict], withdraw: Callable[[Sequence[str]], None]) -> None:
        self.verdicts = list(verdicts)
        self._withdraw = withdraw
        self._ids: dict[str, None] = {}

    @property
    def waited(self) -> bool:
        """True if the store was asked, so that other things may have happened meanwhile."""
        return bool(self._ids)

    def add(self, decision_id: str) -> None:
        """Take note that an accept is kept."""
        self._ids[decision_id] = None

    def told(self, verdicts: Sequence[Verdict]) -> None:
        """These are the verdicts that the caller gets."""
        for verdict in verdicts:
            if verdict.found is Decision.ACCEPT:
                self._ids.pop(verdict.decision_id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._ids:
            self._withdraw(tuple(self._ids))


class Withdrawals:
    """Withdraws them, again and again until the store has it. Call it from the event loop only."""

    def __init__(self, writer: Writer, store: Store, clock: Callable[[], float]) -> None:
        self._writer, self._store, self._clock = writer, store, clock
        self._withdrawn: dict[str, tuple[str, str]] = {}
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def add(self, policy: str, world: str, decision_ids: Sequence[str]) -> None:
        """Await outcomes no longer that nobody was told to bring about. Returns at once."""
        for decision_id in decision_ids:
            if len(self._withdrawn) < MAX_WITHDRAWN:
                self._withdrawn[decision_id] = (policy, world)
        # While the store is away the sweeps try, not each check that it refuses.
        if not self._failing and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self.release())

    async def release(self) -> None:
        """Withdraw what there is, until the store fails."""
        async with self._lock:
            tried: set[str] = set()
            while rest := [decision_id for decision_id in self._withdrawn if decision_id not in tried]:
                tried.update(rest)
                for decision_id in rest:
                    if not await self._release(decision_id):
                        return  # the next transaction would fail, too

    async def close(self) -> None:
        """Wait for what is being withdrawn."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def _release(self, decision_id: str) -> bool:
        """Withdraw one; False if the store does not answer."""
        key, now = self._withdrawn[decision_id], self._clock()
        try:
            await self._writer.run(functools.partial(self._store.release_outcomes, *key, [decision_id], now))
        except (DecisionNotFound, ReportConflict):
            pass  # it was never written; or somebody knew of it after all
        except GuardrailError as error:
            if isinstance(error, StoreCorrupt):
                log.error("awaited_outcome_not_withdrawn", decision_id=decision_id, why=str(error))
                return True
            if not self._failing:
                log.warning("awaited_outcomes_not_withdrawn", count=len(self._withdrawn), why=str(error))
            self._failing = True
            return False
        self._failing = False
        del self._withdrawn[decision_id]
        return True
