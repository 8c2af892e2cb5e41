"""Brings worlds up to their logs: whoever wrote them, the posterior is the fold of the log.

The log is read again wherever the numbers of commits do not follow on what a world holds: because other
replicas write to it, because the answer to a commit was lost, or because a posterior was lost. At most one
read a world runs at a time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from guardrail.awaiting import ASSUMED_BY
from guardrail.errors import GuardrailError, RevisionNotReached, StoreCorrupt, StoreError, WorldUnavailable
from guardrail.guard import Judge
from guardrail.oracles.base import Rows
from guardrail.rebuild import CHUNK, encode_records, restore
from guardrail.server.shared_runs import SharedRuns
from guardrail.store.base import ObservationRecord, Store, WorldRecord

if TYPE_CHECKING:
    from guardrail.server.registry import LoadedPolicy, Registry
    from guardrail.server.world import World

log = structlog.get_logger()

Key = tuple[str, str]
"""Policy name and world id."""
T = TypeVar("T")

READERS = 4
"""Threads that read logs: a database that hangs holds no other thread of the service."""
ATTEMPTS = 3
"""How often a world is looked for after its log was read: policies may be loaded again meanwhile."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a world cannot be built from its log.

    Attributes:
        why: for people.
        generation: of the log; another one is tried anew.
    """

    why: str
    generation: int


class CatchUp:
    """Catches worlds up with their logs. Call it from the event loop only."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._threads = ThreadPoolExecutor(READERS, "guardrail-log")
        self._runs: SharedRuns[Key, WorldRecord] = SharedRuns(self._catch_up)
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, policy: str, world_id: str) -> WorldRecord:
        """Take up what the log holds, by a read that starts after this call.

        Returns:
            The log that the world now rests on, or more of it.

        :raises StoreError: if the log cannot be read.
        :raises WorldUnavailable: if the posterior could not take up what the log holds.
        """
        return await self._runs.fresh((policy, world_id))

    async def run_all(self, policy: str) -> None:
        """Do the same for all worlds that are not level with their logs.

        :raises StoreError: if the logs cannot be read.
        """
        loaded = self._registry.find_policy(policy)
        known = {} if loaded is None else {name: _place(world) for name, world in loaded.worlds.items()}
        records = {record.world: record for record in await self._read(lambda: self._store.worlds(policy))}
        for world_id in sorted({*records, *known, *(() if loaded is None else loaded.broken)}):
            head = records.get(world_id)
            # A log that was longer, or that the database knows nothing of any more: it is not the one that was read.
            shrunk = head is None or (head.generation, head.observations) < known.get(world_id, (0, 0))
            if head is None or shrunk or not self._is_level((policy, world_id), head):
                await self.attempt(policy, world_id)

    async def attempt(self, policy: str, world_id: str) -> None:
        """`run`, where a world that cannot answer for itself alone stops nobody else.

        :raises StoreError: if the log cannot be read.
        """
        try:
            await self.run(policy, world_id)
        except Exception as error:
            if isinstance(error, StoreError) and not isinstance(error, StoreCorrupt):
                raise
            log.exception("world_not_caught_up", policy=policy, world=world_id)

    def soon(self, policy: str, world_id: str) -> None:
        """`run` in the background."""
        self._keep_running(self.attempt(policy, world_id))

    def all_soon(self, policy: str) -> None:
        """`run_all` in the background."""
        self._keep_running(self.run_all(policy))

    async def reach(self, policy: str, world_id: str, revision: int) -> None:
        """Wait until checks rest on at least so many observations; reads the log if the world here has fewer.

        :raises RevisionNotReached: if the log has fewer.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises StoreError: if the log cannot be read.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        for _ in range(ATTEMPTS):
            world = self._registry.world(self._registry.policy(policy), world_id)
            if world.committed >= revision:
                await world.settled(revision)
                return
            head = await self.run(policy, world_id)
            if head.observations < revision:
                held = f"the log of world {world_id!r} holds {head.observations} observations"
                raise RevisionNotReached(f"{held}, the request wants at least {revision}")
        raise WorldUnavailable(f"world {world_id!r} is being rebuilt; try again")

    async def settle(self, policy: str, world_id: str, revision: int, generation: int) -> None:
        """Wait until checks rest on what was acknowledged, unless its log was closed since or its policy is gone.

        :raises StoreError: if the log had to be read and cannot be.
        :raises WorldUnavailable: if the world's posterior is lost, or its log lost what was acknowledged.
        """
        for _ in range(ATTEMPTS):
            loaded = self._registry.find_policy(policy)
            if loaded is None:
                return  # there is nothing left to check
            world = self._registry.world(loaded, world_id)
            if world.generation > generation:
                return
            if world.generation == generation and world.committed >= revision:
                await world.settled(revision)
                return
            head = await self.run(policy, world_id)
            if head.generation > generation:
                return
        raise WorldUnavailable(f"world {world_id!r} lags behind its log and is being rebuilt; report again")

    async def close(self) -> None:
        """Wait for what is being read."""
        while self._background:
            await asyncio.wait(set(self._background))
        await self._runs.close()
        await asyncio.to_thread(self._threads.shutdown)

    def _keep_running(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _catch_up(self, key: Key) -> WorldRecord:
        loaded = self._registry.find_policy(key[0])
        world = None if loaded is None else loaded.worlds.get(key[1])
        known = (0, 0) if world is None else _place(world)
        try:
            head = await self._read(lambda: _head(self._store, key))
        except StoreCorrupt as error:
            if world is not None:
                world.fail(str(error))  # until its log can be read again
            raise
        if world is not None and (head.generation, head.observations) < known:
            world.fail(f"the log holds {head.observations} observations, the posterior rests on {known[1]}")
        while not self._is_level(key, head):
            head = await self._step(key, head)
        return head

    def _is_level(self, key: Key, head: WorldRecord) -> bool:
        """True if there is nothing to take up: the world rests on the whole log, or is known not to fit it."""
        loaded = self._registry.find_policy(key[0])
        if loaded is None:
            return True
        broken = loaded.broken.get(key[1])
        if broken is not None:
            return broken.generation == head.generation
        world = loaded.worlds.get(key[1])
        if world is None:
            return head.observations == 0 and head.generation == 1
        if world.failed:
            return False
        if world.generation == head.generation:
            return world.committed >= head.observations
        return world.generation > head.generation

    async def _step(self, key: Key, head: WorldRecord) -> WorldRecord:
        """Take up one chunk of the log, or rebuild the world. Returns the log to be level with."""
        loaded = self._registry.policy(key[0])
        world = loaded.worlds.get(key[1])
        try:
            if world is not None and not world.failed and world.committed and world.generation == head.generation:
                return await self._read_on(key, world, head)
            return await self._rebuild(key, loaded, head)
        except DoesNotFit as error:
            loaded.broken[key[1]] = Broken(str(error), head.generation)
            lost = loaded.worlds.pop(key[1], None)
            if lost is not None:
                lost.fail(str(error))
            return head

    async def _read_on(self, key: Key, world: World, head: WorldRecord) -> WorldRecord:
        # What was taken up last is read again: a log restored from a backup may have gone on otherwise from there.
        after = world.committed - 1
        records, encoded, found = await self._read(
            lambda: _chunk(world.judge, self._store, key, after, head.generation)
        )
        if found.generation != head.generation:
            return found  # what was read may be of either log
        if found.observations <= after + 1:
            world.fail(f"the log ends at {found.observations} and was longer before")
            return found
        for record, row, outcome in zip(records, *encoded, strict=True):
            world.commit(
                row,
                float(outcome),
                record.sequence,
                head.generation,
                record.observation_id,
                assumed=record.reporter == ASSUMED_BY,
            )
        await world.settled()  # no more than a chunk waits for the kernel
        return head

    async def _rebuild(self, key: Key, loaded: LoadedPolicy, head: WorldRecord) -> WorldRecord:
        try:
            made = await self._read(lambda: restored(loaded.judge, self._store, key))
        except (GuardrailError, DoesNotFit):
            raise
        except Exception as error:
            log.exception("world_not_rebuilt", policy=key[0], world=key[1])
            why = f"world {key[1]!r} could not be rebuilt ({type(error).__name__}); it is tried again"
            raise WorldUnavailable(why) from error
        loaded.broken.pop(key[1], None)
        # Meanwhile a report may have made the world, or taken it further.
        present = loaded.worlds.get(key[1])
        if present is None or present.failed or _place(present) < (made.head.generation, made.revision):
            loaded.worlds.pop(key[1], None)
            if made.revision or made.head.generation > 1:
                self._registry.put(loaded, key[1], made)
            log.info("world_rebuilt", policy=key[0], world=key[1], revision=made.revision)
        return head if made.head.generation == head.generation else made.head


class DoesNotFit(Exception):
    """The log holds what this revision of the policy cannot take up, or is damaged."""


def _place(world: World) -> tuple[int, int]:
    """Generation and length of the log as far as a world has taken it up."""
    return world.generation, world.committed


def _head(store: Store, key: Key) -> WorldRecord:
    return store.head(*key) or WorldRecord(*key, 0)


def _chunk(
    judge: Judge, store: Store, key: Key, after: int, generation: int
) -> tuple[list[ObservationRecord], tuple[Rows, npt.NDArray[np.float64]], WorldRecord]:
    """The next observations of a log, encoded, and the log's head as it was afterwards."""
    try:
        records = list(itertools.islice(store.observations(*key, after=after, generation=generation), CHUNK))
        found = _head(store, key)
        if found.generation != generation:
            records = []
        return records, encode_records(judge, records), found
    except (WorldUnavailable, StoreCorrupt) as error:
        raise DoesNotFit(str(error)) from error


@dataclass(frozen=True, slots=True)
class Restored:
    """A posterior built from a log.

    Attributes:
        state: of the oracle.
        revision: number of observations it rests on.
        last_id: id of the last of them; None if there is none.
        head: of the log that they are from, as it was before it was read.
        first_assumed: the first observation of that log that was taken for harm; None if there is none.
    """

    state: Any
    revision: int
    last_id: str | None
    head: WorldRecord
    first_assumed: int | None = None


def restored(judge: Judge, store: Store, key: Key) -> Restored:
    """A world's posterior by its log.

    :raises DoesNotFit: if the policy cannot take up the log, or it is damaged.
    :raises StoreError: if the log cannot be read.
    """
    try:
        head = _head(store, key)
        generation = head.generation  # the world may be reset meanwhile
        state, revision = restore(judge, store, key[1], generation=generation)
        after = store.observations(*key, after=revision - 1, generation=generation)
        last = next(after, None) if revision else None
        first_assumed = store.first_assumed(*key, generation)
        return Restored(state, revision, None if last is None else last.observation_id, head, first_assumed)
    except (WorldUnavailable, StoreCorrupt) as error:
        raise DoesNotFit(str(error)) from error


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except GuardrailError as error:
        log.warning("log_not_read", why=str(error))
