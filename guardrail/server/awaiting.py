"""Outcomes that accepted actions owe: kept before the accept is told, looked for until they are settled.

Whether an outcome of a world is overdue is asked twice. First from memory, which every sweep brings level: where one
may be due there, the store is asked, and otherwise the check goes on. Then in the transaction that keeps an accept
before anybody is told of it: that sees what every replica has written, and without it there is no accept.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from guardrail.awaiting import (
    ASSUMED_BY,
    Awaited,
    degraded,
    harmful_outcome,
    overdue_reason,
)
from guardrail.canonical import canonical_json, digest
from guardrail.domain import Decision, JsonObject, Verdict
from guardrail.errors import GuardrailError, InvalidInput
from guardrail.server.approving import Clock
from guardrail.server.shared_runs import SharedRuns
from guardrail.server.together import Together
from guardrail.server.withdrawals import Kept, Withdrawals
from guardrail.store.base import NewAwaited, NewObservation

if TYPE_CHECKING:
    from guardrail.policy import Policy
    from guardrail.server.metrics import Metrics
    from guardrail.server.registry import LoadedPolicy, Registry
    from guardrail.server.writer import Writer
    from guardrail.store.base import Store

log = structlog.get_logger()

Key = tuple[str, str]
"""Policy name and world id."""
T = TypeVar("T")

SWEEP_SECONDS: Final = 1.0
"""How often the store is asked for overdue outcomes, unless that takes it more than a twentieth of its time."""
BLIND_SECONDS: Final = 5.0
"""So long after a sweep should have been, it is not known whether outcomes are overdue."""
AT_ONCE: Final = 1_000
"""Most outcomes of a world that one sweep takes for harm."""
SHOWN: Final = 20
"""Most overdue decisions that are shown."""


@dataclass(frozen=True, slots=True)
class AwaitedView:
    """What a world owes, for a person to look at.

    Attributes:
        within: seconds after the decision in which an outcome is due.
        action: what an overdue one does: `reject`, `escalate` or `assume_harm`.
        state: how many there are.
        overdue: ids of the decisions whose outcomes are overdue, oldest first, at most `SHOWN`.
    """

    within: float
    action: str
    state: Awaited
    overdue: tuple[str, ...]


class Awaiting:
    """Awaited outcomes in the service. Call it from the event loop only."""

    def __init__(
        self, registry: Registry, writer: Writer, store: Store, metrics: Metrics, clock: Clock | None = None
    ) -> None:
        self._registry = registry
        self._writer = writer
        self._store = store
        self._metrics = metrics
        self._clock = Clock() if clock is None else clock
        written = Clock() if clock is None else clock  # of the thread that writes
        self._together: Together[NewAwaited, Awaited | None] = Together(
            writer, lambda batch: store.await_outcomes(batch, written())
        )
        self._known: dict[Key, Awaited] = {}
        self._fresh: SharedRuns[Key, Awaited | None] = SharedRuns(self._read)
        self._threads = ThreadPoolExecutor(2, "guardrail-awaiting")
        self._withdrawals = Withdrawals(writer, store, self._clock)
        self._behind: set[Key] = set()
        self._sweeps: asyncio.Task[None] | None = None
        self._looked_at, self._pause = time.monotonic(), SWEEP_SECONDS
        self._counted: set[str] = set()
        self._failing = False

    # ------------------------------------------------------------ checks

    async def look(self, policy: Policy, world: str) -> Awaited | None:
        """What a world owes; None if that is nothing. Asks the store only if something may be overdue.

        If an outcome was taken for harm, checks here rest on it once this returns.

        :raises StoreError: if the store had to be asked and does not answer.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        if policy.spec.reporting.within is None:
            return None
        state = self._known.get((policy.name, world))
        if state is not None and state.oldest_due is not None and state.oldest_due <= self._clock():
            state = await self._fresh.fresh((policy.name, world))
        if state is not None and state.assumed:
            await self._take_up(policy.name, world)
        return state

    def behind(self, policy: str, world: str) -> bool:
        """True if a world's log may hold an outcome taken for harm that its posterior has not taken up yet."""
        return (policy, world) in self._behind

    async def _take_up(self, policy: str, world: str) -> None:
        """Bring a world level with its log, if it does not know of an outcome that was taken for harm."""
        loaded = self._registry.find_policy(policy)
        present = None if loaded is None else self._registry.find_world(loaded, world)
        if present is None or not present.assumed(present.revision) or self.behind(policy, world):
            await self._registry.catch_up.run(policy, world)

    def forget(self, policy: str, world: str) -> None:
        """Take note that a world was reset."""
        self._known.pop((policy, world), None)

    async def keep(
        self,
        policy: Policy,
        verdicts: Sequence[Verdict],
        context: JsonObject,
        actions: Sequence[JsonObject],
        *,
        assumed: bool,
    ) -> Kept:
        """Keep the accepts among some verdicts as awaited. Does not wait if there is none, or no time for reports.

        Args:
            policy: that decided.
            verdicts: what it came to, in one world.
            context: as it was asked.
            actions: as they were asked, one for each verdict.
            assumed: whether the bounds rest on an outcome that was taken for harm, and their guarantee says so.

        :raises StoreError: if they could not be kept: then there is no accept.
        """
        world = verdicts[0].world if verdicts else ""
        kept = Kept(verdicts, lambda ids: self._withdrawals.add(policy.name, world, ids))
        places = [i for i, v in enumerate(verdicts) if v.decision is Decision.ACCEPT and not v.shadow]
        within = policy.spec.reporting.within
        if within is None or not places:
            return kept
        now = self._clock()
        new = [_new(policy, verdicts[place], context, actions[place], now, now + within, assumed) for place in places]
        writing = asyncio.create_task(self._together.write(new))
        try:
            answers = await asyncio.shield(writing)
        except BaseException:
            # The caller is gone, or the answer of the database was lost: it may have been written all the same.
            writing.add_done_callback(lambda done: self._never_told(done, policy.name, world, new))
            raise
        for place, one, owed in zip(places, new, answers, strict=True):
            if owed is None:
                kept.add(one.decision_id)
                continue
            kept.verdicts[place] = degraded(verdicts[place], policy.spec.reporting, overdue_reason(owed))
            self._note((policy.name, world), owed.oldest_due, 0)
        given = sum(owed is None for owed in answers)
        if given:
            self._note((policy.name, world), now + within, given)
            self._metrics.outcome(policy.name, "awaited", given)
        return kept

    def _note(self, key: Key, due: float | None, more: int) -> None:
        known = self._known.get(key, Awaited(*key))
        dues = [at for at in (known.oldest_due, due) if at is not None]
        self._known[key] = replace(known, awaited=known.awaited + more, oldest_due=min(dues, default=None))

    def _never_told(self, writing: asyncio.Task[Any], policy: str, world: str, new: Sequence[NewAwaited]) -> None:
        if not writing.cancelled():
            writing.exception()  # the loop must not complain about an error that nobody asks for
        self._withdrawals.add(policy, world, [one.decision_id for one in new])

    # ------------------------------------------------------------ what settles them, and what is shown

    def reported(self, policy: str, settled: int) -> None:
        """Take note that so many awaited outcomes were reported."""
        if settled:
            self._metrics.outcome(policy, "reported", settled)

    async def not_taken(self, policy: Policy, world: str, decision_ids: Sequence[str]) -> int:
        """Await the outcomes of decisions no longer whose actions were not taken. How many were awaited.

        :raises DecisionNotFound: if the outcome of any of them was never awaited in this world.
        :raises ReportConflict: if an outcome of any of them was reported, or taken for harm.
        :raises StoreError: if the store failed; they may have been released all the same.
        """
        now = self._clock()
        released = await self._writer.run(lambda: self._store.release_outcomes(policy.name, world, decision_ids, now))
        if released:
            self._metrics.outcome(policy.name, "not_taken", released)
            log.info("actions_not_taken", policy=policy.name, world=world, decisions=list(decision_ids)[:SHOWN])
        return released

    async def view(self, policy: Policy, world: str) -> AwaitedView | None:
        """What a world owes, as the store has it; None if the policy sets no time for reports.

        :raises StoreError: if the store cannot be read.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        reporting = policy.spec.reporting
        if reporting.within is None:
            return None
        now = self._clock()
        state = await self._fresh.fresh((policy.name, world)) or Awaited(policy.name, world)
        if state.assumed:
            await self._take_up(policy.name, world)
        overdue: tuple[str, ...] = ()
        if state.overdue:
            rows = await self._run(lambda: self._store.overdue_outcomes(policy.name, world, now, SHOWN))
            overdue = tuple(row.decision_id for row in rows)
        return AwaitedView(reporting.within, reporting.overdue, state, overdue)

    async def worlds(self) -> list[Awaited]:
        """What every world of a policy with a time for reports owes.

        :raises StoreError: if the store cannot be read.
        """
        timed = self._timed()
        if not timed:
            return []
        now = self._clock()
        return [one for one in await self._run(lambda: self._store.awaited(now)) if one.policy in timed]

    @property
    def owing(self) -> bool:
        """True if an outcome is overdue, or that is not known."""
        if not self._timed():
            return False
        return time.monotonic() - self._looked_at > self._pause + BLIND_SECONDS or any(
            one.overdue for one in self._known.values()
        )

    # ------------------------------------------------------------ sweeps

    async def start(self) -> None:
        """Look for overdue outcomes once, and then again and again."""
        await self._attempt()
        self._sweeps = asyncio.create_task(self._keep_sweeping())

    async def close(self) -> None:
        """Stop; what is being written is waited for."""
        if self._sweeps is not None:
            self._sweeps.cancel()
            await asyncio.wait({self._sweeps})
        await self._withdrawals.close()
        await self._fresh.close()
        await asyncio.to_thread(self._threads.shutdown)

    async def _keep_sweeping(self) -> None:
        while True:
            started = time.monotonic()
            await self._attempt()
            self._pause = max(SWEEP_SECONDS, 20.0 * (time.monotonic() - started))
            await asyncio.sleep(self._pause)

    async def _attempt(self) -> None:
        try:
            await self._sweep()
        except Exception as error:
            if not isinstance(error, GuardrailError):
                log.exception("sweep_failed")
            elif not self._failing:
                log.warning("outcomes_not_looked_for", why=str(error))
            self._failing = True
            return
        self._failing = False

    async def _sweep(self) -> None:
        """Bring what is known level with the store, tell what is new of it, and take for harm what is to be."""
        await self._withdrawals.release()
        timed = self._timed()
        started = time.monotonic()
        found = {(one.policy, one.world): one for one in await self.worlds()}
        self._looked_at = started
        before, self._known = self._known, found
        for key in {*before, *found}:
            self._tell(before.get(key, Awaited(*key)), found.get(key, Awaited(*key)))
        self._count(timed, found)
        for key, state in found.items():
            loaded = self._registry.find_policy(key[0])
            if state.overdue and loaded is not None and harmful_outcome(loaded.judge.policy) is not None:
                await self._assume(loaded, key[1])
        for key in list(self._behind):
            await self._catch_up(key)

    def _tell(self, before: Awaited, now: Awaited) -> None:
        place = {"policy": now.policy, "world": now.world}
        if now.overdue > before.overdue:
            self._metrics.outcome(now.policy, "overdue", now.overdue - before.overdue)
            log.warning("outcomes_overdue", **place, overdue=now.overdue, oldest=now.oldest, due_at=now.oldest_due)
        elif before.overdue and not now.overdue:
            log.info("no_outcome_overdue", **place)

    def _count(self, timed: set[str], found: dict[Key, Awaited]) -> None:
        awaited, overdue = Counter[str](), Counter[str]()
        for one in found.values():
            awaited[one.policy] += one.awaited
            overdue[one.policy] += one.overdue
        for policy in timed | self._counted:
            self._metrics.owed(policy, awaited[policy], overdue[policy])
        self._counted = timed

    async def _assume(self, loaded: LoadedPolicy, world: str) -> None:
        """Append harmful outcomes for a world's overdue decisions. What does not fit the policy stays overdue."""
        policy, now = loaded.judge.policy, self._clock()
        rows = await self._run(lambda: self._store.overdue_outcomes(policy.name, world, now, AT_ONCE))
        new = [one for row in rows if (one := _harm(loaded, world, row.decision_id, row.request)) is not None]
        if not new:
            return
        if not loaded.reporting.is_set() or self._registry.find_policy(policy.name) is not loaded:
            return  # another revision of the policy may not take up such outcomes
        # From here to the commit no policy is loaded. Until its posterior is level, the world must read its log.
        self._behind.add((policy.name, world))
        commit = asyncio.create_task(self._writer.run(lambda: self._store.assume_outcomes(new, now)))
        loaded.in_flight.add(commit)
        commit.add_done_callback(loaded.in_flight.discard)
        results = await commit
        assumed = [
            one.observation_id
            for one, result in zip(new, results, strict=True)
            if result is not None and not (result.duplicate or result.conflict)
        ]
        if assumed:
            self._metrics.outcome(policy.name, "assumed", len(assumed))
            log.warning("harm_assumed", policy=policy.name, world=world, count=len(assumed), decisions=assumed[:SHOWN])
        # As with what another replica wrote: the posterior takes it up from the log.
        await self._catch_up((policy.name, world))
        await self._fresh.fresh((policy.name, world))

    async def _catch_up(self, key: Key) -> None:
        """Bring a world level with outcomes that were taken for harm; one that cannot answer says so itself.

        :raises StoreError: if the log cannot be read: then it is still behind.
        """
        await self._registry.catch_up.attempt(*key)
        self._behind.discard(key)

    # ------------------------------------------------------------ reading

    def _timed(self) -> set[str]:
        """Names of the loaded policies with a time for reports."""
        return {one.name for one in self._registry.policies() if one.spec.reporting.within is not None}

    async def _read(self, key: Key) -> Awaited | None:
        now = self._clock()
        found = await self._run(lambda: self._store.awaited(now, *key))
        state = found[0] if found else None
        self._tell(self._known.get(key, Awaited(*key)), state or Awaited(*key))
        if state is None:
            self._known.pop(key, None)
        else:
            self._known[key] = state
        return state

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _new(
    policy: Policy,
    verdict: Verdict,
    context: JsonObject,
    action: JsonObject,
    now: float,
    due: float,
    assumed: bool,
) -> NewAwaited:
    request = ""
    if harmful_outcome(policy) is not None:
        request = canonical_json({"action": policy.kept_action(action), "context": policy.kept_context(context)})
    passes = verdict.approval is not None and policy.spec.reporting.overdue == "escalate"
    names = (verdict.decision_id, verdict.policy, verdict.world, verdict.policy_revision)
    return NewAwaited(*names, decided_at=now, due_at=due, request=request, approved=passes, assumed=assumed)


def _harm(loaded: LoadedPolicy, world: str, decision_id: str, request: str) -> NewObservation | None:
    """The harmful outcome of a decision; None if its revision of the policy kept nothing, or it fits this one not."""
    policy = loaded.judge.policy
    outcome = harmful_outcome(policy)
    if not request or outcome is None:
        return None
    content = {**json.loads(request), "outcome": outcome}
    try:
        loaded.judge.encode_observation(content["context"], content["action"], outcome)
    except InvalidInput:
        return None
    text = canonical_json(content)
    return NewObservation(policy.name, world, decision_id, digest(text), text, ASSUMED_BY)
