"""Outcomes that accepted actions owe, where a policy sets a time for reports. Pure: no I/O, no clock.

An outcome that is withheld because of its value makes the data look like no hypothesis says, and no bound survives
that. So each accept is awaited: its outcome is due `reporting.within` after the decision, and until an overdue one is
reported (or the action is said not to have been taken) the world rejects, or escalates, as the policy says. Or the
outcome is taken for harm: nobody saw it, the data are not what any hypothesis speaks of, and bounds promise nothing.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from guardrail.domain import BooleanHarm, Decision, Guarantee, GuaranteeKind, Reason, ReasonCode
from guardrail.overruling import instead

if TYPE_CHECKING:
    from guardrail.domain import JsonObject, Verdict
    from guardrail.policy import Policy
    from guardrail.policy.reporting_schema import ReportingSpec

ASSUMED_BY: Final = "guardrail"
"""The reporter of an outcome that was taken for harm; no caller has this name."""

ASSUMED: Final = (
    "nothing is promised: an outcome that was not reported in time was taken for harm, and nobody saw it; the bounds "
    "of this generation of the world rest on it"
)


@dataclass(frozen=True, slots=True)
class Awaited:
    """What the accepted actions of a world owe, in the present generation of its log.

    Attributes:
        policy: policy name.
        world: world id.
        awaited: outcomes that are not reported and not overdue.
        overdue: outcomes that are overdue.
        oldest_due: when the oldest of all these was, or will be, due, seconds since the epoch; None if there is none.
        oldest: id of the decision whose outcome that is, if it is overdue; otherwise empty.
        assumed: overdue outcomes that were taken for harm.
    """

    policy: str
    world: str
    awaited: int = 0
    overdue: int = 0
    oldest_due: float | None = None
    oldest: str = ""
    assumed: int = 0


@dataclass(slots=True)
class Dues:
    """Awaited outcomes of one world in memory. Those of a service are in its store.

    Attributes:
        within: seconds after the decision in which an outcome is due.
        assumed: ids of the decisions whose outcomes were taken for harm.
    """

    within: float
    assumed: set[str] = field(default_factory=set)
    _open: dict[str, tuple[float, JsonObject, JsonObject]] = field(default_factory=dict)
    _last: float = -math.inf

    def add(self, decision_id: str, now: float, context: JsonObject, action: JsonObject) -> None:
        """Await the outcome of an accepted action."""
        self._last = max(self._last, now)
        self._open[decision_id] = (self._last + self.within, context, action)

    def settle(self, decision_id: str) -> None:
        """Await it no longer; an id that is not awaited changes nothing."""
        self._open.pop(decision_id, None)

    def overdue(self, now: float) -> list[tuple[str, JsonObject, JsonObject]]:
        """Decision id, context and action of those that are overdue, oldest first."""
        late = itertools.takewhile(lambda one: one[1][0] <= now, self._open.items())  # added in the order of time
        return [(decision_id, context, action) for decision_id, (_, context, action) in late]

    def state(self, world: str, now: float) -> Awaited:
        """What the world owes; without the times, which are of any clock."""
        late = self.overdue(now)
        oldest = late[0][0] if late else ""
        return Awaited("", world, len(self._open) - len(late), len(late), None, oldest, len(self.assumed))


def action_on_overdue(reporting: ReportingSpec) -> Decision:
    """What checks come to at least while an outcome is overdue; one that is yet to be taken for harm rejects."""
    return Decision.ESCALATE if reporting.overdue == "escalate" else Decision.REJECT


def degraded(verdict: Verdict, reporting: ReportingSpec, reason: Reason) -> Verdict:
    """The verdict of a world in which an outcome is overdue: at least as cautious as the policy says, and no accept."""
    least = action_on_overdue(reporting)
    if verdict.found.caution >= least.caution:
        return verdict
    if verdict.approval is not None:
        used = f"{reason.message}; escalation {verdict.approval.escalation_id!r} is used up"
        reason = replace(reason, message=used)
    return replace(instead(verdict, least, reason), approval=None)


def overdue_reason(state: Awaited) -> Reason:
    """Why checks are rejected or escalated; a notice, too."""
    if not state.overdue:
        message = "an overdue outcome was taken for harm, and this bound does not rest on it yet: ask again"
        return Reason(ReasonCode.OUTCOME_OVERDUE, message)
    since = "" if state.oldest_due is None else f" since {_utc(state.oldest_due)}"
    many = "one outcome is" if state.overdue == 1 else f"{state.overdue} outcomes are"
    message = (
        f"{many} overdue, that of decision {state.oldest!r}{since}: report what came of accepted actions under their "
        "decision ids, or say that they were not taken"
    )
    return Reason(ReasonCode.OUTCOME_OVERDUE, message)


def notices_of(state: Awaited | None) -> tuple[Reason, ...]:
    """What every verdict of a world tells of the outcomes that it owes."""
    if state is None:
        return ()
    told = (overdue_reason(state),) if state.overdue else ()
    if not state.assumed:
        return told
    many = "an overdue outcome was" if state.assumed == 1 else f"{state.assumed} overdue outcomes were"
    message = f"{many} taken for harm: the bounds of this world promise nothing until it is reset"
    return (*told, Reason(ReasonCode.OUTCOME_OVERDUE, message))


def harmful_outcome(policy: Policy) -> JsonObject | None:
    """The outcome that an overdue one is taken for; None if the policy takes none for harm."""
    if policy.spec.reporting.overdue != "assume_harm" or not isinstance(policy.harm, BooleanHarm):
        return None
    return {policy.outcome_name: policy.harm.harmful}


@functools.lru_cache(maxsize=256)
def reported_in_time(stated: Guarantee, within: float) -> Guarantee:
    """A guarantee over outcomes for which there is a time: what it assumes of those that are not reported."""
    if stated.kind is GuaranteeKind.NONE:
        return stated
    said = (
        f"an outcome that is withheld is noticed only {within:g} s after its decision, and until then it is assumed "
        "to come",
        "what is reported as not taken was not taken",
    )
    return replace(stated, assumptions=(*stated.assumptions, *said))


def harm_assumed(stated: Guarantee) -> Guarantee:
    """What bounds promise that rest on an outcome which was taken for harm: nothing."""
    return Guarantee(GuaranteeKind.NONE, 0.0, (ASSUMED,), stated.source)


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
