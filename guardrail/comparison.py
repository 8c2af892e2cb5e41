"""Replay recorded traffic through a candidate policy: which decisions would have been others?

Both policies judge every logged question from posteriors over the same observations, as `replay` does for the
policy that decided. What cannot be compared is a doubt and never counts as agreement.

A comparison says what a policy would have done with this traffic; it promises nothing about the next. A policy starts a
new guarantee, and that one holds only if class, prior, delta and thresholds were not chosen from the data that is
replayed through it.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from guardrail.budgets import terms_of
from guardrail.domain import Decision, ReasonCode
from guardrail.errors import LogUnusable
from guardrail.guard import Judge
from guardrail.log_checks import require_decisions
from guardrail.oracles.build import close
from guardrail.outcomes import Policies
from guardrail.records import verdict_from_dict
from guardrail.replay import (
    BATCH,
    FOR_WANT_OF_BUDGET,
    Forward,
    IrreproducibleError,
    Logged,
    found_in,
    is_stale,
    judged,
    place_of,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.domain import JsonObject, Verdict
    from guardrail.policy import Policy
    from guardrail.store.base import DecisionRecord, Store

CAVEAT = (
    "A policy that was tuned on this traffic has no guarantee from it: it starts a new one, which holds only if its "
    "class, prior, delta and thresholds were not chosen from the same data."
)
"""What a person must know who reads a comparison."""

Side: TypeAlias = Literal["log", "old", "new"]

_MISFITS = frozenset(
    {
        ReasonCode.RULE_ERROR,
        ReasonCode.UNKNOWN_FIELD,
        ReasonCode.WRONG_TYPE,
        ReasonCode.INPUT_TOO_LARGE,
        ReasonCode.NOT_FINITE,
        ReasonCode.FEATURE_MISSING,
        ReasonCode.FEATURE_ERROR,
        ReasonCode.UNKNOWN_CATEGORY,
    }
)
"""Reasons of rejections that say that the question does not fit the policy."""
_FAILURES = frozenset({ReasonCode.NUMERICAL_FAILURE, ReasonCode.MODEL_FAILED, ReasonCode.DIAGNOSTICS_FAILED})
"""Reasons of rejections that say that no bound was found: another time, or with more time, there may be one."""

_COLUMNS = ("decision_id", "decision", "policy", "policy_revision", "world", "posterior_revision")


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a decision cannot be compared.

    Attributes:
        side: what is at fault: the log, or one of the policies.
        code: RECORD_UNREADABLE, RECORD_CONTRADICTS, STALE_POSTERIOR, WORLD_UNAVAILABLE (an observation does not fit, or
            is missing), the reason code with which a policy rejects for want of an answer, or the one with which the
            log's policy refused for want of a harm budget that this one does not have.
        message: what is wrong.
    """

    side: Side
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One logged decision under both policies.

    Attributes:
        record: as it is in the log.
        context: what was asked; None if the record cannot be read.
        action: what was asked; None if the record cannot be read.
        old: what the old policy says; None if that cannot be known.
        new: what the new policy says; None if that cannot be known.
        doubt: why they cannot be compared; None if they can.
    """

    record: DecisionRecord
    context: JsonObject | None
    action: JsonObject | None
    old: Verdict | None
    new: Verdict | None
    doubt: Doubt | None

    @property
    def loosens(self) -> bool:
        """True if the new policy accepts what the old one does not."""
        return self.doubt is None and _loosens(self.old, self.new)

    @property
    def flips(self) -> bool:
        """True if the decisions are compared, and differ."""
        if self.doubt is not None or self.old is None or self.new is None:
            return False
        return self.old.found is not self.new.found


def compare(store: Store, old: Policy | None, new: Policy, *, world: str | None = None) -> Iterator[Compared]:
    """Judge every logged decision of a policy anew, in the log's order. Only reads, and holds little in memory.

    Args:
        store: where the logs lie.
        old: the policy to compare with; None compares with the verdicts as they were logged.
        new: the candidate.
        world: only decisions of this world.

    :raises LogUnusable: POLICIES_EQUAL if both are the same policy; OTHER_POLICY if they have different names, or the
        log holds decisions of other policies only; LOG_EMPTY if it holds none.
    :raises PolicyError: if a policy's hypotheses are a program that cannot be loaded.
    :raises StoreCorrupt: if a record's checksum does not fit it.
    :raises StoreError: if the store cannot be read.
    """
    if old is not None and old.name != new.name:
        message = (
            f"OLD is policy {old.name!r} and NEW is {new.name!r}: they have worlds of their own; give two versions"
        )
        raise LogUnusable(message, "OTHER_POLICY")
    if old is not None and old.revision == new.revision:
        message = (
            f"OLD and NEW say the same (revision {new.revision[:12]}): every decision would agree; give two versions"
        )
        raise LogUnusable(message, "POLICIES_EQUAL")
    require_decisions(store, new.name, world)
    return _compare(store, old, new, world)


def _compare(store: Store, old: Policy | None, new: Policy, world: str | None) -> Iterator[Compared]:
    with ExitStack() as stack:
        policies: dict[Side, Policy] = {"new": new} if old is None else {"new": new, "old": old}
        judges: dict[Side, Judge] = {}
        logged_under = Policies(store, list(policies.values()))
        for side, policy in policies.items():
            judges[side] = Judge(policy)
            stack.callback(close, judges[side].oracle)
        for place, records in itertools.groupby(store.decisions(new.name, world), place_of):
            forwards = {side: Forward(judge, store, place) for side, judge in judges.items()}
            for revision, same in itertools.groupby(records, lambda record: record.posterior_revision):
                while batch := list(itertools.islice(same, BATCH)):
                    yield from _batch(forwards, logged_under, revision, batch)


def _batch(
    forwards: dict[Side, Forward], logged_under: Policies, revision: int, records: list[DecisionRecord]
) -> Iterator[Compared]:
    """Decisions on one posterior revision of one world."""
    entries = [_entry(record) for record in records]
    readable = [entry for entry in entries if isinstance(entry, Logged)]
    verdicts: dict[Side, Iterator[Verdict]] = {}
    for side, forward in forwards.items():
        try:
            state = forward.state(revision)
            verdicts[side] = iter(judged(forward.judge, state, readable, assumed=forward.assumed(revision)))
        except IrreproducibleError as error:
            doubt = Doubt(side, "WORLD_UNAVAILABLE", str(error.difference.recomputed))
            yield from (e if isinstance(e, Compared) else _doubtful(e, doubt) for e in entries)
            return
    for entry in entries:
        if isinstance(entry, Compared):
            yield entry
            continue
        new = next(verdicts["new"])
        old = next(verdicts["old"]) if "old" in verdicts else verdict_from_dict(entry.verdict)
        found = _doubt(old, new)
        for side, forward in forwards.items():
            verdict = old if side == "old" else new
            found = _budget_doubt(side, forward.judge.policy, verdict, entry.record, logged_under) or found
        yield Compared(entry.record, entry.context, entry.action, old, new, found)


def _entry(record: DecisionRecord) -> Logged | Compared:
    """A decision that can be compared so far, or the doubt about it."""
    found = read(record)
    if not isinstance(found, Logged):
        message = str(found.differences[0].recomputed)
        return Compared(record, None, None, None, None, Doubt("log", "RECORD_UNREADABLE", message))
    says = {**found.verdict, "decision": found_in(found.verdict)}
    contradiction = next((name for name in _COLUMNS if getattr(record, name) != says[name]), None)
    if contradiction is not None:
        logged, told = getattr(record, contradiction), says[contradiction]
        message = f"{contradiction} is {logged!r}, its verdict says {told!r}"
        return _doubtful(found, Doubt("log", "RECORD_CONTRADICTS", message))
    if is_stale(found):
        message = "it was rejected because outcomes kept coming in; on which posterior it would rest is not in the log"
        return _doubtful(found, Doubt("log", "STALE_POSTERIOR", message))
    return found


def _doubtful(entry: Logged, doubt: Doubt) -> Compared:
    return Compared(entry.record, entry.context, entry.action, None, None, doubt)


def _budget_doubt(
    side: Side, policy: Policy, verdict: Verdict, record: DecisionRecord, logged_under: Policies
) -> Doubt | None:
    """What the log's budget refused is taken at its word for the same budget only: what is spent is not in the log.

    Args:
        side: whose verdict it is.
        policy: of that side.
        verdict: of that side; an accept in whose place there is the log's refusal.
        record: the decision.
        logged_under: the policies of the log.
    """
    code = verdict.reasons[0].code
    if code not in FOR_WANT_OF_BUDGET:
        return None
    under = logged_under.get(record.policy_revision)
    if not isinstance(under, str) and terms_of(under.spec.decision) == terms_of(policy.spec.decision):
        return None
    message = (
        "it was refused for want of a harm budget that this policy does not have: whether its own would do is unknown"
    )
    return Doubt(side, code.value, message)


def _doubt(old: Verdict, new: Verdict) -> Doubt | None:
    """A rejection for want of an answer is no decision to compare, unless both policies refuse the same question."""
    if _loosens(old, new):
        return None
    sides: dict[Side, Verdict] = {"new": new, "old": old}
    codes = {side: {r.code for r in verdict.reasons} & (_MISFITS | _FAILURES) for side, verdict in sides.items()}
    if codes["old"] == codes["new"] and not codes["new"] & _FAILURES:
        return None
    side: Side = "new" if codes["new"] else "old"
    reason = next(r for r in sides[side].reasons if r.code in codes[side])
    return Doubt(side, reason.code.value, reason.message)


def _loosens(old: Verdict | None, new: Verdict | None) -> bool:
    return old is not None and new is not None and new.found is Decision.ACCEPT and old.found is not Decision.ACCEPT
