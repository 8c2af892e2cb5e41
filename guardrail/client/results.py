"""What the clients answer besides verdicts: frozen values, read from replies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from guardrail.approvals import EscalationState
    from guardrail.domain import Guarantee, HarmBudget, JsonObject, JsonValue, PosteriorSummary, Verdict
    from guardrail.errors import Problem


def new_observation_id() -> str:
    """A fresh observation id: a random UUID."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class CheckedActions:
    """Verdicts on several candidate actions.

    Attributes:
        verdicts: one for each candidate, in the order of the question.
        allowed: indices of the accepted candidates, smallest harm bound first.
    """

    verdicts: tuple[Verdict, ...]
    allowed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One outcome to report. Report the same object again after a failure: its id keeps it from counting twice.

    Attributes:
        context: the context in which the action was taken.
        action: the action that was taken.
        outcome: an object with the policy's outcome field, or its bare value.
        observation_id: unique within the world; a fresh one if not given.
    """

    context: JsonObject
    action: JsonObject
    outcome: JsonValue
    observation_id: str = field(default_factory=new_observation_id)


@dataclass(frozen=True, slots=True)
class Reported:
    """An acknowledged report: it is durable, and later checks of the service rest on it.

    Attributes:
        observation_id: the id it was reported under.
        posterior_revision: the observation's 1-based place in the world's log.
        duplicate: True if it had been acknowledged before and was not counted again.
        generation: of that log. For a duplicate it may be one that was closed by a reset since: later checks do
            not rest on it.
    """

    observation_id: str
    posterior_revision: int
    duplicate: bool
    generation: int = 1


@dataclass(frozen=True, slots=True)
class AwaitedOutcomes:
    """Outcomes that accepted actions in a world owe.

    Attributes:
        within: seconds after the decision in which an outcome is due.
        overdue_action: what an overdue one does to checks in the world: `reject`, `escalate` or `assume_harm`.
        awaited: number of outcomes that are not reported and not overdue.
        overdue: number of outcomes that are overdue.
        oldest_due: when the oldest of all these was, or will be, due, UTC; None if there is none.
        overdue_decisions: ids of the decisions whose outcomes are overdue, oldest first; at most 20.
        assumed_harms: number of overdue outcomes that were taken for harm: bounds promise nothing any more.
    """

    within: float
    overdue_action: str
    awaited: int
    overdue: int
    oldest_due: datetime | None
    overdue_decisions: tuple[str, ...]
    assumed_harms: int


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """What decisions in a world promised and predicted, against the outcomes that were reported under their ids.

    Attributes:
        outcomes: number of outcomes compared.
        harms: how many of them are harm.
        bounds: sum of their harm bounds.
        log_e_value: evidence that harm is more frequent than the bounds allow: log of an e-value, in nats.
        log_e_peak: the largest that it ever was.
        log_e_alarm: at this much there is an alarm; without cause it has the probability exp(-log_e_alarm) at most, on
            top of the bounds' delta.
        alarm: True if there was one: the bounds, or the reports, are wrong.
        predicted: mean predicted harm; None if the policy predicts none that an outcome shows.
        harm_low: lower end of a confidence sequence for the mean probability of harm; None with `predicted`.
        harm_high: its upper end.
    """

    outcomes: int
    harms: int
    bounds: float
    log_e_value: float
    log_e_peak: float
    log_e_alarm: float
    alarm: bool
    predicted: float | None
    harm_low: float | None
    harm_high: float | None


@dataclass(frozen=True, slots=True)
class WorldState:
    """A world and its posterior at a glance.

    Attributes:
        policy: name of the policy.
        policy_revision: digest of the policy document.
        world: id of the world.
        posterior: what a person wants to know of its posterior.
        guarantee: what bounds of this world promise.
        generation: 1 for the first log of the world; each reset starts the next one.
        awaited: outcomes that accepted actions owe; None if the policy sets no time for reports.
        calibration: promises against outcomes; None while no report can be compared.
    """

    policy: str
    policy_revision: str
    world: str
    posterior: PosteriorSummary
    guarantee: Guarantee
    generation: int = 1
    awaited: AwaitedOutcomes | None = None
    calibration: CalibrationState | None = None


@dataclass(frozen=True, slots=True)
class WorldEntry:
    """A world in a list.

    Attributes:
        policy: name of the policy.
        world: id of the world.
        observations: length of its present log.
        generation: of that log.
    """

    policy: str
    world: str
    observations: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a session, or the window of a world, has spent of its harm budget.

    Attributes:
        policy: name of the policy.
        world: id of the world.
        budget: the one it began with, and what is spent.
        accepts: number of accepts that count.
        started_at: when it began, UTC; None for a window.
        changed: True if the policy's budget is another one now: further checks of the session are rejected.
        guarantee: what the sum of the harm bounds promises; its confidence is 1 - (delta + total).
    """

    policy: str
    world: str
    budget: HarmBudget
    accepts: int
    started_at: datetime | None
    changed: bool
    guarantee: Guarantee


@dataclass(frozen=True, slots=True)
class WorldReset:
    """A closed log, and the one that follows it.

    Attributes:
        generation: the new one.
        closed_observations: length of the log that was closed.
    """

    generation: int
    closed_observations: int


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """One record of the decision log.

    Attributes:
        verdict: as it was given.
        context: what was checked.
        action: what was checked.
        decided_at: when, UTC.
        caller: who asked; empty if callers are not authenticated.
        generation: of the log that the verdict's `posterior_revision` counts in.
    """

    verdict: Verdict
    context: Mapping[str, JsonValue]
    action: Mapping[str, JsonValue]
    decided_at: datetime
    caller: str = ""
    generation: int = 1


@dataclass(frozen=True, slots=True)
class EscalatedAction:
    """An escalated action, and what a person said about it.

    Attributes:
        escalation_id: id of the decision that escalated.
        policy: name of the policy.
        policy_revision: digest of the policy document.
        world: id of the world.
        caller: who asked; empty if callers are not authenticated.
        digest: of what an approval holds for: context, action, policy, its revision and world.
        state: pending, approved, denied, expired or used.
        opened_at: when it was escalated, UTC.
        expires_at: until when it may be approved and carried out, UTC.
        approver: who resolved it; empty while it is pending.
        resolved_at: when, UTC; None while it is pending.
        note: what the approver noted.
        decision: the decision that escalated, with context and action; None if the service lost it in a crash.
    """

    escalation_id: str
    policy: str
    policy_revision: str
    world: str
    caller: str
    digest: str
    state: EscalationState
    opened_at: datetime
    expires_at: datetime
    approver: str
    resolved_at: datetime | None
    note: str
    decision: LoggedDecision | None


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """A policy that the service has loaded.

    Attributes:
        name: its name.
        revision: digest of its document.
        description: what it is for.
        document: the YAML document; empty in lists.
    """

    name: str
    revision: str
    description: str
    document: str


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """Whether a document is a policy.

    Attributes:
        problems: everything that is wrong; empty if it is one.
        revision: digest of the document; None if it is not a policy.
    """

    problems: tuple[Problem, ...]
    revision: str | None

    @property
    def valid(self) -> bool:
        """True if the document is a policy."""
        return self.revision is not None and not self.problems


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Attributes:
        policies: the policies now loaded, without their documents.
        changed: names of those whose revision changed: their guarantees start anew.
    """

    policies: tuple[PolicyInfo, ...]
    changed: tuple[str, ...]
