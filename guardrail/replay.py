"""Recompute every logged decision from the logs, and say where the log differs.

A decision is a pure function of its policy document, the observations before it and its
request. All three are in the store, so an honest log replays without a difference.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from guardrail.awaiting import ASSUMED_BY, degraded
from guardrail.domain import Decision, Reason, ReasonCode
from guardrail.errors import GuardrailError, PolicyError, WorldUnavailable
from guardrail.guard import STALE, Judge
from guardrail.overruling import instead, overruled
from guardrail.policy import parse_policy
from guardrail.rebuild import CHUNK, observe_records
from guardrail.records import verdict_from_dict, verdict_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guardrail.domain import JsonObject, JsonValue, Verdict
    from guardrail.oracles.base import State
    from guardrail.policy import Policy
    from guardrail.store.base import DecisionRecord, Store

TOLERANCE = 1e-9
"""Largest difference between a logged and a recomputed number, absolute below 1 and relative above."""

BATCH = 256
"""Decisions on one posterior that are bounded together."""
_JUDGES_KEPT = 8
FOR_WANT_OF_BUDGET = frozenset({ReasonCode.BUDGET_EXHAUSTED, ReasonCode.BUDGET_CHANGED, ReasonCode.SESSION_MISSING})
"""Reasons with which a harm budget refuses what the bound accepts."""

_SAID_OF_APPROVALS = frozenset(
    {
        ReasonCode.APPROVED,
        ReasonCode.APPROVAL_UNKNOWN,
        ReasonCode.APPROVAL_PENDING,
        ReasonCode.APPROVAL_DENIED,
        ReasonCode.APPROVAL_EXPIRED,
        ReasonCode.APPROVAL_USED,
        ReasonCode.APPROVAL_MISMATCH,
    }
)

_OVERRULING = FOR_WANT_OF_BUDGET | _SAID_OF_APPROVALS | {ReasonCode.OUTCOME_OVERDUE}

_FIELDS = (
    "decision",
    "harm_bound",
    "threshold",
    "escalate_above",
    "predictive_harm",
    "policy",
    "policy_revision",
    "world",
    "posterior_revision",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the log and the recomputation differ.

    Attributes:
        field: the verdict's field, dotted if nested; or what the recomputation lacks: `record`,
            `policy_document`, `observations`.
        logged: what the log says.
        recomputed: what the recomputation says, or why there is none.
    """

    field: str
    logged: JsonValue
    recomputed: JsonValue


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision of the log, recomputed.

    Attributes:
        record: as it is in the log.
        differences: empty if the recomputation agrees.
    """

    record: DecisionRecord
    differences: tuple[Difference, ...]


class Place(NamedTuple):
    """What the decisions that are recomputed one after the other have in common."""

    policy: str
    world: str
    generation: int
    policy_revision: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision of the log, read.

    Attributes:
        record: as it is in the log.
        verdict: as `records.verdict_to_dict` writes it.
        context: what was asked.
        action: what was asked.
    """

    record: DecisionRecord
    verdict: dict[str, Any]
    context: JsonObject
    action: JsonObject


def replay(
    store: Store, *, policy: str | None = None, world: str | None = None, policies: Sequence[Policy] = ()
) -> Iterator[Replayed]:
    """Recompute the decisions that are in the log when iteration starts, in the log's order.

    Only reads, so the store may be open read-only while a service writes to it.

    Args:
        store: where the logs lie.
        policy: only decisions of this policy.
        world: only decisions of this world.
        policies: policies whose hypotheses are programs. The store has their documents, not their code; decisions
            of a revision that is not among them cannot be recomputed.

    :raises StoreCorrupt: if a record's checksum does not fit it.
    :raises StoreError: if the store cannot be read.
    """
    judges = _Judges(store, policies)
    for place, records in itertools.groupby(store.decisions(policy, world), place_of):
        try:
            forward = Forward(judges.get(place.policy_revision), store, place)
        except IrreproducibleError as error:
            yield from (Replayed(record, (error.difference,)) for record in records)
            continue
        for revision, same in itertools.groupby(records, lambda record: record.posterior_revision):
            while batch := list(itertools.islice(same, BATCH)):
                yield from _recompute(forward, revision, batch)


def compare(logged: Mapping[str, Any], verdict: Verdict) -> tuple[Difference, ...]:
    """Where a logged verdict (as `records.verdict_to_dict` writes it) differs from a recomputed one.

    Compared are the decision, the codes of the reasons, what the guarantee promises, and every number.
    Two hypotheses may be equally cautious, so another name with the same harm is no difference. How far a
    search went by its deadline depends on the clock: of a truncated one the bound must be at least the
    recomputed one, which is searched to the end, and an accept must be one by the logged bound.
    """
    left, right = _flat(logged), _flat(verdict_to_dict(verdict))
    if (logged.get("search") or {}).get("truncated"):
        left, right = _without_what_the_clock_decides(left, right)
    if left.pop("cautious_hypothesis.name", None) != right.pop("cautious_hypothesis.name", None):
        for side in (left, right):
            for name in [n for n in side if n.startswith("cautious_hypothesis.") and n != "cautious_hypothesis.harm"]:
                del side[name]
    names = sorted(left.keys() | right.keys())
    return tuple(Difference(n, left.get(n), right.get(n)) for n in names if not _same(left.get(n), right.get(n)))


def _without_what_the_clock_decides(
    logged: dict[str, Any], fresh: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    skipped = {"predictive_harm", "reasons"}
    if logged["harm_bound"] >= fresh["harm_bound"] - TOLERANCE:
        skipped.add("harm_bound")
    limits = [limit for limit in (logged["threshold"], logged["escalate_above"]) if limit is not None]
    if found_in(logged) != "accept" or logged["harm_bound"] <= min(limits):
        skipped |= {"decision", "enforced_decision"} if logged["shadow"] == fresh["shadow"] else set()
    left, right = (
        {name: v for name, v in side.items() if name not in skipped and not name.startswith("cautious_hypothesis.")}
        for side in (logged, fresh)
    )
    return left, right


class IrreproducibleError(Exception):
    """The logs do not hold what a recomputation needs."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.field)
        self.difference = difference


class _Judges:
    """Compiled policies by revision; the most recent ones are kept."""

    def __init__(self, store: Store, policies: Sequence[Policy]) -> None:
        self._store = store
        self._programs = {policy.revision: policy for policy in policies if policy.program is not None}
        self._kept: OrderedDict[str, Judge] = OrderedDict()

    def get(self, revision: str) -> Judge:
        judge = self._kept.pop(revision, None) or self._compile(revision)
        self._kept[revision] = judge
        if len(self._kept) > _JUDGES_KEPT:
            self._kept.popitem(last=False)
        return judge

    def _compile(self, revision: str) -> Judge:
        document = self._store.policy_document(revision)
        if document is None:
            raise IrreproducibleError(Difference("policy_document", revision, "not in the store"))
        try:
            judge = Judge(self._programs[revision] if revision in self._programs else parse_policy(document))
        except GuardrailError as error:
            first = str(error.problems[0]) if isinstance(error, PolicyError) else str(error)
            raise IrreproducibleError(Difference("policy_document", revision, first)) from error
        if judge.policy.revision != revision:
            raise IrreproducibleError(Difference("policy_document", revision, judge.policy.revision))
        return judge


class Forward:
    """A world's posterior, moved forward through the observation log of one generation."""

    def __init__(self, judge: Judge, store: Store, place: Place) -> None:
        self.judge = judge
        self._records = store.observations(place.policy, place.world, generation=place.generation)
        self._state = judge.oracle.init()
        self._revision = 0
        self._misfit: str | None = None
        self._first_assumed: int | None = None

    def assumed(self, revision: int) -> bool:
        """Whether the state after `revision` observations (`state` was asked for it) rests on an assumed one."""
        return self._first_assumed is not None and revision >= self._first_assumed

    def state(self, revision: int) -> State:
        """The state after `revision` observations; revisions must not decrease.

        :raises IrreproducibleError: if the log is too short, or an observation does not fit the policy.
        """
        while self._revision < revision and self._misfit is None:
            chunk = list(itertools.islice(self._records, min(CHUNK, revision - self._revision)))
            if not chunk:
                message = f"the log holds {self._revision} observations"
                raise IrreproducibleError(Difference("observations", revision, message))
            try:
                self._state = observe_records(self.judge, self._state, chunk)
            except WorldUnavailable as error:
                self._misfit = str(error)
            self._revision = chunk[-1].sequence
            if self._first_assumed is None:
                self._first_assumed = next((one.sequence for one in chunk if one.reporter == ASSUMED_BY), None)
        if self._misfit is not None and revision > 0:
            raise IrreproducibleError(Difference("observations", revision, self._misfit))
        return self._state


def _recompute(forward: Forward, revision: int, records: list[DecisionRecord]) -> Iterator[Replayed]:
    entries = [read(record) for record in records]
    readable = [entry for entry in entries if isinstance(entry, Logged)]
    try:
        state = forward.state(revision)
    except IrreproducibleError as error:
        yield from (Replayed(record, (error.difference,)) for record in records)
        return
    verdicts = iter(judged(forward.judge, state, readable, assumed=forward.assumed(revision)))
    for entry in entries:
        if isinstance(entry, Logged):
            yield Replayed(entry.record, (*_columns(entry), *compare(entry.verdict, next(verdicts))))
        else:
            yield entry


def judged(judge: Judge, state: State, entries: Sequence[Logged], *, assumed: bool) -> list[Verdict]:
    """What a policy says to logged questions in a state that is the same for all of them.

    `assumed` says that the state rests on an outcome that was taken for harm.
    """
    prepared = [judge.prepare(entry.context, entry.action) for entry in entries]
    computed = judge.bounds(state, prepared)
    # That outcomes came in while a bound was computed is not in the logs; such a rejection is taken at its word.
    bounds = [STALE if is_stale(e) and b is not None else b for e, b in zip(entries, computed, strict=True)]
    verdicts = [
        judge.decide(p, b, e.record.world, e.record.posterior_revision, generation=e.record.generation, assumed=assumed)
        for p, b, e in zip(prepared, bounds, entries, strict=True)
    ]
    return [_overruled(judge, v, e) for v, e in zip(verdicts, entries, strict=True)]


def _overruled(judge: Judge, verdict: Verdict, entry: Logged) -> Verdict:
    """What became of a verdict by what the logs do not hold: approvals, budgets, outcomes that were overdue.

    What the decision says of those is taken at its word, as far as it could be so: only what the bound lets through
    can be refused for want of budget, no approval lets through what the bound rejects, and an overdue outcome only
    makes a decision more cautious. What was said last stands first.
    """
    codes = [reason["code"] for reason in entry.verdict["reasons"]]
    said = list(itertools.takewhile(lambda code: code in _OVERRULING, codes))
    for place, code in reversed(list(enumerate(said))):
        reason = Reason(ReasonCode(code), "as the decision says")
        if code in FOR_WANT_OF_BUDGET:
            verdict = overruled(verdict, reason) if verdict.found is Decision.ACCEPT else verdict
        elif code == ReasonCode.OUTCOME_OVERDUE:
            timed = judge.policy.spec.reporting.within is not None
            verdict = degraded(verdict, judge.policy.spec.reporting, reason) if timed else verdict
        elif verdict.found is not Decision.REJECT:
            # What was approved and refused after that is a reject, which holds no approval any more.
            accepted = code == ReasonCode.APPROVED and (place > 0 or entry.verdict.get("approval") is not None)
            verdict = instead(verdict, Decision.ACCEPT if accepted else Decision.REJECT, reason)
    return verdict


def read(record: DecisionRecord) -> Logged | Replayed:
    """A decision with its texts read; one that cannot be read comes as a difference."""
    try:
        request, verdict = json.loads(record.request), json.loads(record.verdict)
        verdict_from_dict(verdict)
        context, action = request["context"], request["action"]
        if not (isinstance(context, dict) and isinstance(action, dict)):
            raise TypeError("a context or an action is not an object")
    except (KeyError, ValueError, TypeError) as error:
        return Replayed(record, (Difference("record", "unreadable", f"{type(error).__name__}: {error}"),))
    return Logged(record, verdict, context, action)


def is_stale(entry: Logged) -> bool:
    """True if it was rejected because outcomes kept coming in while its bound was computed."""
    return any(reason["code"] == ReasonCode.STALE_POSTERIOR for reason in entry.verdict["reasons"])


def _columns(entry: Logged) -> Iterator[Difference]:
    """Where a record contradicts the verdict it holds."""
    for name, said in (("decision_id", entry.verdict["decision_id"]), ("decision", found_in(entry.verdict))):
        column = getattr(entry.record, name)
        if column != said:
            yield Difference(f"record.{name}", column, said)


def found_in(verdict: Mapping[str, Any]) -> str:
    """What a logged verdict found, which in shadow mode is not what was done; the record's `decision` says it too."""
    return str(verdict.get("enforced_decision") or verdict["decision"])


def place_of(record: DecisionRecord) -> Place:
    """Where a decision was made; a log's decisions come grouped by it."""
    return Place(record.policy, record.world, record.generation, record.policy_revision)


def _flat(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree, by dotted name."""
    guarantee, cautious = verdict["guarantee"], verdict["cautious_hypothesis"]
    flat = {name: verdict[name] for name in _FIELDS}
    flat |= {"shadow": bool(verdict.get("shadow")), "enforced_decision": verdict.get("enforced_decision")}
    flat["reasons"] = [reason["code"] for reason in verdict["reasons"]]
    flat |= {f"guarantee.{name}": guarantee[name] for name in ("kind", "confidence")}
    if cautious is not None:
        flat |= {f"cautious_hypothesis.{name}": cautious[name] for name in ("name", "harm", "log_posterior")}
        flat |= {f"cautious_hypothesis.parameters.{name}": n for name, n in cautious["parameters"].items()}
    return flat


def _same(logged: Any, fresh: Any) -> bool:
    if not (isinstance(logged, float) and isinstance(fresh, int | float)):
        return bool(logged == fresh)
    if math.isnan(logged) or logged == fresh:
        return math.isnan(logged) == math.isnan(fresh)
    return bool(abs(logged - fresh) <= TOLERANCE * max(1.0, abs(logged), abs(fresh)))
