"""Resets worlds: closes a log in the store and lets the next generation answer, from the prior."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from guardrail.errors import StoreError
from guardrail.server.catching_up import Restored
from guardrail.store.base import WorldRecord

if TYPE_CHECKING:
    from guardrail.server.registry import Registry
    from guardrail.server.writer import Writer
    from guardrail.store.base import ResetRecord, Store

log = structlog.get_logger()


class Resetting:
    """Resets worlds. Call it from the event loop only.

    Reports need not stop meanwhile: the store puts each into the log that is the present one when it is written and
    says which that is, and a world takes up nothing of another log than its own.
    """

    def __init__(self, registry: Registry, writer: Writer, store: Store) -> None:
        self._registry = registry
        self._writer = writer
        self._store = store

    async def reset(self, policy: str, world_id: str, generation: int, reason: str, caller: str) -> ResetRecord:
        """Close the log of a generation; returns once checks here rest on the next one.

        It goes on to its end even if the caller is gone meanwhile. Repeated, it is answered as before.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises WorldNotFound: if the world never held an observation.
        :raises GenerationMismatch: if another generation is the present one.
        :raises StoreError: if the store failed; the log may have been closed all the same.
        """
        self._registry.policy(policy)
        work = self._reset(policy, world_id, generation, reason, caller)
        return await asyncio.shield(asyncio.create_task(work))

    async def _reset(self, policy: str, world_id: str, generation: int, reason: str, caller: str) -> ResetRecord:
        async with self._registry.changing:  # a reload restores worlds from logs that it has read before
            try:
                record = await self._writer.run(
                    lambda: self._store.reset_world(policy, world_id, generation, reason, caller)
                )
            except StoreError:
                self._registry.catch_up.soon(policy, world_id)  # it may have been closed all the same
                raise
            self._start(record)
            log.warning("world_reset", policy=policy, world=world_id, generation=generation, caller=caller, why=reason)
            await self._registry.catch_up.run(policy, world_id)
        return record

    def _start(self, record: ResetRecord) -> None:
        """Let the next generation answer from the prior; whatever its log may hold by now is taken up later."""
        loaded = self._registry.find_policy(record.policy)
        if loaded is None:
            return
        broken = loaded.broken.get(record.world)
        if broken is not None and broken.generation <= record.generation:
            del loaded.broken[record.world]
        present = loaded.worlds.get(record.world)
        if present is None or present.generation <= record.generation:
            head = WorldRecord(record.policy, record.world, 0, record.generation + 1)
            self._registry.put(loaded, record.world, Restored(loaded.judge.oracle.init(), 0, None, head))
