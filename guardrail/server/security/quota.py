"""How many worlds a caller may bring into being."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from guardrail.errors import LimitExceeded
from guardrail.server.security.grants import Caller
from guardrail.store.base import Store

T = TypeVar("T")


class WorldQuota:
    """Counts the worlds that each caller made, in the store: restarts and other replicas change nothing.

    A caller's new worlds are made one after the other, so that none slips by while another is counted. Replicas
    do not wait for each other: those that are asked at the same moment may let one more through each.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def make(self, caller: Caller, policy: str, world: str, report: Callable[[], Awaitable[T]]) -> T:
        """Take up reports on a world that may be new. It goes on to its end even if the caller is gone meanwhile.

        :raises LimitExceeded: WORLD_QUOTA if the world is new, and the caller has made as many as it may.
        """
        return await asyncio.shield(asyncio.create_task(self._make(caller, policy, world, report)))

    async def _make(self, caller: Caller, policy: str, world: str, report: Callable[[], Awaitable[T]]) -> T:
        lock = self._locks.setdefault(caller.name, asyncio.Lock())
        async with lock:
            head = await asyncio.to_thread(self._store.head, policy, world)
            # A check has the store hear of a world, and makes none.
            if head is None or (head.generation == 1 and not head.observations):
                made = await asyncio.to_thread(self._store.worlds_created_by, caller.name)
                if caller.max_worlds is not None and made >= caller.max_worlds:
                    raise LimitExceeded(
                        f"{caller.name} may bring {caller.max_worlds} worlds into being and has made {made}; it may go "
                        "on reporting on worlds that exist",
                        "WORLD_QUOTA",
                    )
            return await report()
