"""Taking up what was reported: durable first, and then later checks rest on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.canonical import canonical_json, digest
from guardrail.domain import JsonObject, JsonValue
from guardrail.errors import GuardrailError, InvalidInput, ReportConflict, WorldUnavailable
from guardrail.hypotheses.base import Row
from guardrail.policy import Policy
from guardrail.server import tracing
from guardrail.server.awaiting import Awaiting
from guardrail.server.metrics import Metrics, ReportResult
from guardrail.server.registry import LoadedPolicy, Registry
from guardrail.server.security.grants import Caller
from guardrail.server.security.quota import WorldQuota
from guardrail.server.security.self_report import require_no_self_report
from guardrail.server.writer import Writer
from guardrail.store.base import Appended, NewObservation, Store


@dataclass(frozen=True, slots=True)
class Report:
    """One outcome as it was reported."""

    observation_id: str
    context: JsonObject
    action: JsonObject
    outcome: JsonValue


class Reporting:
    """Reports of one service. Call it from the event loop only."""

    def __init__(self, registry: Registry, writer: Writer, store: Store, awaiting: Awaiting, metrics: Metrics) -> None:
        self._registry, self._writer, self._awaiting, self._metrics = registry, writer, awaiting, metrics
        self._quota = WorldQuota(store)

    async def report(self, policy: str, world_id: str, reports: Sequence[Report], caller: Caller) -> list[Appended]:
        """See `Service.report`."""
        loaded = await self._open_for_reports(policy)
        try:
            if caller.max_worlds is None or self._registry.find_world(loaded, world_id) is not None:
                return await self._take_up(loaded, world_id, reports, caller)

            async def take_up() -> list[Appended]:
                return await self._take_up(await self._open_for_reports(policy), world_id, reports, caller)

            return await self._quota.make(caller, policy, world_id, take_up)
        except ReportConflict:
            raise
        except GuardrailError:
            self._metrics.reported(policy, "refused", len(reports))
            raise

    async def _take_up(
        self, loaded: LoadedPolicy, world_id: str, reports: Sequence[Report], caller: Caller
    ) -> list[Appended]:
        # From here to the append there is no await, so a reload cannot come in between.
        require_no_self_report(loaded.judge.policy, world_id, caller)
        encoded = [_encode(loaded, report) for report in reports]
        world = self._registry.world_to_report(loaded, world_id)
        policy = loaded.judge.policy.name
        new = [_new_observation(loaded.judge.policy, world_id, report, caller) for report in reports]

        def take_up(results: Sequence[Appended]) -> None:
            for one, (row, outcome), result in zip(new, encoded, results, strict=True):
                if result.duplicate or result.conflict:
                    continue
                kept = self._registry.keep(loaded, world)
                if not kept.commit(row, outcome, result.sequence, result.generation, one.observation_id):
                    self._registry.catch_up.soon(policy, world_id)

        def look_again(commit: asyncio.Future[list[Appended]]) -> None:
            if not commit.cancelled() and commit.exception() is not None:
                self._registry.catch_up.soon(policy, world_id)  # they may have been written all the same

        commit = self._writer.append(new, take_up)
        loaded.in_flight.add(commit)
        commit.add_done_callback(loaded.in_flight.discard)
        commit.add_done_callback(look_again)
        with tracing.part("guardrail.store.append"):
            results = await asyncio.shield(commit)
        await self._require_taken_up(policy, world_id, results)
        for result in results:
            kind: ReportResult = "conflict" if result.conflict else "duplicate" if result.duplicate else "taken_up"
            self._metrics.reported(policy, kind)
        self._awaiting.reported(policy, sum(result.settled for result in results))
        conflicts = [r.observation_id for r, a in zip(reports, results, strict=True) if a.conflict]
        if conflicts:
            raise ReportConflict(f"reported before with other content: {', '.join(map(repr, conflicts[:5]))}")
        return results

    async def not_taken(self, policy: str, world_id: str, decision_ids: Sequence[str], caller: Caller) -> int:
        """See `Service.not_taken`."""
        loaded = self._registry.policy(policy).judge.policy
        require_no_self_report(loaded, world_id, caller)
        return await self._awaiting.not_taken(loaded, world_id, decision_ids)

    async def _require_taken_up(self, policy: str, world_id: str, results: Sequence[Appended]) -> None:
        """Wait until the posterior rests on everything that was acknowledged, duplicates included.

        :raises WorldUnavailable: if it does not; the world is then rebuilt from its log, which has everything.
        """
        written = [r for r in results if not r.conflict]
        if not written:
            return
        last = max(written, key=lambda r: (r.generation, r.sequence))
        try:
            await self._registry.catch_up.settle(policy, world_id, last.sequence, last.generation)
        except WorldUnavailable:
            self._registry.catch_up.soon(policy, world_id)
            raise

    async def _open_for_reports(self, policy: str) -> LoadedPolicy:
        loaded = self._registry.policy(policy)
        while not loaded.reporting.is_set():
            await loaded.reporting.wait()
            loaded = self._registry.policy(policy)
        return loaded


def _encode(loaded: LoadedPolicy, report: Report) -> tuple[Row, float]:
    try:
        return loaded.judge.encode_observation(report.context, report.action, report.outcome)
    except InvalidInput as error:
        raise InvalidInput(f"report {report.observation_id!r}: {error}", error.reason) from error


def _new_observation(policy: Policy, world_id: str, report: Report, caller: Caller) -> NewObservation:
    # The digest is one of what is kept: that of a redacted value could be guessed from.
    action, context = policy.kept_action(report.action), policy.kept_context(report.context)
    content = canonical_json({"action": action, "context": context, "outcome": report.outcome})
    return NewObservation(policy.name, world_id, report.observation_id, digest(content), content, caller.name)
