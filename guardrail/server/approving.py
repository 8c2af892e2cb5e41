"""What the service does about escalated actions: keeps them, takes a person's word, and lets one check pass for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from guardrail.approvals import Escalation, EscalationState, state_at
from guardrail.domain import Approval, Decision, JsonObject, Reason, ReasonCode, Verdict
from guardrail.errors import EscalationNotFound, PermissionDenied
from guardrail.overruling import instead
from guardrail.policy import Policy
from guardrail.server.binding import binding
from guardrail.server.metrics import Metrics
from guardrail.server.security.grants import ANYONE, Caller
from guardrail.server.writer import Writer
from guardrail.store.base import Store
from guardrail.store.decisions import LoggedDecision

log = structlog.get_logger()

SCANNED: Final = 5_000
"""Most escalations that one answer looks at: whoever may see few of many gets a short page, and asks for the next."""

Place = tuple[float, str]
"""`opened_at` and `escalation_id` of the last escalation of a page."""


@dataclass(frozen=True, slots=True)
class EscalationView:
    """An escalation for a person to look at.

    Attributes:
        escalation: as it was kept.
        state: what has become of it by now.
        decision: the decision that escalated; None if a crash lost it before it was written.
    """

    escalation: Escalation
    state: EscalationState
    decision: LoggedDecision | None


class Clock:
    """The time, never set back while the process runs: what has expired stays expired."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._latest = now()

    def __call__(self) -> float:
        """Seconds since the epoch, UTC."""
        self._latest = max(self._latest, self._now())
        return self._latest


class Approving:
    """Escalations and approvals. Call it from the event loop only."""

    def __init__(self, writer: Writer, store: Store, metrics: Metrics, clock: Clock | None = None) -> None:
        self._writer = writer
        self._store = store
        self._metrics = metrics
        self._clock = Clock() if clock is None else clock

    async def use(
        self, verdict: Verdict, context: JsonObject, action: JsonObject, approval: str, caller: Caller
    ) -> Verdict:
        """The verdict of a check that names an approval: an accept only if it may use it, and then nobody else may.

        What would be rejected anyway stays rejected, and uses nothing up.

        :raises StoreError: if it is not known whether the approval could be used: then there is no verdict.
        """
        if verdict.found is Decision.REJECT:
            return verdict
        asked = binding(verdict.policy, verdict.policy_revision, verdict.world, context, action)
        decision_id, now = verdict.decision_id, self._clock()
        outcome = await self._writer.run(
            lambda: self._store.use_escalation(approval, asked, caller.name, decision_id, now)
        )
        if isinstance(outcome, Reason):
            return instead(verdict, Decision.REJECT, outcome)
        self._metrics.escalation(verdict.policy, "used")
        if not self._clock() < outcome.expires_at:  # the store may have taken its time
            message = f"the time of escalation {approval!r} was over before it was used: it is used up"
            return instead(verdict, Decision.REJECT, Reason(ReasonCode.APPROVAL_EXPIRED, message))
        return approved(verdict, outcome)

    async def open(
        self,
        policy: Policy,
        verdicts: Sequence[Verdict],
        context: JsonObject,
        actions: Sequence[JsonObject],
        caller: Caller,
    ) -> list[Verdict]:
        """The same verdicts, once those that escalate are kept for a person to look at.

        :raises StoreError: if they could not be kept: an escalation that nobody can answer is no verdict.
        """
        now, new = self._clock(), []
        told = list(verdicts)
        for place, (verdict, action) in enumerate(zip(verdicts, actions, strict=True)):
            if verdict.decision is not Decision.ESCALATE:
                continue
            expires = now + policy.spec.decision.escalation.expires
            asked = binding(verdict.policy, verdict.policy_revision, verdict.world, context, action)
            names = (verdict.decision_id, verdict.policy, verdict.policy_revision, verdict.world, caller.name, asked)
            new.append(Escalation(*names, opened_at=now, expires_at=expires))
            told[place] = replace(verdict, escalation_expires=expires)
        if new:
            await self._writer.run(lambda: self._store.open_escalations(new))
            self._metrics.escalation(policy.name, "opened", len(new))
        return told

    async def resolve(self, escalation_id: str, digest: str, approve: bool, note: str, caller: Caller) -> Escalation:
        """Take note of what a person says; the same words again are answered as before.

        :raises EscalationNotFound: if there is none of that id that the caller may resolve, or its decision, which says
            what would be approved, is not in the log.
        :raises PermissionDenied: SELF_APPROVAL if the caller is the one who asked.
        :raises EscalationMismatch: if the digest is another one.
        :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
        :raises StoreError: if the store failed; it may have been resolved all the same.
        """
        before = await asyncio.to_thread(self._store.escalation, escalation_id)
        if before is None or not caller.sees("ResolveEscalation", before.policy, before.world):
            raise EscalationNotFound(
                f"there is no escalation {escalation_id!r} that {caller.name or 'you'} may resolve"
            )
        require_another(before, caller)
        if approve and (await self.view(before)).decision is None:
            raise EscalationNotFound(
                f"the decision of escalation {escalation_id!r}, which says what would be approved, is not in the log "
                "(yet): look again, or let the agent ask again"
            )
        now = self._clock()
        after = await self._writer.run(
            lambda: self._store.resolve_escalation(escalation_id, digest, approve, caller.name, note, now)
        )
        if after != before and after.resolved_at == now:
            self._metrics.escalation(after.policy, "approved" if approve else "denied")
        log.info("escalation_resolved", escalation=escalation_id, policy=after.policy, state=after.state.value)
        return after

    async def page(
        self, policy: str, world: str, state: EscalationState | None, after: Place | None, limit: int, caller: Caller
    ) -> tuple[list[EscalationView], Place | None]:
        """Escalations that the caller may see, newest first, and where the next page begins; None on the last.

        Args:
            policy: only those of this policy, if not empty.
            world: only those of this world, if not empty.
            state: only those that are in this state now.
            after: where the page before ended.
            limit: most of them.
            caller: who looks.
        """
        now = self._clock()

        def read() -> tuple[list[Escalation], Place | None]:
            found: list[Escalation] = []
            place, scanned = after, 0
            while True:
                chunk = self._store.escalations(policy or None, world or None, state, now=now, after=place, limit=limit)
                for one in chunk:
                    place = (one.opened_at, one.escalation_id)
                    if caller is ANYONE or caller.sees("ListEscalations", one.policy, one.world):
                        found.append(one)
                        if len(found) == limit:
                            return found, place
                scanned += len(chunk)
                if len(chunk) < limit:
                    return found, None
                if scanned >= SCANNED:
                    return found, place

        found, place = await asyncio.to_thread(read)
        return [await self.view(one) for one in found], place

    async def view(self, escalation: Escalation) -> EscalationView:
        """An escalation with its decision, as they stand now."""
        decision = self._writer.unwritten(escalation.escalation_id)
        if decision is None:
            record = await asyncio.to_thread(self._store.decision, escalation.escalation_id)
            decision = None if record is None else LoggedDecision.from_record(record)
        return EscalationView(escalation, state_at(escalation, self._clock()), decision)


def approved(verdict: Verdict, escalation: Escalation) -> Verdict:
    """An accept of what would be accepted or escalated, by a person's approval."""
    by = f" by {escalation.approver}" if escalation.approver else ""
    reason = Reason(ReasonCode.APPROVED, f"escalation {escalation.escalation_id!r} was approved{by}")
    given = Approval(
        escalation.escalation_id, escalation.approver, escalation.resolved_at or escalation.opened_at, escalation.note
    )
    return replace(instead(verdict, Decision.ACCEPT, reason), approval=given)


def require_another(escalation: Escalation, caller: Caller) -> None:
    """Keep whoever asked from resolving it. All who share an entry of the callers file count as one.

    :raises PermissionDenied: SELF_APPROVAL if the caller is of the entry that asked.
    """
    if caller is not ANYONE and _entry(caller.name) == _entry(escalation.caller):
        raise PermissionDenied(
            f"{escalation.caller} asked for escalation {escalation.escalation_id!r}, so {caller.name} may not resolve "
            "it: let another caller do so",
            "SELF_APPROVAL",
        )


def _entry(caller: str) -> str:
    """The name of a caller's entry: several who share one are called `entry/subject`."""
    return caller.partition("/")[0]
