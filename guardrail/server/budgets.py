"""Harm budgets in the service: every accept takes its share, durably, before anybody is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guardrail.budgets import MISSING, Terms, ground_of, promise, refusal, terms_of
from guardrail.domain import NO_GUARANTEE, Guarantee, HarmBudget, Reason, ReasonCode, Verdict
from guardrail.errors import SessionNotFound
from guardrail.overruling import accepts_safest_first, overruled
from guardrail.server.together import Together
from guardrail.store.base import NewReservation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.policy import Policy
    from guardrail.server.metrics import Metrics
    from guardrail.server.writer import Writer
    from guardrail.store.base import BudgetRecord, Reserved, Store


@dataclass(frozen=True, slots=True)
class SessionView:
    """What a session has spent, for a person to look at.

    Attributes:
        record: as the store has it.
        changed: True if the policy's budget is another one now: further checks of the session are rejected.
        guarantee: what the sum of the bounds promises.
    """

    record: BudgetRecord
    changed: bool
    guarantee: Guarantee


class Budgets:
    """Sets the bounds of accepts aside. Call it from the event loop only."""

    def __init__(self, writer: Writer, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._together: Together[NewReservation, Reserved] = Together(writer, lambda batch: store.reserve(batch))

    async def spend(self, policy: Policy, verdicts: Sequence[Verdict], session: str, generation: int) -> list[Verdict]:
        """The verdicts, where accepts for which there is no budget have become rejects.

        What is set aside stays so, whatever becomes of the caller meanwhile. Does not wait if there is nothing to
        set aside.

        Args:
            policy: they are of this policy, and of one world.
            verdicts: what was found without the budget.
            session: as the check names it; empty if it names none.
            generation: of the world's log that the bounds rest on.

        :raises StoreError: if the store failed; then there is no accept.
        """
        given = list(verdicts)
        terms, places = terms_of(policy.spec.decision), accepts_safest_first(given)
        if terms is None or not places:
            return given
        if terms.per == "session" and not session:
            for place in places:
                given[place] = overruled(given[place], _approved_in_vain(MISSING, given[place]))
                self._metrics.budget_refused(policy.name, ReasonCode.SESSION_MISSING)
            return given
        session = session if terms.per == "session" else ""
        asked = [_reservation(given[place], session, terms, generation) for place in places]
        for place, reserved in zip(places, await self._together.write(asked), strict=True):
            budget = HarmBudget(reserved.terms.per, session, reserved.terms.total, reserved.spent)
            if reserved.refused is None:
                given[place] = replace(given[place], budget=budget)
            else:
                reason = refusal(reserved.refused, reserved.terms, given[place].harm_bound, reserved.spent)
                reason = _approved_in_vain(reason, given[place])
                given[place] = overruled(given[place], reason, budget)
                self._metrics.budget_refused(policy.name, reserved.refused)
        return given

    async def view(self, policy: Policy, world: str, session: str, bounds: Guarantee) -> SessionView:
        """What a session, or with an empty name the window of a world, has spent.

        Args:
            policy: the loaded policy.
            world: the world's id.
            session: the session; empty for the window.
            bounds: what bounds in the world promise at present.

        :raises SessionNotFound: if nothing was ever accepted in it.
        :raises StoreError: if the store cannot be read.
        """
        record = await asyncio.to_thread(self._store.budget, policy.name, world, session)
        if record is None:
            what = f"session {session!r}" if session else "no session"
            raise SessionNotFound(f"nothing was accepted under a harm budget in {what} of world {world!r}")
        # In shadow mode all else was carried out as well: that the sum of some bounds is small promises nothing.
        stated = NO_GUARANTEE if policy.spec.mode == "shadow" else bounds
        # A window holds more than its total for a while after that was lowered, or the window made longer.
        at_most = max(record.terms.total, record.spent)
        promised = promise(stated, record.grounds, at_most, policy.revision)
        changed = record.terms.per == "session" and record.terms != terms_of(policy.spec.decision)
        return SessionView(record, changed, promised)


def _approved_in_vain(reason: Reason, verdict: Verdict) -> Reason:
    if verdict.approval is None:
        return reason
    return replace(reason, message=f"{reason.message}; escalation {verdict.approval.escalation_id!r} is used up")


def _reservation(verdict: Verdict, session: str, terms: Terms, generation: int) -> NewReservation:
    names = (verdict.decision_id, verdict.policy, verdict.world, session)
    return NewReservation(*names, terms, verdict.harm_bound, ground_of(verdict, generation))
