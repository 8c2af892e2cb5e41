"""Policy + oracle -> verdict: the same logic in process, behind the service, and in a policy's tests.

`Judge` holds what does not change (policy and oracle) and has no state. `Guard` is a judge
bound to one world, for use in process.
"""

from __future__ import annotations

import copy
import itertools
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.awaiting import (
    Awaited,
    Dues,
    degraded,
    harm_assumed,
    harmful_outcome,
    notices_of,
    overdue_reason,
    reported_in_time,
)
from guardrail.budgets import MISSING, Ledger, refusal, terms_of
from guardrail.domain import (
    NO_GUARANTEE,
    Decision,
    Guarantee,
    HarmBound,
    JsonObject,
    JsonValue,
    PosteriorSummary,
    Reason,
    ReasonCode,
    Verdict,
)
from guardrail.errors import InvalidInput, ReportConflict
from guardrail.generations import in_generation
from guardrail.hypotheses.base import Row
from guardrail.oracles.base import Oracle, State
from guardrail.oracles.build import build_oracle_of
from guardrail.oracles.guarantees import self_reported
from guardrail.oracles.placement import DeviceKind
from guardrail.overruling import accepts_safest_first, overruled, watched
from guardrail.policy import Policy, load_policy


class _DecisionIds:
    """Unique ids: 64 random bits for the process, then a count. No system call for each, unlike a UUID."""

    def __init__(self) -> None:
        self._restart()
        os.register_at_fork(after_in_child=self._restart)

    def _restart(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._count = itertools.count()

    def next(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._prefix}{next(self._count):016x}"


_ids = _DecisionIds()


STALE = HarmBound(
    1.0,
    None,
    None,
    NO_GUARANTEE,
    Reason(
        ReasonCode.STALE_POSTERIOR,
        "outcomes came in while the bound was computed, and in a world with memory only the current posterior counts",
    ),
)
"""Instead of a bound that an oracle with `needs_current` computed from an older posterior."""


@dataclass(frozen=True, slots=True)
class PreparedCheck:
    """A check up to the point where the posterior is needed.

    Attributes:
        row: float64[F], the encoded input; None if the check is already rejected.
        rejection: why it is rejected without a bound; None if it is not.
        escalation: the matched escalating rule as a reason; None if there is none.
    """

    row: Row | None
    rejection: Reason | None
    escalation: Reason | None


class Judge:
    """A policy and the oracle over its hypothesis class. Stateless and safe to share between threads.

    Args:
        policy: the compiled policy.
        device: what to compute an enumerated class on.

    :raises ValueError: if the class is inconsistent in itself or does not fit the policy.
    :raises PolicyError: if the hypotheses are a program, and it is no hypothesis class.
    :raises DeviceUnavailable: if there is no such device.
    """

    def __init__(self, policy: Policy, device: DeviceKind = "cpu") -> None:
        self.policy = policy
        self.oracle: Oracle = build_oracle_of(policy, device)

    def prepare(self, context: JsonObject, action: JsonObject) -> PreparedCheck:
        """Validate the input, try the hard rules, and encode the features.

        Never raises for what the input holds: a bad input becomes a rejection.
        """
        try:
            inputs = self.policy.inputs(context, action)
            rule = self.policy.match_rule(inputs)
            escalation = None
            if rule is not None:
                reason = Reason(ReasonCode.RULE_MATCHED, rule.reason)
                if rule.decide != "escalate":
                    return PreparedCheck(None, reason, None)
                escalation = reason
            values = self.policy.features(inputs)
            return PreparedCheck(self.oracle.encode(values.numbers, values.category), None, escalation)
        except InvalidInput as error:
            return PreparedCheck(None, _rejection(error), None)

    def encode_observation(self, context: JsonObject, action: JsonObject, outcome: JsonValue) -> tuple[Row, float]:
        """Encode one reported outcome as float64[F] and a float.

        :raises InvalidInput: if anything does not fit the policy.
        """
        values = self.policy.features(self.policy.inputs(context, action))
        return self.oracle.encode(values.numbers, values.category), self.policy.outcome_value(outcome)

    def bounds(
        self, state: State, prepared: Sequence[PreparedCheck], deadline: float | None = None
    ) -> list[HarmBound | None]:
        """Bound all checks that need it in as few kernel calls as possible; None for the rejected ones.

        Args:
            state: the posterior.
            prepared: the checks.
            deadline: of `time.monotonic()`; a search that reaches it gives the best sound bound so far.

        :raises RuntimeError: if the oracle does not give one bound for each check: which belongs to which is unknown.
        """
        rows = [p.row for p in prepared if p.row is not None]
        if not rows:
            return [None] * len(prepared)
        bounds = self.oracle.bound(state, np.stack(rows), deadline)
        if len(bounds) != len(rows):
            raise RuntimeError(f"the oracle gave {len(bounds)} bounds for {len(rows)} checks")
        answers = iter(bounds)
        return [next(answers) if p.row is not None else None for p in prepared]

    def promised(self, stated: Guarantee) -> Guarantee:
        """An oracle's guarantee with what the policy's way of reporting assumes besides."""
        reporting = self.policy.spec.reporting
        if reporting.within is not None and self.policy.spec.mode == "enforce":
            stated = reported_in_time(stated, reporting.within)
        return self_reported(stated) if reporting.self_report else stated

    def stated(self, guarantee: Guarantee, generation: int, *, assumed: bool) -> Guarantee:
        """What bounds from a generation of a log promise, if the oracle states `guarantee`.

        Args:
            guarantee: the oracle's.
            generation: of the log.
            assumed: True if an outcome among those that they rest on was taken for harm.
        """
        return harm_assumed(guarantee) if assumed else in_generation(self.promised(guarantee), generation)

    def decide(
        self,
        prepared: PreparedCheck,
        bound: HarmBound | None,
        world: str,
        posterior_revision: int,
        notices: tuple[Reason, ...] = (),
        *,
        generation: int = 1,
        assumed: bool = False,
    ) -> Verdict:
        """Turn a bound into a verdict. Without a sound bound the answer is always reject. Notices change nothing.

        After a reset of the world, `generation` of its log is told in what the bound promises, which is nothing if it
        rests on an outcome that was `assumed`.
        """
        thresholds = self.policy.spec.decision
        bound = _sound(bound)
        decision, reasons = self._weigh(prepared, bound)
        usable = bound is not None and bound.failure is None
        shadow = self.policy.spec.mode == "shadow"
        return Verdict(
            decision=Decision.ACCEPT if shadow else decision,
            harm_bound=bound.value if usable and bound is not None else 1.0,
            threshold=thresholds.reject_above,
            escalate_above=thresholds.escalate_above,
            predictive_harm=bound.predictive if bound is not None else None,
            cautious_hypothesis=bound.cautious if bound is not None else None,
            guarantee=self.stated(bound.guarantee, generation, assumed=assumed)
            if usable and bound is not None
            else NO_GUARANTEE,
            reasons=reasons,
            policy=self.policy.name,
            policy_revision=self.policy.revision,
            world=world,
            posterior_revision=posterior_revision,
            decision_id=_ids.next(),
            search=bound.search if bound is not None else None,
            notices=(watched(decision), *notices) if shadow else notices,
            shadow=shadow,
            enforced_decision=decision if shadow else None,
        )

    def _weigh(self, prepared: PreparedCheck, bound: HarmBound | None) -> tuple[Decision, tuple[Reason, ...]]:
        if prepared.rejection is not None:
            return Decision.REJECT, (prepared.rejection,)
        if bound is None:
            return Decision.REJECT, (Reason(ReasonCode.NUMERICAL_FAILURE, "no harm bound was computed"),)
        if bound.failure is not None:
            return Decision.REJECT, (bound.failure,)
        decision, reason = self._compare(bound)
        if prepared.escalation is None:
            return decision, (reason,)
        if decision.caution > Decision.ESCALATE.caution:
            return decision, (reason, prepared.escalation)
        return Decision.ESCALATE, (prepared.escalation, reason)

    def _compare(self, bound: HarmBound) -> tuple[Decision, Reason]:
        thresholds = self.policy.spec.decision
        # Written so that a NaN, which compares false with everything, is rejected.
        if not bound.value <= thresholds.reject_above:
            message = f"the harm bound {bound.value:.4g} exceeds {thresholds.reject_above:g}"
            return Decision.REJECT, Reason(ReasonCode.HARM_BOUND_ABOVE_REJECT, message)
        if thresholds.escalate_above is not None and not bound.value <= thresholds.escalate_above:
            message = f"the harm bound {bound.value:.4g} exceeds {thresholds.escalate_above:g}: a person decides"
            return Decision.ESCALATE, Reason(ReasonCode.HARM_BOUND_ABOVE_ESCALATE, message)
        limit = thresholds.reject_above if thresholds.escalate_above is None else thresholds.escalate_above
        message = f"the harm bound {bound.value:.4g} is at most {limit:g}"
        return Decision.ACCEPT, Reason(ReasonCode.WITHIN_THRESHOLD, message)


def _sound(bound: HarmBound | None) -> HarmBound | None:
    """The bound, or a failure in the place of one whose value is not a probability; NaN is none."""
    if bound is None or bound.failure is not None or 0.0 <= bound.value <= 1.0:
        return bound
    message = f"the harm bound {bound.value} is not a probability"
    return HarmBound(1.0, None, None, NO_GUARANTEE, Reason(ReasonCode.NUMERICAL_FAILURE, message))


def _rejection(error: InvalidInput) -> Reason:
    known = error.reason in ReasonCode.__members__
    return Reason(ReasonCode(error.reason) if known else ReasonCode.FEATURE_ERROR, str(error))


class Guard:
    """A policy bound to one world, in process.

    The posterior, what is spent of a harm budget and the outcomes that are awaited live in memory: they start anew and
    are gone with the object. Use the service when they must survive. Safe to use from several threads.
    """

    def __init__(self, policy: Policy, *, world: str = "local") -> None:
        self._judge = Judge(policy)
        self._start(world)

    def _start(self, world: str) -> None:
        self.world = world
        self._lock = threading.Lock()
        self._state: Any = self._judge.oracle.init()
        self._revision = 0
        self._ledgers: dict[str, Ledger] = {}
        within = self.policy.spec.reporting.within
        self._dues = None if within is None or self.policy.spec.mode == "shadow" else Dues(within)

    @classmethod
    def from_file(cls, path: str | Path, *, world: str = "local") -> Guard:
        """Load and compile a policy file.

        :raises PolicyError: if the policy is wrong; holds every problem with its position.
        """
        return cls(load_policy(path), world=world)

    def fork(self, *, world: str | None = None) -> Guard:
        """A guard over a fresh world (at the prior) that shares this one's compiled policy."""
        guard = object.__new__(Guard)
        guard._judge = self._judge
        guard._start(self.world if world is None else world)
        return guard

    @property
    def policy(self) -> Policy:
        """The compiled policy."""
        return self._judge.policy

    @property
    def revision(self) -> int:
        """Number of observations the posterior rests on."""
        return self._revision

    def check(
        self, context: JsonObject, action: JsonObject, *, session: str = "", timeout: float | None = None
    ) -> Verdict:
        """Decide about one action. Never raises for what the input holds: a bad input is rejected.

        Args:
            context: the context's fields, as the policy declares them.
            action: the action's fields, as the policy declares them.
            session: what the action belongs to, where the policy has a harm budget for each session.
            timeout: seconds after which the search of a large class gives the best sound bound so far
                (`Verdict.search`); None searches to the end.
        """
        return self.check_many(context, [action], session=session, timeout=timeout)[0]

    def check_many(
        self, context: JsonObject, actions: Sequence[JsonObject], *, session: str = "", timeout: float | None = None
    ) -> list[Verdict]:
        """Decide about several candidate actions against one posterior, in one kernel call.

        Where outcomes depend on those before them, no outcome is taken up meanwhile. Each accept takes its share of
        a harm budget, the safest first. Where the policy sets a time for reports, every one of them is awaited.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        owed = self._owed()
        prepared = [self._judge.prepare(context, action) for action in actions]
        with self._lock:
            state, revision = self._state, self._revision
            known = 0 if self._dues is None else len(self._dues.assumed)
            if self._judge.oracle.needs_current:
                bounds = self._judge.bounds(state, prepared, deadline)
        if not self._judge.oracle.needs_current:
            bounds = self._judge.bounds(state, prepared, deadline)
        notices, reporting = notices_of(owed), self.policy.spec.reporting
        verdicts = [
            self._judge.decide(p, b, self.world, revision, notices, assumed=known > 0)
            for p, b in zip(prepared, bounds, strict=True)
        ]
        if owed is not None and owed.overdue:
            verdicts = [degraded(verdict, reporting, overdue_reason(owed)) for verdict in verdicts]
        with self._lock:
            for place in accepts_safest_first(verdicts):
                verdicts[place] = self._spend(verdicts[place], session)
            return self._await(verdicts, context, actions, known)

    def _await(
        self, verdicts: Sequence[Verdict], context: JsonObject, actions: Sequence[JsonObject], known: int
    ) -> list[Verdict]:
        """The verdicts, once the outcomes of accepts are awaited.

        No accept, if one became overdue meanwhile, or more than the `known` ones, on which the bounds rest, were taken
        for harm.
        """
        dues, now = self._dues, time.monotonic()
        if dues is None:
            return list(verdicts)
        owed = dues.state(self.world, now)
        if owed.overdue or owed.assumed > known:
            return [degraded(verdict, self.policy.spec.reporting, overdue_reason(owed)) for verdict in verdicts]
        for verdict, action in zip(verdicts, actions, strict=True):
            if verdict.accepted:
                # Copies: what the caller does to its dictionaries later is not what was accepted.
                dues.add(verdict.decision_id, now, copy.deepcopy(context), copy.deepcopy(action))
        return list(verdicts)

    def _owed(self) -> Awaited | None:
        """What the world owes, once overdue outcomes are taken for harm if they are to be."""
        dues, harm = self._dues, harmful_outcome(self.policy)
        if dues is None:
            return None
        with self._lock:
            late = dues.overdue(time.monotonic()) if harm is not None else []
            for decision_id, context, action in late:
                self._take_up(*self._judge.encode_observation(context, action, harm))
                dues.settle(decision_id)
                dues.assumed.add(decision_id)
            return dues.state(self.world, time.monotonic())

    def _spend(self, verdict: Verdict, session: str) -> Verdict:
        terms = terms_of(self.policy.spec.decision)
        if terms is None:
            return verdict
        session = session if terms.per == "session" else ""
        if terms.per == "session" and not session:
            return overruled(verdict, MISSING)
        ledger = self._ledgers.setdefault(session, Ledger(terms))
        fits = ledger.reserve(verdict.harm_bound, time.monotonic())
        state = ledger.state(session)
        if fits:
            return replace(verdict, budget=state)
        reason = refusal(ReasonCode.BUDGET_EXHAUSTED, terms, verdict.harm_bound, state.spent)
        return overruled(verdict, reason, state)

    def observe(
        self, context: JsonObject, action: JsonObject, outcome: JsonValue, *, decision_id: str | None = None
    ) -> None:
        """Condition on one outcome. Report every carried-out action, whatever came of it, once.

        Args:
            context: the context in which the action was taken.
            action: the action that was taken.
            outcome: `{name: value}` with the policy's outcome name, or the bare value.
            decision_id: of the verdict that accepted the action. Needed where the policy sets a time for reports
                (`reporting.within`): otherwise the outcome of that decision stays awaited.

        :raises InvalidInput: if anything does not fit the policy; the posterior is unchanged.
        :raises ReportConflict: if the outcome of that decision was overdue and taken for harm.
        """
        row, value = self._judge.encode_observation(context, action, outcome)
        with self._lock:
            self._require_open(decision_id)
            self._take_up(row, value)
            self._settle(decision_id)  # not before: an outcome that the oracle could not take up is still awaited

    def not_taken(self, decision_id: str) -> None:
        """Say that an accepted action was not carried out, so that its outcome is not awaited any more.

        :raises ReportConflict: if the outcome was overdue and taken for harm.
        """
        with self._lock:
            self._require_open(decision_id)
            self._settle(decision_id)

    def _require_open(self, decision_id: str | None) -> None:
        if self._dues is not None and decision_id in self._dues.assumed:
            raise ReportConflict(f"the outcome of decision {decision_id!r} was overdue and taken for harm")

    def _settle(self, decision_id: str | None) -> None:
        if self._dues is not None and decision_id is not None:
            self._dues.settle(decision_id)

    def _take_up(self, row: Row, outcome: float) -> None:
        self._state = self._judge.oracle.observe(self._state, row[None, :], np.array([outcome]))
        self._revision += 1

    def posterior(self, top: int = 5) -> PosteriorSummary:
        """The posterior at a glance."""
        with self._lock:
            state, revision = self._state, self._revision
        return replace(self._judge.oracle.summary(state, top), revision=revision)
