"""Reported outcomes joined with the decisions that they came of, from the logs.

An outcome belongs to a decision if it was reported under the decision's id, as `guarded(report=...)` does. What was
decided counts as it was logged; whether the outcome is harm is the policy's own rule.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardrail.awaiting import ASSUMED_BY
from guardrail.errors import GuardrailError, InvalidInput, PolicyError
from guardrail.policy import parse_policy
from guardrail.policy.memory_schema import HiddenMarkov
from guardrail.policy.redaction import same_where_kept
from guardrail.records import verdict_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from guardrail.domain import Verdict
    from guardrail.policy import Policy
    from guardrail.store.base import DecisionRecord, ObservationRecord, Store

_POLICIES_KEPT = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was promised, and what came of it.

    Attributes:
        record: the decision, as it is in the log.
        bound: the harm bound in [0, 1]; 1 if there was none.
        predicted: the posterior predictive harm in [0, 1]; None if there was none.
        harm: whether the outcome is harm.
    """

    record: DecisionRecord
    bound: float
    predicted: float | None
    harm: bool


@dataclass(frozen=True, slots=True)
class Unusable:
    """A report under the id of a decision that says nothing about it.

    Attributes:
        record: the decision; None if it is one of another log.
        code: OTHER_WORLD (or another log of it); OTHER_ACTION (another context or action than was asked about);
            BOUND_TOO_LATE (the decision knew the outcome); BOUND_TOO_OLD (in a world with memory, other outcomes came
            between); OUTCOME_ASSUMED (nobody saw it: it was overdue and taken for harm); RECORD_UNREADABLE;
            POLICY_UNKNOWN; HARM_UNOBSERVED (harm is a site of the world model); OUTCOME_MISFIT.
        message: what is wrong.
    """

    record: DecisionRecord | None
    code: str
    message: str


class Policies:
    """Policies by revision, from the store's documents or from files; the most recent ones are kept.

    Args:
        store: where the documents lie.
        given: policies whose hypotheses are programs: the store does not hold code.
    """

    def __init__(self, store: Store, given: Sequence[Policy] = ()) -> None:
        self._store, self._given = store, {policy.revision: policy for policy in given}
        self.get = functools.lru_cache(_POLICIES_KEPT)(self._get)

    def _get(self, revision: str) -> Policy | str:
        """The policy of a revision, or why there is none."""
        if revision in self._given:
            return self._given[revision]
        document = self._store.policy_document(revision)
        if document is None:
            return f"the store holds no document of policy revision {revision[:12]}"
        try:
            policy = parse_policy(document)
        except GuardrailError as error:
            return str(error.problems[0]) if isinstance(error, PolicyError) else str(error)
        return policy if policy.revision == revision else f"the document of revision {revision[:12]} is another's"


def outcomes(
    store: Store, policies: Policies, policy: str, world: str, generation: int
) -> Iterator[Outcome | Unusable | None]:
    """The reports in one log of a world, in its order; None for one that names no decision.

    :raises StoreCorrupt: if a record's checksum does not fit it.
    :raises StoreError: if the store cannot be read.
    """
    for report in store.observations(policy, world, generation=generation):
        yield outcome_of(report, store.decision(report.observation_id), (policy, world, generation), policies.get)


def outcome_of(
    report: ObservationRecord,
    record: DecisionRecord | None,
    log: tuple[str, str, int],
    policy_of: Callable[[str], Policy | str],
) -> Outcome | Unusable | None:
    """What one report says of the decision whose id it has; None if there is no such decision.

    Args:
        report: one of the log.
        record: the decision of that id, if there is one.
        log: policy name, world id and generation of the report's log.
        policy_of: a policy by its revision, or why there is none.
    """
    if record is None:
        return None
    if (record.policy, record.world, record.generation) != log:
        where = f"generation {record.generation} of world {record.world!r} of policy {record.policy!r}"
        return Unusable(None, "OTHER_WORLD", f"report {report.observation_id} names a decision of {where}")
    if report.reporter == ASSUMED_BY:
        message = f"report {report.sequence} ({record.decision_id}) was overdue and taken for harm"
        return Unusable(record, "OUTCOME_ASSUMED", message)
    return _joined(report, record, policy_of(record.policy_revision))


def _joined(report: ObservationRecord, record: DecisionRecord, policy: Policy | str) -> Outcome | Unusable:
    try:
        verdict, request = verdict_from_dict(json.loads(record.verdict)), json.loads(record.request)
        told = json.loads(report.content)
        bound, predicted = _probability(verdict.harm_bound), verdict.predictive_harm
        promised = {name: request[name] for name in ("context", "action")}
        carried_out = {name: told[name] for name in ("context", "action")}
    except (KeyError, ValueError, TypeError) as error:
        return Unusable(record, "RECORD_UNREADABLE", f"{record.decision_id}: {type(error).__name__}: {error}")
    if isinstance(policy, str):
        return Unusable(record, "POLICY_UNKNOWN", policy)
    same_action = all(same_where_kept(promised[name], carried_out[name]) for name in promised)
    misfit = _misfit(report, verdict, policy, same_action=same_action)
    if misfit is not None:
        code, message = misfit
        return Unusable(record, code, f"report {report.sequence} ({record.decision_id}) {message}")
    try:
        harm = policy.is_harm(told.get("outcome"))
    except InvalidInput as error:
        return Unusable(record, "OUTCOME_MISFIT", f"report {report.sequence} ({record.decision_id}): {error}")
    if harm is None:
        return Unusable(record, "HARM_UNOBSERVED", "harm is a site of the world model, not a predicate on the outcome")
    return Outcome(record, bound, None if predicted is None else _probability(predicted), harm)


def _misfit(
    report: ObservationRecord, verdict: Verdict, policy: Policy, *, same_action: bool
) -> tuple[str, str] | None:
    """Why a decision is not about a report's outcome, as a code and the rest of a sentence."""
    if not same_action:
        return "OTHER_ACTION", "is about another context or action than was decided about"
    # The posterior of a decision rests on observations 1 to `posterior_revision`.
    if verdict.posterior_revision >= report.sequence:
        return "BOUND_TOO_LATE", f"came before observation {verdict.posterior_revision}, on which its bound rests"
    if isinstance(policy.spec.hypotheses, HiddenMarkov) and verdict.posterior_revision != report.sequence - 1:
        return "BOUND_TOO_OLD", f"came after observation {report.sequence - 1}, which its bound does not know"
    return None


def _probability(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value} is not a probability")
    return float(value)
