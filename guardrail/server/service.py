"""What the service does, on domain values: no protobuf, no gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import structlog

from guardrail.approvals import EscalationState
from guardrail.awaiting import degraded, notices_of, overdue_reason
from guardrail.domain import (
    Decision,
    Guarantee,
    HarmBound,
    JsonObject,
    PosteriorSummary,
    Reason,
    ReasonCode,
    Verdict,
)
from guardrail.errors import (
    DeadlinePassed,
    DecisionNotFound,
    RevisionMismatch,
    WorldNotFound,
)
from guardrail.guard import STALE, Judge, PreparedCheck
from guardrail.policy import Policy
from guardrail.server import tracing
from guardrail.server.approving import Approving, EscalationView, Place
from guardrail.server.awaiting import AwaitedView, Awaiting
from guardrail.server.budgets import Budgets, SessionView
from guardrail.server.calibrating import Calibrating
from guardrail.server.following import Following
from guardrail.server.metrics import Metrics
from guardrail.server.outcome_watch import Standing
from guardrail.server.recent import Listed, RecentDecisions
from guardrail.server.recent import Place as DecisionPlace
from guardrail.server.registry import LoadedPolicy, Registry
from guardrail.server.reporting import Report, Reporting
from guardrail.server.resetting import Resetting
from guardrail.server.security.grants import ANYONE, Caller
from guardrail.server.watchers import Watchers
from guardrail.server.world import World
from guardrail.server.writer import Writer
from guardrail.store.base import Appended, ResetRecord, Store, WorldRecord
from guardrail.store.decisions import LoggedDecision

ATTEMPTS = 4
"""How often a bound is computed for a world with memory before its checks are rejected as stale."""


@dataclass(frozen=True, slots=True)
class WorldView:
    """A world for a person to look at; `awaited` is what it owes, if the policy sets a time for reports."""

    policy: Policy
    world: str
    summary: PosteriorSummary
    guarantee: Guarantee
    generation: int
    awaited: AwaitedView | None
    calibration: Standing | None


class Service:
    """Checks, reports and reads. Call it from the event loop only.

    Attributes:
        calibrating: watches whether outcomes are what was promised, once it is started.
    """

    def __init__(
        self,
        registry: Registry,
        writer: Writer,
        store: Store,
        watchers: Watchers,
        following: Following,
        metrics: Metrics,
        awaiting: Awaiting,
    ) -> None:
        self._registry = registry
        self._following = following
        self._writer = writer
        self._store = store
        self._watchers = watchers
        self._metrics = metrics
        self._awaiting = awaiting
        self._resetting = Resetting(registry, writer, store)
        self._reporting = Reporting(registry, writer, store, awaiting, metrics)
        self._recent = RecentDecisions(writer, store)
        self._approving = Approving(writer, store, metrics)
        self._budgets = Budgets(writer, store, metrics)
        self.calibrating = Calibrating(registry, writer, store, metrics, shared=following.shared)

    async def check(
        self,
        policy: str,
        world_id: str,
        context: JsonObject,
        actions: Sequence[JsonObject],
        revision: str = "",
        deadline: float | None = None,
        expires: float | None = None,
        min_revision: int = 0,
        caller: Caller = ANYONE,
        sizes: Sequence[int] | None = None,
        approval: str = "",
        session: str = "",
    ) -> list[Verdict]:
        """Decide about actions in one context, against one posterior.

        Args:
            policy: the policy's name.
            world_id: the world's id.
            context: the context's fields.
            actions: each action's fields.
            revision: of the policy, if the caller insists on one.
            deadline: of `time.monotonic()`; a search that reaches it gives the best sound bound so far.
            expires: of `time.monotonic()`; from then on the caller is gone and nothing is decided.
            min_revision: how many observations the verdicts must rest on at least.
            caller: who asks.
            sizes: bytes of what the log keeps of each action, the context with it; None if nobody counts.
            approval: id of the escalation that was approved for the one action; empty if there is none.
            session: whose harm budget accepts take their share of; empty if the check names none.

        :raises DeadlinePassed: if `expires` came before the bounds, or before what they came to was kept.
        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises RevisionMismatch: if `revision` is set and is not the loaded one.
        :raises RevisionNotReached: if the world's log holds fewer than `min_revision` observations.
        :raises StoreError: if the log had to be read and cannot be, or an escalation cannot be kept or used,
            or no share of a harm budget could be set aside.
        :raises DecisionLogUnavailable: if the decision could not be logged.
        :raises LimitExceeded: if too many checks wait.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        loaded = self._loaded(policy, revision)
        self._writer.require_log()
        if min_revision:
            if self._following.shared:
                # Another replica may have reset the world: revisions count within the present generation of its log.
                await self._registry.catch_up.run(policy, world_id)
            await self._registry.catch_up.reach(policy, world_id, min_revision)
            loaded = self._loaded(policy, revision)
        owed = await self._awaiting.look(loaded.judge.policy, world_id)
        loaded = self._loaded(policy, revision)
        judge = loaded.judge
        prepared = [judge.prepare(context, action) for action in actions]
        bounds, posterior_revision, asked = await self._bounds(loaded, world_id, prepared, deadline, expires)
        generation, assumed = asked.log_generation, asked.assumed(posterior_revision)
        _require_in_time(expires, "a bound was there")
        notices = self._registry.notices.present + notices_of(owed)
        notices += self.calibrating.notices(policy, world_id, judge.policy.revision, generation)
        if not judge.oracle.needs_current:
            notices += self._following.notices()
        verdicts = [
            judge.decide(check, bound, world_id, posterior_revision, notices, generation=generation, assumed=assumed)
            for check, bound in zip(prepared, bounds, strict=True)
        ]
        if owed is not None and owed.overdue:
            verdicts = [degraded(v, judge.policy.spec.reporting, overdue_reason(owed)) for v in verdicts]
        if len(verdicts) == 1:
            structlog.contextvars.bind_contextvars(decision_id=verdicts[0].decision_id)
        found = verdicts
        if approval:
            verdicts = [
                await self._approving.use(verdict, context, action, approval, caller)
                for verdict, action in zip(verdicts, actions, strict=True)
            ]
        # An approved action takes its share, too. Asked the other way round, each check that waits for a person would.
        verdicts = await self._budgets.spend(judge.policy, verdicts, session, generation)
        with await self._awaiting.keep(judge.policy, verdicts, context, actions, assumed=assumed) as kept:
            verdicts = await self._approving.open(judge.policy, kept.verdicts, context, actions, caller)
            waited = kept.waited or verdicts != found
            if waited and not await self._still_current(loaded, world_id, posterior_revision, generation):
                verdicts = [_outdated(judge, prepared[i], verdict, generation) for i, verdict in enumerate(verdicts)]
            _require_in_time(expires, "the verdict was kept")
            kept.told(verdicts)
        now = time.time()
        kept_context = judge.policy.kept_context(context)
        counted = [0] * len(actions) if sizes is None else sizes
        for action, verdict, size in zip(actions, verdicts, counted, strict=True):
            kept_action = judge.policy.kept_action(action)
            decision = LoggedDecision(verdict, kept_context, kept_action, now, caller.name, generation)
            self._writer.log_decision(decision, size)
            self._watchers.publish(decision)
            self.calibrating.decided(decision, size)
            self._metrics.verdict(policy, verdict.found, verdict.shadow)
        tracing.decided(policy, verdicts)
        return verdicts

    async def _bounds(
        self,
        loaded: LoadedPolicy,
        world_id: str,
        prepared: Sequence[PreparedCheck],
        deadline: float | None,
        expires: float | None,
    ) -> tuple[list[HarmBound | None], int, World]:
        """Bounds, the revision of their posterior, and whose it is: the current one, where an older one is unsound.

        Where others write to the log as well, or the service itself has done so, it is read once the bounds are
        computed. There is no await between the last comparison and the reply, so no outcome is taken up in between.
        If outcomes keep coming in faster than bounds are computed, the checks are rejected.

        :raises StoreError: if the log had to be read and cannot be: then nothing is known to be current.
        """
        policy = loaded.judge.policy.name
        for _ in range(ATTEMPTS):
            asked = self._registry.world(loaded, world_id)
            with tracing.part("guardrail.kernel"):
                bounds, revision = await asked.bounds(prepared, deadline, expires)
            if not loaded.judge.oracle.needs_current or all(bound is None for bound in bounds):
                return bounds, revision, asked
            if self._following.shared or self._awaiting.behind(policy, world_id):
                await self._registry.catch_up.run(policy, world_id)
            # Looked up again: the first outcome makes a world, and a failed one is rebuilt as another.
            if self._registry.policy(policy) is loaded:
                world = self._registry.world(loaded, world_id)
                # Without observations every generation of a world stands at the prior.
                if world.committed == revision and (world.generation == asked.generation or not revision):
                    return bounds, revision, world
        return [None if bound is None else STALE for bound in bounds], revision, asked

    async def _still_current(self, loaded: LoadedPolicy, world_id: str, revision: int, generation: int) -> bool:
        """False if outcomes came in while a verdict was being kept, and only the current posterior counts.

        There is no await between the comparison and the return.

        :raises StoreError: if the log had to be read and cannot be.
        """
        if not loaded.judge.oracle.needs_current:
            return True
        policy = loaded.judge.policy.name
        if self._following.shared or self._awaiting.behind(policy, world_id):
            await self._registry.catch_up.run(policy, world_id)
        if self._registry.find_policy(policy) is not loaded:
            return False
        world = self._registry.world(loaded, world_id)
        return world.committed == revision and (world.log_generation == generation or not revision)

    async def report(
        self, policy: str, world_id: str, reports: Sequence[Report], caller: Caller = ANYONE
    ) -> list[Appended]:
        """Take up outcomes in order; returns once later checks rest on them.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises PermissionDenied: SELF_REPORT if the caller may act in the world too, and the policy forbids that.
        :raises InvalidInput: if any report does not fit the policy; none was taken up.
        :raises ReportConflict: if an id was used before with other content; the other reports count.
        :raises LimitExceeded: if too many reports wait, or there are too many worlds, or (WORLD_QUOTA) as many of
            the caller's as it may have.
        :raises StoreError: if they could not be committed; none was taken up.
        :raises WorldUnavailable: if the world's posterior is lost; they may have been committed.
        """
        return await self._reporting.report(policy, world_id, reports, caller)

    async def not_taken(self, policy: str, world_id: str, decision_ids: Sequence[str], caller: Caller = ANYONE) -> int:
        """Await the outcomes of accepted actions no longer that were not carried out. How many were awaited.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises PermissionDenied: SELF_REPORT if the caller may act in the world too, and the policy forbids that.
        :raises DecisionNotFound: if the outcome of any of them was never awaited in this world; none was released.
        :raises ReportConflict: if an outcome of any of them was reported, or taken for harm; none was released.
        :raises StoreError: if the store failed; they may have been released all the same.
        """
        return await self._reporting.not_taken(policy, world_id, decision_ids, caller)

    async def world(self, policy: str, world_id: str, hypotheses: int = 0) -> WorldView:
        """The posterior of a world at a glance, and so many of its hypotheses, or parameters, in full.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises WorldNotFound: if the world holds no observation, and none is awaited.
        :raises StoreError: if what is awaited cannot be read.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        loaded = self._registry.policy(policy)
        awaited = await self._awaiting.view(loaded.judge.policy, world_id)
        world = self._registry.find_world(loaded, world_id)
        if world is None and (awaited is None or awaited.state.oldest_due is None):
            raise WorldNotFound(f"policy {policy!r} has no world {world_id!r} that holds observations")
        world = loaded.prior if world is None else world
        summary, guarantee = await world.summary(hypotheses)
        present, generation = world.judge.policy, world.log_generation
        calibration = self.calibrating.standing(policy, world_id, present.revision, generation)
        return WorldView(present, world_id, summary, guarantee, generation, awaited, calibration)

    async def worlds(self, policy: str | None, caller: Caller = ANYONE) -> list[WorldRecord]:
        """Worlds that hold observations, were reset or owe outcomes, and that the caller may see.

        :raises StoreError: if the store cannot be read.
        """
        found = await asyncio.to_thread(self._store.worlds, policy)
        known = {(w.policy, w.world) for w in found}
        owing = [o for o in await self._awaiting.worlds() if policy in (None, o.policy) and o.oldest_due is not None]
        found += [WorldRecord(o.policy, o.world, 0) for o in owing if (o.policy, o.world) not in known]
        found.sort(key=lambda w: (w.policy, w.world))
        return found if caller is ANYONE else [w for w in found if caller.sees("ListWorlds", w.policy, w.world)]

    async def session(self, policy: str, world_id: str, session: str) -> SessionView:
        """What a session, or with an empty name the window of a world, has spent of its harm budget.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises SessionNotFound: if nothing was ever accepted in it.
        :raises StoreError: if the store cannot be read.
        :raises WorldUnavailable: if the world's posterior is lost.
        """
        if self._following.shared:
            # Another replica may have taken an outcome for harm, or reset the world: this one must not promise more.
            await self._registry.catch_up.run(policy, world_id)
        loaded = self._registry.policy(policy)
        _, bounds = await self._registry.world(loaded, world_id).summary()
        return await self._budgets.view(loaded.judge.policy, world_id, session, bounds)

    async def reset(self, policy: str, world_id: str, generation: int, reason: str, caller: str = "") -> ResetRecord:
        """Close a world's log and start the next one from the prior; repeated, it is answered as before.

        :raises PolicyNotFound: if no policy of that name is loaded.
        :raises WorldNotFound: if the world never held an observation, and no outcome is awaited in it.
        :raises GenerationMismatch: if another generation is the present one.
        :raises StoreError: if the store failed; the log may have been closed all the same.
        """
        record = await self._resetting.reset(policy, world_id, generation, reason, caller)
        self._awaiting.forget(policy, world_id)
        return record

    async def decision(self, decision_id: str, caller: Caller = ANYONE) -> LoggedDecision:
        """One decision of the log.

        :raises DecisionNotFound: if there is none of that id, or none that the caller may see.
        """
        found = self._writer.unwritten(decision_id)
        if found is None:
            record = await asyncio.to_thread(self._store.decision, decision_id)
            found = None if record is None else LoggedDecision.from_record(record)
        if found is None or not caller.sees("GetDecision", found.verdict.policy, found.verdict.world):
            raise DecisionNotFound(f"no decision {decision_id!r} is in the log")
        return found

    async def decisions(
        self, policy: str, world: str, after: DecisionPlace | None, limit: int, caller: Caller = ANYONE
    ) -> tuple[list[Listed], DecisionPlace | None]:
        """Decisions that the caller may see, newest first, and where the next page begins; None on the last.

        :raises InvalidInput: if the page before ended with a decision that a crash has lost since.
        :raises StoreError: if the store cannot be read.
        """
        return await self._recent.page(policy, world, after, limit, caller)

    async def resolve_escalation(
        self, escalation_id: str, digest: str, approve: bool, note: str, caller: Caller = ANYONE
    ) -> EscalationView:
        """Approve or deny an escalated action; the same words again are answered as before.

        :raises EscalationNotFound: if there is none of that id that the caller may resolve, or its decision is not in
            the log.
        :raises PermissionDenied: SELF_APPROVAL if the caller is the one who asked.
        :raises EscalationMismatch: if the digest is another one.
        :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
        :raises StoreError: if the store failed; it may have been resolved all the same.
        """
        return await self._approving.view(await self._approving.resolve(escalation_id, digest, approve, note, caller))

    async def escalations(
        self,
        policy: str,
        world: str,
        state: EscalationState | None,
        after: Place | None,
        limit: int,
        caller: Caller = ANYONE,
    ) -> tuple[list[EscalationView], Place | None]:
        """Escalations that the caller may see, newest first, and where the next page begins; None on the last.

        :raises StoreError: if the store cannot be read.
        """
        return await self._approving.page(policy, world, state, after, limit, caller)

    def watch(self, policy: str, world_id: str) -> AsyncIterator[LoggedDecision]:
        """Decisions from now on; empty strings match everything.

        :raises LimitExceeded: if too many watch already, or the caller reads too slowly.
        """
        return self._watchers.subscribe(policy, world_id)

    def policies(self) -> list[Policy]:
        """The loaded policies, sorted by name."""
        return self._registry.policies()

    def policy(self, name: str) -> Policy:
        """One loaded policy.

        :raises PolicyNotFound: if no policy of that name is loaded.
        """
        return self._registry.policy(name).judge.policy

    async def reload(self) -> list[str]:
        """Read the policy files again; names of the policies that changed.

        :raises PolicyError: if any file is wrong; what was loaded stays.
        """
        return await self._registry.load()

    def _loaded(self, policy: str, revision: str) -> LoadedPolicy:
        loaded = self._registry.policy(policy)
        present = loaded.judge.policy.revision
        if revision and revision != present:
            raise RevisionMismatch(f"policy {policy!r} is loaded at revision {present}, not {revision}")
        return loaded


def _outdated(judge: Judge, check: PreparedCheck, verdict: Verdict, generation: int) -> Verdict:
    """A rejection in the place of an accept that rests on a posterior which is not the current one any more."""
    if verdict.found is not Decision.ACCEPT:
        return verdict
    bound = STALE
    if verdict.approval is not None:
        message = f"outcomes came in while escalation {verdict.approval.escalation_id!r} was used: it is used up"
        bound = replace(STALE, failure=Reason(ReasonCode.STALE_POSTERIOR, message))
    rejected = judge.decide(
        check, bound, verdict.world, verdict.posterior_revision, verdict.notices, generation=generation
    )
    return replace(rejected, decision_id=verdict.decision_id, budget=verdict.budget)


def _require_in_time(expires: float | None, what: str) -> None:
    if expires is not None and time.monotonic() >= expires:
        raise DeadlinePassed(f"the caller's deadline passed before {what}")
