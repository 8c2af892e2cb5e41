"""What a store must do. Every implementation proves itself with `guardrail.testing.store_contract`.

A store is used from any number of threads; those that write take turns. Other stores, in other processes,
may write to the same database at the same time if it allows that (`Store.follow`). A store holds three
append-only records (observations, decisions, policy documents) and snapshots, which are only
a cache: a posterior is a pure function of policy document and observation log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guardrail.approvals import Escalation, EscalationState
    from guardrail.awaiting import Awaited
    from guardrail.budgets import Ground, Terms
    from guardrail.domain import Reason, ReasonCode
    from guardrail.receipts import Chain, Receipt


@dataclass(frozen=True, slots=True)
class NewObservation:
    """An observation to append.

    Attributes:
        policy: policy name.
        world: world id.
        observation_id: the reporter's id, unique within (policy, world).
        digest: SHA-256 (hex) of the canonical content; equal content has an equal digest.
        content: canonical JSON text of {"action": ..., "context": ..., "outcome": ...}.
        reporter: who reported it; empty if callers are not authenticated.
    """

    policy: str
    world: str
    observation_id: str
    digest: str
    content: str
    reporter: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one observation.

    Attributes:
        sequence: its 1-based place in the world's log; that of the first report if it is a duplicate or a conflict.
        duplicate: True if the same id with the same digest was already there, in the present log or a closed one.
        conflict: True if the id was there with another digest; nothing was written for it.
        generation: of the log in which `sequence` counts (see `WorldRecord`): the present one for what is new, that
            of the first report for a duplicate or a conflict.
        settled: True if it is the outcome of a decision of that id, which was awaited until then.
    """

    sequence: int
    duplicate: bool
    conflict: bool
    generation: int = 1
    settled: bool = False


@dataclass(frozen=True, slots=True)
class ObservationRecord:
    """One acknowledged observation.

    Attributes:
        sequence: 1-based place in the world's log, without gaps.
        observation_id: the reporter's id.
        content: canonical JSON text of {"action": ..., "context": ..., "outcome": ...}.
        recorded_at: seconds since the epoch, UTC.
        reporter: who reported it; empty if callers were not authenticated.
    """

    sequence: int
    observation_id: str
    content: str
    recorded_at: float
    reporter: str = ""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One logged decision.

    Attributes:
        decision_id: unique.
        policy: policy name.
        policy_revision: digest of the policy document.
        world: world id.
        posterior_revision: number of observations the decision rests on.
        decision: accept, escalate or reject: what the policy found, also in shadow mode.
        request: canonical JSON text of {"action": ..., "context": ...}.
        verdict: JSON text of the whole verdict.
        decided_at: seconds since the epoch, UTC.
        generation: of the log that the observations are counted in.
    """

    decision_id: str
    policy: str
    policy_revision: str
    world: str
    posterior_revision: int
    decision: str
    request: str
    verdict: str
    decided_at: float
    generation: int = 1


@dataclass(frozen=True, slots=True)
class RecentDecisions:
    """Some records of the decision log, the one written last first.

    Attributes:
        found: the records, each with its place in the log: what was written later has a higher one.
        before: where to look for more; None if there is nothing earlier.
    """

    found: tuple[tuple[int, DecisionRecord], ...]
    before: int | None


@dataclass(frozen=True, slots=True)
class WorldRecord:
    """One world.

    Attributes:
        policy: policy name.
        world: world id.
        observations: length of its present log.
        generation: 1 for its first log; each reset closes the log and starts the next.
    """

    policy: str
    world: str
    observations: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class ResetRecord:
    """The end of one log of a world, and the start of the next.

    Attributes:
        policy: policy name.
        world: world id.
        generation: of the log that was closed; the next one has the next number.
        observations: length of the log that was closed.
        reason: why, in words.
        caller: who asked for it; empty if callers were not authenticated.
        reset_at: seconds since the epoch, UTC.
    """

    policy: str
    world: str
    generation: int
    observations: int
    reason: str
    caller: str
    reset_at: float


@dataclass(frozen=True, slots=True)
class Changes:
    """Which logs have changed since one asked last.

    Attributes:
        worlds: policy name and world id of logs that grew or were reset.
        missed: True if others may have changed as well: look at all of them.
    """

    worlds: frozenset[tuple[str, str]]
    missed: bool


class Feed(Protocol):
    """Tells what any writer, this store included, has committed. Used from one thread."""

    def next(self, timeout: float) -> Changes:
        """Wait until something changed, at most `timeout` seconds. The first answer, and the first after a
        lost connection, has `missed` set.

        :raises StoreError: if the database cannot be reached; calling again tries again.
        """
        ...

    def close(self) -> None:
        """Stop listening. A `next` under way ends soon. Calling it again does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cached state.

    Attributes:
        policy: policy name.
        policy_revision: digest of the policy document it was computed under.
        world: world id.
        sequence: number of observations it rests on.
        payload: the state's arrays; the store checks their integrity, never their meaning.
        generation: of the log that the observations are counted in.
    """

    policy: str
    policy_revision: str
    world: str
    sequence: int
    payload: bytes
    generation: int = 1


@dataclass(frozen=True, slots=True)
class NewReservation:
    """An accept that asks for its share of a harm budget.

    Attributes:
        decision_id: of the verdict; unique.
        policy: policy name.
        world: world id.
        session: the session; empty for a rolling window.
        terms: the policy's budget.
        bound: the harm bound, in [0, 1].
        ground: what the bound rests on.
    """

    decision_id: str
    policy: str
    world: str
    session: str
    terms: Terms
    bound: float
    ground: Ground


@dataclass(frozen=True, slots=True)
class Reserved:
    """What became of one reservation.

    Attributes:
        refused: BUDGET_EXHAUSTED or BUDGET_CHANGED; None if the bound was set aside.
        terms: those that the budget began with; of a window, the present ones.
        spent: what the bounds add up to, this one included if it was set aside; rounded up.
    """

    refused: ReasonCode | None
    terms: Terms
    spent: float


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """What a session, or a window, has spent.

    Attributes:
        policy: policy name.
        world: world id.
        session: the session; empty for a rolling window.
        terms: those that it began with; of a window, those of the last accept.
        spent: what the bounds that count add up to, rounded up.
        accepts: how many count.
        started_at: seconds since the epoch, UTC.
        grounds: what they rest on, one for each revision of the policy and generation of the world.
    """

    policy: str
    world: str
    session: str
    terms: Terms
    spent: float
    accepts: int
    started_at: float
    grounds: tuple[Ground, ...]


@dataclass(frozen=True, slots=True)
class NewAwaited:
    """An accept whose outcome is to be reported within a time.

    Attributes:
        decision_id: of the verdict; unique.
        policy: policy name.
        world: world id.
        policy_revision: digest of the policy document.
        decided_at: seconds since the epoch, UTC.
        due_at: from then on its outcome is overdue.
        request: canonical JSON text of {"action": ..., "context": ...}, as they may be kept; empty if the outcome is
            not to be taken for harm once it is overdue.
        approved: True if it is to be accepted even while another outcome of the world is overdue.
        assumed: True if its bound rests on an outcome that was taken for harm, and says so.
    """

    decision_id: str
    policy: str
    world: str
    policy_revision: str
    decided_at: float
    due_at: float
    request: str = ""
    approved: bool = False
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class OverdueOutcome:
    """An accepted action whose outcome is overdue.

    Attributes:
        decision_id: of the verdict that accepted it.
        due_at: since when, seconds since the epoch, UTC.
        request: as in `NewAwaited`.
    """

    decision_id: str
    due_at: float
    request: str


class Store(Protocol):
    """Durable, append-only records. Every method may block and raises StoreError if the store fails."""

    def append_observations(self, batch: Sequence[NewObservation]) -> list[Appended]:
        """Append a batch in order to the present logs, in one transaction that is durable when this returns.

        Must: number each log's observations 1, 2, ... without gaps; treat a repeated id (in any log of the
        world or earlier in the batch) as a duplicate or a conflict; settle, in the same transaction, what is awaited
        of decisions of these ids; write all or nothing; all this also
        when several stores append to one world, or reset it, at the same time.

        :raises StoreError: if the transaction failed. Nothing was written, unless the connection to the database
            was lost while it was committed: appending the same batch again counts nothing twice.
        """
        ...

    def await_outcomes(self, batch: Sequence[NewAwaited], now: float) -> list[Awaited | None]:
        """Keep accepts whose outcomes are to be reported, in one transaction that is durable when this returns.

        Must: keep each for the present log of its world; keep nothing of a world in which an outcome is overdue at
        `now`, but for what is `approved`, and nothing whose bound does not know yet that an outcome of that log was
        taken for harm (`assumed`); answer these with what the world owes, and None for what is kept; exclude every
        other change of those worlds meanwhile, in any process.

        :raises StoreError: if the transaction failed, or an id is used already. Nothing was kept, unless the connection
            was lost while it was committed.
        """
        ...

    def release_outcomes(self, policy: str, world: str, decision_ids: Sequence[str], now: float) -> int:
        """Await the outcomes of these decisions no longer, because the actions were not taken. How many were awaited.

        Must: be one transaction, durable when this returns; change nothing for those that were released before.

        :raises DecisionNotFound: if the outcome of any of them was never awaited in this world; nothing was released.
        :raises ReportConflict: if the log of the world holds an outcome of any of them; nothing was released.
        :raises StoreError: if the transaction failed. They may have been released: doing it again is safe.
        """
        ...

    def assume_outcomes(self, batch: Sequence[NewObservation], now: float) -> list[Appended | None]:
        """Append outcomes of overdue decisions that nobody reported; durable when this returns.

        Must: append as `append_observations` does, but only what is the outcome of a decision of that id which is
        awaited in the present log and overdue at `now`; answer None for the others.

        :raises StoreError: as `append_observations`.
        """
        ...

    def awaited(self, now: float, policy: str | None = None, world: str | None = None) -> list[Awaited]:
        """What accepted actions owe at `now`, for each world whose present log has awaited or assumed outcomes.

        Args:
            now: seconds since the epoch.
            policy: only this policy; then `world` too.
            world: only this world.
        """
        ...

    def overdue_outcomes(self, policy: str, world: str, now: float, limit: int) -> list[OverdueOutcome]:
        """Overdue outcomes in the present log of a world, oldest first, at most `limit`.

        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def first_assumed(self, policy: str, world: str, generation: int) -> int | None:
        """The sequence of the first outcome in a log that was taken for harm; None if there is none."""
        ...

    def reset_world(self, policy: str, world: str, generation: int, reason: str, caller: str) -> ResetRecord:
        """Close the present log of a world and start the next one; durable when this returns.

        Must: do so in one transaction; close the log only if `generation` is its number; answer as before, and
        do nothing, if the log before the present one is of that generation and was closed with the same reason
        by the same caller; keep the closed log, its snapshots and its decisions.

        :raises WorldNotFound: if the world never held an observation, and no outcome is awaited in it.
        :raises GenerationMismatch: if another log is the present one.
        :raises StoreError: if the transaction failed; as for `append_observations`.
        """
        ...

    def resets(self, policy: str, world: str) -> list[ResetRecord]:
        """When, why and by whom the logs of a world were closed, the first one first.

        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def append_decisions(self, batch: Sequence[DecisionRecord]) -> None:
        """Append decisions in one transaction that is durable when this returns.

        Must: leave a decision that is there with equal content as it is, so that a batch whose
        fate is unknown may be appended again; continue the chain of this store by the others, without gaps and in
        the same transaction (see `guardrail.receipts`); refuse if the chain does not end where this store left it.

        :raises StoreError: if the transaction failed, an id is used with other content, or a decision names a
            log that was never started; nothing was written.
        """
        ...

    def reserve(self, batch: Sequence[NewReservation]) -> list[Reserved]:
        """Set harm bounds aside in order, in one transaction that is durable when this returns.

        Must: never let the bounds that count in a budget exceed its total (`guardrail.budgets`), also when several
        stores reserve at the same time; answer a decision id that has its share already without taking another; refuse
        for a session that began under other terms; count what was reserved in the last `window_seconds` of a window,
        by a clock that never runs backwards (the latest time that was stored); give nothing else back.

        :raises StoreError: if the transaction failed, or a decision id was used with another bound or budget. Nothing
            was reserved, unless the connection was lost while it was committed.
        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def budget(self, policy: str, world: str, session: str) -> BudgetRecord | None:
        """What a session, or with an empty name the window of a world, has spent; None if nothing ever was.

        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def open_escalations(self, batch: Sequence[Escalation]) -> None:
        """Keep new escalations in one transaction that is durable when this returns.

        Must: leave one that is there as it stands, so that a batch whose fate is unknown may be opened again.

        :raises StoreError: if the transaction failed, or an id is used for something else; nothing was written.
        """
        ...

    def resolve_escalation(
        self, escalation_id: str, digest: str, approve: bool, approver: str, note: str, now: float
    ) -> Escalation:
        """Take note of what a person says of an escalation; durable when this returns. The escalation as it stands.

        Must: decide as `approvals.resolved` does, and exclude every other change of it meanwhile, in any process.

        :raises EscalationNotFound: if there is none of that id.
        :raises EscalationMismatch: if the digest is another one.
        :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
        :raises StoreError: if the transaction failed. It may have been written: saying the same again is safe.
        """
        ...

    def use_escalation(
        self, escalation_id: str, digest: str, caller: str, decision_id: str, now: float
    ) -> Escalation | Reason:
        """Use an approval up; durable when this returns. The escalation as it stands, or why it may not be used.

        Must: decide as `approvals.used` does, and exclude every other change of it meanwhile, in any process: of
        decisions that want to use it at the same time exactly one may.

        :raises StoreError: if the transaction failed. It may have been used: the same decision may use it again.
        """
        ...

    def escalation(self, escalation_id: str) -> Escalation | None:
        """One escalation; None if there is none of that id."""
        ...

    def escalations(
        self,
        policy: str | None = None,
        world: str | None = None,
        state: EscalationState | None = None,
        *,
        now: float,
        after: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> list[Escalation]:
        """A page of escalations, newest first.

        Args:
            policy: only those of this policy.
            world: only those of this world.
            state: only those that are in this state at `now`.
            now: seconds since the epoch.
            after: `opened_at` and `escalation_id` of the last one of the page before.
            limit: most of them.
        """
        ...

    def chains(self) -> list[Chain]:
        """The chains of every store that wrote decisions here, sorted by id.

        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def receipts(self) -> Iterator[Receipt]:
        """Receipts of all decisions, damaged ones too: first of those without a place in a chain, in one order,
        then by chain and position."""
        ...

    def record_policy(self, name: str, revision: str, document: str) -> None:
        """Keep a policy document under its revision; a revision already there is left as it is."""
        ...

    def policy_document(self, revision: str) -> str | None:
        """The policy document of a revision; None if it was never recorded."""
        ...

    def observations(
        self, policy: str, world: str, after: int = 0, generation: int | None = None
    ) -> Iterator[ObservationRecord]:
        """Observations of a world's log with sequence > after, in order, without loading all at once.

        The log is that of a generation, or the one that is the present one when iteration starts. Ends with the
        last one that was there then.

        :raises StoreCorrupt: if a record is damaged or a sequence number is missing.
        """
        ...

    def observation_count(self, policy: str, world: str, generation: int | None = None) -> int:
        """Length of a world's log of a generation, or of its present one; 0 if there is none."""
        ...

    def head(self, policy: str, world: str) -> WorldRecord | None:
        """The present log of a world; None if the world was never heard of."""
        ...

    def follow(self) -> Feed | None:
        """A feed of changes; None if no other store can write to this database while this one is open."""
        ...

    def worlds(self, policy: str | None = None) -> list[WorldRecord]:
        """The present logs of all worlds that ever held observations, sorted by policy and world."""
        ...

    def worlds_created_by(self, caller: str) -> int:
        """How many worlds have their very first observation from this caller, whether they were reset since or not."""
        ...

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """One decision; None if it is not in the log."""
        ...

    def decision_place(self, decision_id: str) -> int | None:
        """The place of a decision in the log, as `recent_decisions` counts; None if it is not in the log."""
        ...

    def recent_decisions(
        self, policy: str | None = None, world: str | None = None, *, before: int | None = None, limit: int = 100
    ) -> RecentDecisions:
        """Logged decisions, the one written last first.

        Must: give each of them once to whoever goes on with `RecentDecisions.before` until that is None, in falling
        order of places, whatever is appended meanwhile; look at a bounded part of the log, whatever its length, so
        that fewer than `limit`, or none, may be found although more are there.

        Args:
            policy: only those of this policy.
            world: only those of this world.
            before: only those at an earlier place; None to begin with the last one.
            limit: most of them, at least 1.

        :raises StoreCorrupt: if a record is damaged.
        """
        ...

    def decisions(self, policy: str | None = None, world: str | None = None) -> Iterator[DecisionRecord]:
        """Logged decisions ordered by policy, world, generation, policy revision, posterior revision, time."""
        ...

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; older ones of the same log and policy revision may go.

        :raises StoreError: if it failed, or the snapshot names a log that was never started.
        """
        ...

    def latest_snapshot(
        self, policy: str, world: str, policy_revision: str, generation: int | None = None
    ) -> Snapshot | None:
        """The newest intact snapshot of that revision, of the log of a generation or of the present one.

        None if there is none or it is damaged.
        """
        ...

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        ...
