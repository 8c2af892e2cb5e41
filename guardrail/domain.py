"""The project's nouns: frozen values without I/O, importing nothing else of the project.

Harm bounds are probabilities in [0, 1]. Log quantities are natural logarithms (nats).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What a context, an action or an outcome may hold: plain JSON."""

JsonObject: TypeAlias = Mapping[str, JsonValue]


class Decision(enum.StrEnum):
    """What the guardrail says to an action. Anything but ACCEPT must not be carried out as is."""

    ACCEPT = "accept"
    ESCALATE = "escalate"
    REJECT = "reject"

    @property
    def caution(self) -> int:
        """0 for accept, 1 for escalate, 2 for reject: the larger is the more cautious."""
        return {"accept": 0, "escalate": 1, "reject": 2}[self.value]


class GuaranteeKind(enum.StrEnum):
    """How much a reported harm bound promises."""

    THEOREM = "theorem"
    """Holds at all times at once with the stated confidence, under the stated assumptions."""
    ASYMPTOTIC = "asymptotic"
    """Holds for all times after some unknown time; says nothing about the present one."""
    ESTIMATE = "estimate"
    """Part of the computation is an approximation whose error is not bounded."""
    NONE = "none"
    """No promise."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a harm bound promises.

    Attributes:
        kind: how strong the promise is.
        confidence: 1 - delta in [0, 1]; 0 unless `kind` is THEOREM.
        assumptions: what must be true of the world for the promise to hold, in words.
        source: the proposition or paper that proves it.
    """

    kind: GuaranteeKind
    confidence: float
    assumptions: tuple[str, ...]
    source: str


NO_GUARANTEE = Guarantee(GuaranteeKind.NONE, 0.0, (), "no bound was computed")


class ReasonCode(enum.StrEnum):
    """Stable codes for why a verdict is what it is. Programs rely on them; never rename one."""

    WITHIN_THRESHOLD = "WITHIN_THRESHOLD"
    HARM_BOUND_ABOVE_REJECT = "HARM_BOUND_ABOVE_REJECT"
    HARM_BOUND_ABOVE_ESCALATE = "HARM_BOUND_ABOVE_ESCALATE"
    RULE_MATCHED = "RULE_MATCHED"
    RULE_ERROR = "RULE_ERROR"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    WRONG_TYPE = "WRONG_TYPE"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    NOT_FINITE = "NOT_FINITE"
    FEATURE_MISSING = "FEATURE_MISSING"
    FEATURE_ERROR = "FEATURE_ERROR"
    UNKNOWN_CATEGORY = "UNKNOWN_CATEGORY"
    CLASS_REFUTED = "CLASS_REFUTED"
    STALE_POSTERIOR = "STALE_POSTERIOR"
    """A world with memory took up outcomes while the bound was computed, again and again."""
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    """The harm bounds of what was accepted before leave too little of the budget."""
    BUDGET_CHANGED = "BUDGET_CHANGED"
    """The session began under another budget than the policy has now."""
    SESSION_MISSING = "SESSION_MISSING"
    """The policy has a budget for each session, and the check names none."""
    APPROVED = "APPROVED"
    """A person let an escalated action pass."""
    APPROVAL_UNKNOWN = "APPROVAL_UNKNOWN"
    APPROVAL_PENDING = "APPROVAL_PENDING"
    APPROVAL_DENIED = "APPROVAL_DENIED"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    APPROVAL_USED = "APPROVAL_USED"
    APPROVAL_MISMATCH = "APPROVAL_MISMATCH"
    """The approval is for another action, context, world, policy revision or caller."""
    OUTCOME_OVERDUE = "OUTCOME_OVERDUE"
    """The outcome of an accepted action was not reported in time."""
    SHADOW_MODE = "SHADOW_MODE"
    """A notice: the policy only watches; the action is let through whatever was found."""
    POLICY_STALE = "POLICY_STALE"
    """A notice: the policy files have changed and could not be loaded; the last good revision answered."""
    POSTERIOR_BEHIND = "POSTERIOR_BEHIND"
    """A notice: the log may hold outcomes that this replica does not know yet."""
    CALIBRATION_ALARM = "CALIBRATION_ALARM"
    """A notice: by the outcomes that were reported, harm is more frequent in this world than bounds allow."""
    NUMERICAL_FAILURE = "NUMERICAL_FAILURE"
    MODEL_FAILED = "MODEL_FAILED"
    """A program that describes the hypotheses raised, hung, broke its limits or returned what is no number."""
    DIAGNOSTICS_FAILED = "DIAGNOSTICS_FAILED"
    """An approximate posterior is not to be trusted: its diagnostics say so."""
    DECISION_UNSPECIFIED = "DECISION_UNSPECIFIED"
    UNRECOGNIZED = "UNRECOGNIZED"
    """A code that this version does not know; the message begins with it."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a verdict: a stable code and a sentence for the person who reads it."""

    code: ReasonCode
    message: str


@dataclass(frozen=True, slots=True)
class CautiousHypothesis:
    """The plausible hypothesis that makes the action look most harmful.

    Attributes:
        name: how the policy or the family calls it.
        parameters: its parameters by name, for a person to read.
        harm: its harm probability for the checked action.
        log_posterior: its log posterior mass; None for a continuous class.
    """

    name: str
    parameters: Mapping[str, float]
    harm: float
    log_posterior: float | None


@dataclass(frozen=True, slots=True)
class Search:
    """How far the search for the most harmful plausible hypothesis went.

    Attributes:
        truncated: True if it was stopped by its deadline: the bound is sound, but the whole search might
            have given a lower one.
        scanned: share of the class that was looked at, in [0, 1]; the rest was ruled out by bounds on its harm, or,
            if the search was truncated, counts with them.
    """

    truncated: bool
    scanned: float


@dataclass(frozen=True, slots=True)
class HarmBound:
    """An upper bound on the probability of harm of one action.

    Attributes:
        value: the bound in [0, 1]; 1 whenever nothing better can be promised.
        predictive: posterior predictive harm in [0, 1], which promises nothing; None if not computable.
        cautious: the hypothesis that attains the bound; None if there is none.
        guarantee: what `value` promises.
        failure: why there is no usable bound (`value` is then 1); None when there is one.
        search: how far the search for the maximum went; None where nothing is searched.
    """

    value: float
    predictive: float | None
    cautious: CautiousHypothesis | None
    guarantee: Guarantee
    failure: Reason | None = None
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class BooleanHarm:
    """Harm is the event that a Boolean outcome equals `harmful`."""

    harmful: bool


@dataclass(frozen=True, slots=True)
class IntervalHarm:
    """Harm is the event that a real outcome lies inside (lower, upper), or outside it.

    A threshold is an interval with one infinite end. Ends have probability zero under the
    continuous outcome families, so open and closed ends are the same event.
    """

    lower: float
    upper: float
    inside: bool

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or not self.lower < self.upper:
            raise ValueError(f"a harm interval needs lower < upper, got ({self.lower}, {self.upper})")


@dataclass(frozen=True, slots=True)
class IntegerHarm:
    """Harm is the event that an outcome from {0, ..., count - 1} is one of `harmful`."""

    harmful: frozenset[int]
    count: int

    def __post_init__(self) -> None:
        if not self.harmful <= set(range(self.count)):
            raise ValueError(f"harmful outcomes must be among 0, ..., {self.count - 1}, got {sorted(self.harmful)}")


@dataclass(frozen=True, slots=True)
class ModelHarm:
    """The probability of harm is what the program's own deterministic site `harm` says."""


HarmEvent: TypeAlias = BooleanHarm | IntervalHarm | IntegerHarm | ModelHarm


@dataclass(frozen=True, slots=True)
class HarmBudget:
    """A harm budget and what is spent of it.

    Attributes:
        per: `session` or `window`.
        session: the session; empty for a window.
        total: most that the harm bounds of accepted actions may add up to.
        spent: what they add up to, rounded up.
    """

    per: str
    session: str
    total: float
    spent: float


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's consent to one escalated action.

    Attributes:
        escalation_id: id of the decision that escalated.
        approver: who approved; empty if callers are not authenticated.
        resolved_at: seconds since the epoch, UTC.
        note: what the approver noted.
    """

    escalation_id: str
    approver: str
    resolved_at: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one check.

    Attributes:
        decision: accept, escalate or reject.
        harm_bound: upper bound on the probability of harm in [0, 1]; 1 when none was computed.
        threshold: a harm bound above it is rejected.
        escalate_above: a harm bound above it is at least escalated; None if the policy never escalates by bound.
        predictive_harm: posterior predictive harm, without a promise; None when not computed.
        cautious_hypothesis: the hypothesis behind the bound; None when none was computed.
        guarantee: what `harm_bound` promises.
        reasons: why, most important first.
        policy: the policy's name.
        policy_revision: digest of the policy document.
        world: the world's id.
        posterior_revision: how many observations the posterior rests on.
        decision_id: names the record in the decision log.
        search: how far the search for the cautious hypothesis went; None where nothing is searched.
        notices: what a person should know about the state in which this was decided; they change no decision.
        budget: the harm budget after this decision; None if the policy has none, or its budget was not asked because
            the action was not to be accepted anyway.
        approval: who let an escalated action pass; only in an accept that rests on it.
        escalation_expires: until when an escalated action may be approved and carried out, seconds since the epoch.
        shadow: True if the policy only watches: `decision` is accept whatever was found.
        enforced_decision: what the policy would decide if it were enforced; only in shadow mode.
    """

    decision: Decision
    harm_bound: float
    threshold: float
    escalate_above: float | None
    predictive_harm: float | None
    cautious_hypothesis: CautiousHypothesis | None
    guarantee: Guarantee
    reasons: tuple[Reason, ...]
    policy: str
    policy_revision: str
    world: str
    posterior_revision: int
    decision_id: str
    search: Search | None = None
    notices: tuple[Reason, ...] = ()
    budget: HarmBudget | None = None
    approval: Approval | None = None
    escalation_expires: float | None = None
    shadow: bool = False
    enforced_decision: Decision | None = None

    @property
    def accepted(self) -> bool:
        """True only if the decision is ACCEPT."""
        return self.decision is Decision.ACCEPT

    @property
    def found(self) -> Decision:
        """What the policy says: the decision, or in shadow mode what it would be."""
        return self.decision if self.enforced_decision is None else self.enforced_decision


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One hypothesis of a class that can be enumerated.

    Attributes:
        name: how the policy or the family calls it.
        parameters: its parameters by name, each in the unit of the policy.
        log_posterior: its log posterior mass.
        plausible: whether it is in the set over which bounds maximise harm; None if the bound has no such set.
    """

    name: str
    parameters: Mapping[str, float]
    log_posterior: float
    plausible: bool | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a continuous class.

    Attributes:
        name: how the policy or the family calls it.
        mean: its posterior mean, in the unit of the policy.
        deviation: its posterior standard deviation.
        plausible_low: no plausible value is smaller; -inf if nothing bounds them, None if it is not known, or the bound
            has no plausible set, or an empty one.
        plausible_high: no plausible value is larger; likewise.
    """

    name: str
    mean: float
    deviation: float
    plausible_low: float | None = None
    plausible_high: float | None = None


@dataclass(frozen=True, slots=True)
class PosteriorDetail:
    """What a class is about, in full.

    Attributes:
        hypotheses: the most probable ones, most probable first; none of a continuous class.
        parameters: those of a continuous class, in the order of the policy.
    """

    hypotheses: tuple[Hypothesis, ...] = ()
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class PosteriorSummary:
    """What a person wants to know of a posterior at a glance.

    Attributes:
        revision: number of observations it rests on.
        refuted: True if no hypothesis of the class is plausible any more.
        class_size: number of hypotheses; None for a continuous class.
        plausible: number of hypotheses in the plausible set; None for a continuous class.
        entropy: Shannon entropy of the posterior in nats; None for a continuous class.
        top: the most probable hypotheses (or parameters), as label -> posterior mass (or mean).
        detail: some of the hypotheses, or parameters, in full; empty unless they were asked for.
    """

    revision: int
    refuted: bool
    class_size: int | None
    plausible: int | None
    entropy: float | None
    top: Mapping[str, float] = field(default_factory=dict)
    detail: PosteriorDetail = PosteriorDetail()
