"""Loaded policies and their worlds: start, look-up, reload."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from guardrail.errors import (
    GuardrailError,
    LimitExceeded,
    NotServing,
    PolicyError,
    PolicyNotFound,
    Problem,
    WorldUnavailable,
)
from guardrail.guard import Judge
from guardrail.oracles.build import close
from guardrail.oracles.placement import DeviceKind
from guardrail.policy import Policy, load_policy
from guardrail.rebuild import make_snapshot
from guardrail.server.catching_up import Broken, CatchUp, DoesNotFit, Restored, restored
from guardrail.server.kernel import KernelThread
from guardrail.server.metrics import Metrics
from guardrail.server.notices import Notices
from guardrail.server.settings import ServerSettings
from guardrail.server.world import World
from guardrail.server.writer import Writer
from guardrail.store.base import Store

log = structlog.get_logger()


@dataclass(slots=True)
class LoadedPolicy:
    """A compiled policy with the worlds that live under it.

    Attributes:
        judge: the policy and its oracle.
        kernel: the thread on which its worlds compute; of its own if its hypotheses are a program.
        prior: answers checks of worlds that hold no observation yet.
        worlds: world id -> world that holds observations.
        broken: world id -> why its log does not fit the policy.
        reporting: cleared while worlds are rebuilt; reports wait for it.
        in_flight: reports, and outcomes that are taken for harm, between validation and commit.
    """

    judge: Judge
    kernel: KernelThread
    prior: World
    worlds: dict[str, World] = field(default_factory=dict)
    broken: dict[str, Broken] = field(default_factory=dict)
    reporting: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: set[asyncio.Future[Any]] = field(default_factory=set)

    def ailing(self) -> bool:
        """True if a world cannot answer."""
        return bool(self.broken) or any(world.failed for world in self.worlds.values())


class Registry:
    """All loaded policies. Call it from the event loop only.

    Attributes:
        catch_up: brings worlds up to their logs.
        listeners: are told of each world that has taken up outcomes, or stands in the place of another one.
    """

    def __init__(
        self, settings: ServerSettings, store: Store, writer: Writer, kernel: KernelThread, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self.notices = Notices()
        self._store = store
        self._writer = writer
        self._kernel = kernel
        self._policies: dict[str, LoadedPolicy] = {}
        self._loaded = False
        self._reload_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self.catch_up = CatchUp(store, self)
        self.listeners: list[Callable[[World], None]] = []

    async def load(self) -> list[str]:
        """Read the policy files (again); all of them are loaded, or none. Worlds that failed are rebuilt.

        It goes on to its end even if the caller is gone meanwhile.

        Returns:
            Names of the policies whose revision is new or gone.

        :raises PolicyError: if any file is wrong, missing or names a policy twice; what was loaded stays.
        :raises StoreError: if the store fails; what was loaded stays.
        """
        return await asyncio.shield(asyncio.create_task(self._load()))

    async def _load(self) -> list[str]:
        if not self._loaded:
            return await self._load_all()
        try:
            changed = await self._load_all()
        except Exception as error:
            self._metrics.reloaded(success=False)
            self.notices.reload_failed(error)
            raise
        self._metrics.reloaded(success=True)
        self.notices.reload_succeeded()
        return changed

    async def _load_all(self) -> list[str]:
        async with self._reload_lock:
            policies = await asyncio.to_thread(read_policies, self._settings.policies)
            fresh = {p.name: p for p in policies}
            changed = [n for n, p in fresh.items() if not self._has_revision(n, p.revision)]
            gone = [n for n in self._policies if n not in fresh]
            device = self._settings.device
            judges = {name: await asyncio.to_thread(_compile, fresh[name], device) for name in changed}
            ailing = [n for n in self._policies if n not in gone and self._policies[n].ailing()]
            judges |= {name: self._policies[name].judge for name in ailing if name not in judges}
            paused = [self._policies[name] for name in [*judges, *gone] if name in self._policies]
            try:
                for loaded in paused:
                    await self._quiesce(loaded)
                prepared = {name: await self._prepare(judge) for name, judge in judges.items()}
                left = [self._policies[name] for name in [*prepared, *gone] if name in self._policies]
                self._policies |= prepared
                for name in gone:
                    del self._policies[name]
                kept = [loaded.judge for loaded in self._policies.values()]
                for loaded in left:
                    if loaded.judge not in kept:
                        self._keep_running(self._release(loaded))
            finally:
                for loaded in paused:
                    loaded.reporting.set()  # reports that waited look their policy up again
            self._loaded = True
            for loaded in prepared.values():
                for world in loaded.worlds.values():
                    self._tell(world)
            for name in prepared:
                self.catch_up.all_soon(name)  # other replicas may have written while its worlds were restored
            return sorted([*changed, *gone])

    @property
    def changing(self) -> asyncio.Lock:
        """Held while policies are loaded or a world is reset."""
        return self._reload_lock

    @property
    def loaded(self) -> bool:
        """True once the policies are loaded."""
        return self._loaded

    def policy(self, name: str) -> LoadedPolicy:
        """A loaded policy.

        :raises NotServing: if the policies are not loaded yet.
        :raises PolicyNotFound: if there is none of that name.
        """
        if not self._loaded:
            raise NotServing("the service is starting: policies are compiled and worlds restored")
        try:
            return self._policies[name]
        except KeyError:
            # Which ones are is not for every caller to know: ListPolicies tells.
            raise PolicyNotFound(f"no policy {name!r} is loaded") from None

    def find_policy(self, name: str) -> LoadedPolicy | None:
        """A loaded policy; None if there is none of that name."""
        return self._policies.get(name)

    def policies(self) -> list[Policy]:
        """The loaded policies, sorted by name."""
        return [self._policies[name].judge.policy for name in sorted(self._policies)]

    def waiting_checks(self) -> int:
        """Number of checks that wait for a kernel call. Any thread may ask."""
        loaded = list(self._policies.values())
        return sum(world.waiting for one in loaded for world in [one.prior, *list(one.worlds.values())])

    def worlds_in(self, state: str) -> int:
        """Number of worlds in one of `metrics.WORLD_STATES`. Any thread may ask."""
        loaded = list(self._policies.values())
        if state == "broken":
            return sum(len(one.broken) for one in loaded)
        return sum(_state(world) == state for one in loaded for world in list(one.worlds.values()))

    def world(self, loaded: LoadedPolicy, world_id: str) -> World:
        """The world that answers checks for an id; one that was never reported on stands at the prior.

        :raises WorldUnavailable: if its log does not fit the policy.
        """
        return self.find_world(loaded, world_id) or loaded.prior

    def find_world(self, loaded: LoadedPolicy, world_id: str) -> World | None:
        """A world that holds observations or was reset; None if there is none of that id.

        :raises WorldUnavailable: if its log does not fit the policy.
        """
        if world_id in loaded.broken:
            raise WorldUnavailable(loaded.broken[world_id].why)
        return loaded.worlds.get(world_id)

    def world_to_report(self, loaded: LoadedPolicy, world_id: str) -> World:
        """The world that takes up reports for an id; a new one is kept by `keep`, once it holds an observation.

        :raises WorldUnavailable: if its log does not fit the policy.
        :raises LimitExceeded: if there are too many worlds already.
        """
        world = self.find_world(loaded, world_id)
        if world is not None:
            return world
        if sum(len(p.worlds) for p in self._policies.values()) >= self._settings.max_worlds:
            raise LimitExceeded(f"{self._settings.max_worlds} worlds are in use already")
        return self._make(loaded.judge, loaded.kernel, world_id, loaded.judge.oracle.init(), 0)

    def keep(self, loaded: LoadedPolicy, world: World) -> World:
        """The world under its id: this one, or the one that another report made meanwhile."""
        return loaded.worlds.setdefault(world.world_id, world)

    def put(self, loaded: LoadedPolicy, world_id: str, made: Restored) -> None:
        """Let a posterior that was built from the log answer for a world."""
        world = loaded.worlds[world_id] = self._make(
            loaded.judge,
            loaded.kernel,
            world_id,
            made.state,
            made.revision,
            generation=made.head.generation,
            last_id=made.last_id,
            first_assumed=made.first_assumed,
        )
        self._tell(world)

    async def close(self) -> None:
        """Save what would otherwise be replayed at the next start, as long as the store answers."""
        await self.catch_up.close()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        answers = True
        for loaded in self._policies.values():
            for world in loaded.worlds.values():
                if answers and world.revision > world.snapshot_revision:
                    answers = await self._snapshot(world)
            await self._release(loaded)

    def _has_revision(self, name: str, revision: str) -> bool:
        loaded = self._policies.get(name)
        return loaded is not None and loaded.judge.policy.revision == revision

    async def _prepare(self, judge: Judge) -> LoadedPolicy:
        """Everything that a policy needs to serve; nothing of it is visible yet."""
        policy = judge.policy
        await self._writer.run(lambda: self._store.record_policy(policy.name, policy.revision, policy.document))
        kernel = self._kernel_of(judge)
        loaded = LoadedPolicy(judge, kernel, self._make(judge, kernel, "", judge.oracle.init(), 0))
        for record in await asyncio.to_thread(self._store.worlds, policy.name):
            try:
                key = (policy.name, record.world)
                made = await asyncio.to_thread(restored, judge, self._store, key)
            except DoesNotFit as error:
                log.error("world_not_restored", policy=policy.name, world=record.world, why=str(error))
                loaded.broken[record.world] = Broken(str(error), record.generation)
                continue
            self.put(loaded, record.world, made)
        loaded.reporting.set()
        log.info("policy_loaded", policy=policy.name, revision=policy.revision, worlds=len(loaded.worlds))
        return loaded

    def _kernel_of(self, judge: Judge) -> KernelThread:
        """The thread for a judge's worlds. A program may hang: it gets one of its own, and no other world waits."""
        if judge.policy.program is None:
            return self._kernel
        present = self._policies.get(judge.policy.name)
        return present.kernel if present is not None and present.judge is judge else self._new_kernel()

    def _new_kernel(self) -> KernelThread:
        return KernelThread(self._settings.max_check_wait_seconds)

    async def _release(self, loaded: LoadedPolicy) -> None:
        """End the thread and the process of a program that is not used any more."""
        if loaded.kernel is self._kernel:
            return
        end = functools.partial(close, loaded.judge.oracle)
        loaded.kernel.submit(end, end)  # after what waits; later checks are rejected
        await asyncio.to_thread(loaded.kernel.close)

    async def _quiesce(self, loaded: LoadedPolicy) -> None:
        """Let no further report in and wait for those that are being committed."""
        loaded.reporting.clear()
        while loaded.in_flight:
            await asyncio.wait(set(loaded.in_flight))
        for world in loaded.worlds.values():
            try:
                await world.settled()
            except WorldUnavailable:
                continue  # it is rebuilt from the log

    def _make(
        self,
        judge: Judge,
        kernel: KernelThread,
        world_id: str,
        state: object,
        revision: int,
        *,
        generation: int = 0,
        last_id: str | None = None,
        first_assumed: int | None = None,
    ) -> World:
        return World(
            judge,
            world_id,
            state,
            revision,
            kernel=kernel,
            metrics=self._metrics,
            on_advance=self._advanced,
            generation=generation,
            last_id=last_id,
            first_assumed=first_assumed,
        )

    def _tell(self, world: World) -> None:
        for listener in self.listeners:
            listener(world)

    def _advanced(self, world: World) -> None:
        self._tell(world)
        self._maybe_snapshot(world)

    def _maybe_snapshot(self, world: World) -> None:
        if world.revision - world.snapshot_revision < self._settings.snapshot_every:
            return
        world.snapshot_revision = world.revision
        self._keep_running(self._snapshot(world))

    def _keep_running(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _snapshot(self, world: World) -> bool:
        """Save a world's posterior; False if the store failed."""
        generation = world.generation
        revision, last_id, arrays = await world.dump()
        if last_id is None or world.failed:
            return True  # nothing was observed, or it is not what the log says
        snapshot = await asyncio.to_thread(
            make_snapshot, world.judge, world.world_id, revision, arrays, last_id=last_id, generation=generation
        )
        try:
            await self._writer.run(lambda: self._store.save_snapshot(snapshot))
        except GuardrailError as error:
            # Only the next start is slower without it.
            log.warning("snapshot_not_saved", world=world.world_id, why=str(error))
            return False
        world.snapshot_revision = max(world.snapshot_revision, revision)
        return True


def _state(world: World) -> str:
    return "failed" if world.failed else "refuted" if world.refuted else "serving"


def read_policies(paths: Iterable[Path]) -> list[Policy]:
    """Load every policy file of the paths; a folder stands for its `*/policy.yaml`.

    :raises PolicyError: if any file is wrong or missing, or a name occurs twice; holds every problem.
    """
    problems: list[Problem] = []
    policies: dict[str, Policy] = {}
    for file in _policy_files(paths, problems):
        try:
            policy = load_policy(file)
        except PolicyError as error:
            problems.extend(error.problems)
            continue
        if policy.name in policies:
            problems.append(Problem(str(file), 0, 0, f"another file defines the policy {policy.name!r} too"))
        policies[policy.name] = policy
    if problems:
        raise PolicyError(problems)
    return list(policies.values())


def _policy_files(paths: Iterable[Path], problems: list[Problem]) -> Sequence[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*/policy.yaml")) + sorted(path.glob("policy.yaml")) if path.is_dir() else [path]
        if not found:
            problems.append(Problem(str(path), 0, 0, "the folder holds no policy.yaml and no */policy.yaml"))
        files.extend(found)
    return files


def _compile(policy: Policy, device: DeviceKind) -> Judge:
    """Build the oracle and run its kernels once, so that no request waits for a compilation.

    :raises PolicyError: if the class cannot be built.
    :raises DeviceUnavailable: if there is no such device.
    """
    try:
        judge = Judge(policy, device)
    except ValueError as error:
        raise PolicyError([Problem(policy.path, 0, 0, str(error))]) from error
    oracle = judge.oracle
    row = np.zeros((1, oracle.row_length))
    warm: list[Callable[[], object]] = [
        lambda: oracle.bound(oracle.init(), row),
        lambda: oracle.bound(oracle.observe(oracle.init(), row, np.zeros(1)), row),
        lambda: oracle.summary(oracle.init()),
        lambda: oracle.bound(oracle.init(), row, time.monotonic()),
    ]
    for run in warm:
        run()
    return judge
