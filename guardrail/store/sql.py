"""The store on a SQL database, in SQLAlchemy Core.

A writing transaction names what it reads and then writes, and excludes every other one that names
the same, in any process (`Sessions.write`): a world's log has one writer at a time. What is written
without a name (decisions, policy documents, rows of new worlds) is only ever inserted. Streams read
in chunks of one SELECT each: a reader that pauses holds neither a lock nor a connection.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import StoreError
from guardrail.store import awaiting
from guardrail.store import escalations as escalated
from guardrail.store.base import (
    Appended,
    BudgetRecord,
    DecisionRecord,
    Feed,
    NewAwaited,
    NewObservation,
    NewReservation,
    ObservationRecord,
    OverdueOutcome,
    RecentDecisions,
    Reserved,
    ResetRecord,
    Snapshot,
    WorldRecord,
)
from guardrail.store.budgets import key_of, read_budget, reserve
from guardrail.store.chains import ChainWriter, read_chain, read_receipt, select_chains
from guardrail.store.lookups import (
    ids_of_logs,
    insert_many,
    is_present,
    known_decisions,
    known_observations,
    log_length,
    present_logs,
    select_log,
)
from guardrail.store.recent import rows_before
from guardrail.store.records import Log, LogKey, Numbered, decision_checksum, number
from guardrail.store.resets import close_log, select_resets
from guardrail.store.rows import (
    OBSERVATION_COLUMNS,
    decision_row,
    observation_missing,
    observation_row,
    plain_decision,
    policy_row,
    read_decision,
    read_observation,
    read_policy_document,
    read_reset,
    read_snapshot,
)
from guardrail.store.sessions import Sessions
from guardrail.store.snapshots import SNAPSHOTS_KEPT, newest_first, save
from guardrail.store.tables import decisions, observations, policies, worlds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from guardrail.approvals import Escalation, EscalationState
    from guardrail.awaiting import Awaited
    from guardrail.domain import Reason
    from guardrail.receipts import Chain, Receipt
    from guardrail.store.backend import Backend

CHUNK = 2_000
"""Rows of one SELECT of a stream."""
MAX_LOG_IDS = 10_000
"""Most logs whose ids are kept: checks name as many worlds as callers like."""

_grow = (
    sa.update(worlds)
    .where(worlds.c.id == sa.bindparam("of"))
    .values(observations=sa.bindparam("length"), creator=sa.bindparam("by"))
)
_insert_observation = sa.insert(observations)
_select_observation: sa.Select[Any] = (
    sa.select(*OBSERVATION_COLUMNS)
    .where(
        observations.c.world_id == sa.bindparam("of"),
        observations.c.sequence > sa.bindparam("after"),
        observations.c.sequence <= sa.bindparam("end"),
    )
    .order_by(observations.c.sequence)
    .limit(CHUNK)
)
_decision_order = (decisions.c.policy_revision, decisions.c.posterior_revision, decisions.c.decided_at, decisions.c.id)
_PLACE = (decisions.c.chain, decisions.c.position, decisions.c.id)
_select_decision = sa.select(decisions, worlds.c.policy, worlds.c.world, worlds.c.generation).join_from(
    decisions, worlds
)


class SqlStore:
    """`guardrail.store.base.Store` on any `Backend`. Safe to use from several threads.

    Args:
        backend: the database.
        signing_key: signs the chain of the decisions that are appended; None for one that is not signed.
    """

    def __init__(self, backend: Backend, signing_key: Ed25519PrivateKey | None = None) -> None:
        self._sessions = Sessions(backend)
        self._chain = ChainWriter(signing_key)
        self._log_ids: dict[LogKey, int] = {}

    # ------------------------------------------------------------ observations

    def append_observations(self, batch: Sequence[NewObservation]) -> list[Appended]:
        """Append a batch in order, in one transaction that is durable when this returns.

        :raises StoreError: if the transaction failed. Nothing was written, unless the connection was lost while it
            was committed: append the same batch again, which counts nothing twice.
        :raises StoreCorrupt: if the log of one of the worlds has lost records.
        """
        if not batch:
            return []
        keys = {(new.policy, new.world) for new in batch}
        with self._sessions.write([("world", *key) for key in keys]) as connection:
            numbered = self._append(connection, batch)
        if numbered.accepted:
            self._sessions.acknowledge(len(numbered.accepted))
        return numbered.results

    def _append(self, connection: sa.Connection, batch: Sequence[NewObservation]) -> Numbered:
        """Append inside a transaction that excludes the worlds' other writers."""
        keys = {(new.policy, new.world) for new in batch}
        present = present_logs(connection, keys)
        logs = {key: Log(log_length(row), row.generation) for key, row in present.items()}
        numbered = number(batch, logs, known_observations(connection, batch, present))
        if not numbered.accepted:
            return numbered
        now = time.time()
        creators: dict[tuple[str, str], str] = {}
        rows = []
        for at, new in numbered.accepted:
            row = present[new.policy, new.world]
            first = row.generation == 1 and row.observations == 0
            creators.setdefault((new.policy, new.world), str(new.reporter) if first else row.creator)
            rows.append(observation_row(row.id, row.generation, at, new, now))
        connection.execute(_insert_observation, rows)
        grown = numbered.lengths.items()
        connection.execute(_grow, [{"of": present[key].id, "length": n, "by": creators[key]} for key, n in grown])
        settled = awaiting.settle(connection, [new for _, new in numbered.accepted], now)
        for place, new in enumerate(batch if settled else ()):
            told = numbered.results[place]
            if (new.policy, new.world, new.observation_id) in settled and not (told.duplicate or told.conflict):
                numbered.results[place] = replace(told, settled=True)
        self._sessions.announce(connection, numbered.lengths)
        return numbered

    def reset_world(self, policy: str, world: str, generation: int, reason: str, caller: str) -> ResetRecord:
        """Close the present log of a world and start the next one; a repeated reset is answered as before.

        :raises WorldNotFound: if the world never held an observation.
        :raises GenerationMismatch: if another log is the present one.
        :raises StoreError: as `append_observations`.
        """
        key = (str(policy), str(world))
        with self._sessions.write([("world", *key)]) as connection:
            record = close_log(connection, key, int(generation), str(reason), str(caller))
            self._sessions.announce(connection, [key])
        return record

    def resets(self, policy: str, world: str) -> list[ResetRecord]:
        """When, why and by whom the logs of a world were closed, the first one first.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        return [read_reset(row) for row in self._sessions.read(select_resets((policy, world)))]

    def observations(
        self, policy: str, world: str, after: int = 0, generation: int | None = None
    ) -> Iterator[ObservationRecord]:
        """Observations of a log with sequence > after, up to the log's length when iteration starts.

        :raises StoreCorrupt: if a record is damaged or a sequence number is missing.
        :raises StoreError: if the store cannot be read.
        """
        row = self._log(policy, world, generation)
        if row is None:
            return
        log = (policy, world, row.generation)
        last, end = max(after, 0), log_length(row)
        while last < end:
            chunk = self._sessions.read(_select_observation, {"of": row.id, "after": last, "end": end})
            for found in chunk:
                last += 1
                yield read_observation(log, last, found)
            if not chunk:
                raise observation_missing(log, last + 1)

    def observation_count(self, policy: str, world: str, generation: int | None = None) -> int:
        """Length of a world's log of a generation, or of its present one; 0 if there is none.

        :raises StoreCorrupt: if the log has lost records at its end.
        :raises StoreError: if the store cannot be read.
        """
        row = self._log(policy, world, generation)
        return 0 if row is None else log_length(row)

    def head(self, policy: str, world: str) -> WorldRecord | None:
        """The present log of a world; None if the world was never heard of.

        :raises StoreCorrupt: if the log has lost records at its end.
        :raises StoreError: if the store cannot be read.
        """
        row = self._log(policy, world, None)
        return None if row is None else WorldRecord(row.policy, row.world, log_length(row), row.generation)

    def follow(self) -> Feed | None:
        """A feed of changes; None for a database file, which has one writer.

        :raises StoreError: if the store was closed.
        """
        return self._sessions.follow()

    def worlds(self, policy: str | None = None) -> list[WorldRecord]:
        """The present logs of all worlds that ever held observations, sorted by policy and world.

        :raises StoreError: if the store cannot be read.
        """
        query = sa.select(worlds).where(sa.or_(worlds.c.observations > 0, worlds.c.generation > 1), is_present)
        if policy is not None:
            query = query.where(worlds.c.policy == policy)
        rows = self._sessions.read(query.order_by(worlds.c.policy, worlds.c.world))
        return [WorldRecord(row.policy, row.world, row.observations, row.generation) for row in rows]

    def worlds_created_by(self, caller: str) -> int:
        """How many worlds have their very first observation from this caller.

        :raises StoreError: if the store cannot be read.
        """
        created = (worlds.c.creator == caller, worlds.c.generation == 1, worlds.c.observations > 0)
        return int(self._sessions.read(sa.select(sa.func.count().label("n")).select_from(worlds).where(*created))[0].n)

    def _log(self, policy: str, world: str, generation: int | None) -> sa.Row[Any] | None:
        which = is_present if generation is None else worlds.c.generation == generation
        found = self._sessions.read(select_log.where(worlds.c.policy == policy, worlds.c.world == world, which))
        return found[0] if found else None

    # ------------------------------------------------------------ decisions

    def append_decisions(self, batch: Sequence[DecisionRecord]) -> None:
        """Append decisions in one transaction that is durable when this returns.

        A decision that is in the log with equal content is left as it is, in its place, so that a batch whose
        fate is unknown may be appended again.

        :raises StoreError: if the transaction failed, or an id is used with other content; nothing was written.
        :raises StoreCorrupt: if somebody else changed the end of this store's chain; nothing was written.
        """
        if not batch:
            return
        new: dict[str, DecisionRecord] = {}
        for record in map(plain_decision, batch):
            if new.setdefault(record.decision_id, record) != record:
                raise StoreError(f"two different decisions have the id {record.decision_id!r}")
        try:
            self._insert_decisions(new)
        except StoreError as error:
            if not isinstance(error.__cause__, sa.exc.IntegrityError):
                raise
            # Rare: only a batch whose fate was unknown is appended again. So ids are not looked for beforehand.
            self._insert_decisions(new, known_may_be_among_them=True)

    def _insert_decisions(self, new: Mapping[str, DecisionRecord], *, known_may_be_among_them: bool = False) -> None:
        with self._sessions.write([self._chain.lock]) as connection:
            known = known_decisions(connection, new) if known_may_be_among_them else {}
            for decision_id, checksum in known.items():
                if checksum != decision_checksum(new[decision_id]):
                    raise StoreError(f"the log holds another decision with the id {decision_id!r}")
            records = [record for record in new.values() if record.decision_id not in known]
            ids = self._ids_of_logs(connection, {_log_of(record) for record in records})
            sealed = self._chain.append(connection, records)
            places = zip(records, sealed, strict=True)
            rows = [decision_row(ids[_log_of(record)], record, self._chain.chain, place) for record, place in places]
            insert_many(connection, decisions, rows)
        self._chain.committed(sealed)
        if len(self._log_ids) + len(ids) > MAX_LOG_IDS:
            self._log_ids = {}
        self._log_ids |= ids

    def _ids_of_logs(self, connection: sa.Connection, keys: set[LogKey]) -> dict[LogKey, int]:
        """The ids of logs; they never change, so those of committed transactions are kept."""
        kept = self._log_ids
        ids = {key: kept[key] for key in keys if key in kept}
        missing = keys - ids.keys()
        if missing:
            ids |= ids_of_logs(connection, missing)
        return ids

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """One decision; None if it is not in the log.

        :raises StoreCorrupt: if the record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(_select_decision.where(decisions.c.decision_id == decision_id))
        return read_decision(found[0]) if found else None

    def decision_place(self, decision_id: str) -> int | None:
        """The place of a decision in the log, as `recent_decisions` counts; None if it is not in the log.

        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(sa.select(decisions.c.id).where(decisions.c.decision_id == decision_id))
        return int(found[0].id) if found else None

    def recent_decisions(
        self, policy: str | None = None, world: str | None = None, *, before: int | None = None, limit: int = 100
    ) -> RecentDecisions:
        """Decisions in the log, the one written last first; see `Store.recent_decisions`.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        rows, following = rows_before(self._sessions.read, policy, world, before, limit)
        return RecentDecisions(tuple((row.id, read_decision(row)) for row in rows), following)

    def decisions(self, policy: str | None = None, world: str | None = None) -> Iterator[DecisionRecord]:
        """Decisions in the log when iteration starts, in the order that `Store.decisions` says.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        end = self._sessions.read(sa.select(sa.func.max(decisions.c.id).label("id")))[0].id
        query = sa.select(worlds.c.id).order_by(worlds.c.policy, worlds.c.world, worlds.c.generation)
        if policy is not None:
            query = query.where(worlds.c.policy == policy)
        if world is not None:
            query = query.where(worlds.c.world == world)
        for row in self._sessions.read(query) if end is not None else ():
            yield from self._decisions_of(row.id, end)

    def _decisions_of(self, world_id: int, end: int) -> Iterator[DecisionRecord]:
        query = _select_decision.where(decisions.c.world_id == world_id, decisions.c.id <= end)
        query = query.order_by(*_decision_order).limit(CHUNK)
        chunk = self._sessions.read(query)
        while chunk:
            yield from map(read_decision, chunk)
            last = chunk[-1]
            place = sa.tuple_(last.policy_revision, last.posterior_revision, last.decided_at, last.id)
            chunk = self._sessions.read(query.where(sa.tuple_(*_decision_order) > place))

    # ------------------------------------------------------------ harm budgets

    def reserve(self, batch: Sequence[NewReservation]) -> list[Reserved]:
        """Set harm bounds aside in order, in one transaction that is durable when this returns.

        :raises StoreError: if the transaction failed, or a decision id was used with another bound or budget.
        :raises StoreCorrupt: if a record is damaged.
        """
        if not batch:
            return []
        with self._sessions.write([("budget", *key) for key in map(key_of, batch)]) as connection:
            return reserve(connection, batch, time.time())

    def budget(self, policy: str, world: str, session: str) -> BudgetRecord | None:
        """What a session, or with an empty name the window of a world, has spent; None if nothing ever was.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        return read_budget(self._sessions.read, (policy, world, session), time.time())

    # ------------------------------------------------------------ awaited outcomes

    def await_outcomes(self, batch: Sequence[NewAwaited], now: float) -> list[Awaited | None]:
        """Keep accepts whose outcomes are to be reported; of worlds where one is overdue, what they owe instead.

        What becomes overdue while the transaction waits for others is overdue.

        :raises StoreError: if the transaction failed, or an id is used already.
        """
        if not batch:
            return []
        asked = time.monotonic()
        with self._sessions.write([("world", new.policy, new.world) for new in batch]) as connection:
            return awaiting.keep(connection, batch, now + (time.monotonic() - asked))

    def release_outcomes(self, policy: str, world: str, decision_ids: Sequence[str], now: float) -> int:
        """Await outcomes of actions no longer that were not taken. How many were awaited.

        :raises DecisionNotFound: if the outcome of any of them was never awaited in this world.
        :raises ReportConflict: if the log of the world holds an outcome of any of them.
        :raises StoreError: if the transaction failed. They may have been released: doing it again is safe.
        """
        with self._sessions.write([("world", policy, world)]) as connection:
            return awaiting.release(connection, policy, world, decision_ids, now)

    def assume_outcomes(self, batch: Sequence[NewObservation], now: float) -> list[Appended | None]:
        """Append outcomes of decisions that are overdue and nobody reported; None for the others.

        :raises StoreError: as `append_observations`.
        """
        if not batch:
            return []
        with self._sessions.write([("world", new.policy, new.world) for new in batch]) as connection:
            overdue = awaiting.still_overdue(connection, batch, now)
            numbered = self._append(connection, [new for new, due in zip(batch, overdue, strict=True) if due])
        if numbered.accepted:
            self._sessions.acknowledge(len(numbered.accepted))
        results = iter(numbered.results)
        return [next(results) if due else None for due in overdue]

    def awaited(self, now: float, policy: str | None = None, world: str | None = None) -> list[Awaited]:
        """What accepted actions owe, for each world whose present log has awaited or assumed outcomes.

        :raises StoreError: if the store cannot be read.
        """
        return awaiting.read_awaited(self._sessions.read, now, policy, world)

    def overdue_outcomes(self, policy: str, world: str, now: float, limit: int) -> list[OverdueOutcome]:
        """Overdue outcomes in the present log of a world, oldest first.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        return list(map(awaiting.read_overdue, self._sessions.read(awaiting.select_overdue(policy, world, now, limit))))

    def first_assumed(self, policy: str, world: str, generation: int) -> int | None:
        """The sequence of the first outcome in a log that was taken for harm; None if there is none.

        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(awaiting.select_first_assumed(policy, world, generation))
        return int(found[0].sequence) if found else None

    # ------------------------------------------------------------ escalations

    def open_escalations(self, batch: Sequence[Escalation]) -> None:
        """Keep new escalations in one transaction that is durable when this returns; those that are there stay.

        :raises StoreError: if the transaction failed, or an id is used for something else; nothing was written.
        """
        if not batch:
            return
        with self._sessions.write([escalated.excluded(new.escalation_id) for new in batch]) as connection:
            escalated.open_new(connection, batch)

    def resolve_escalation(
        self, escalation_id: str, digest: str, approve: bool, approver: str, note: str, now: float
    ) -> Escalation:
        """Take note of what a person says of an escalation; the escalation as it stands.

        :raises EscalationNotFound: if there is none of that id.
        :raises EscalationMismatch: if the digest is another one.
        :raises EscalationClosed: if it was resolved otherwise before, or its time is over.
        :raises StoreError: if the transaction failed. It may have been written: saying the same again is safe.
        """
        with self._sessions.write([escalated.excluded(escalation_id)]) as connection:
            return escalated.resolve(connection, escalation_id, digest, approve, approver, note, now)

    def use_escalation(
        self, escalation_id: str, digest: str, caller: str, decision_id: str, now: float
    ) -> Escalation | Reason:
        """Use an approval up, once; the escalation as it stands, or why it may not be used.

        :raises StoreError: if the transaction failed. It may have been used: the same decision may use it again.
        """
        with self._sessions.write([escalated.excluded(escalation_id)]) as connection:
            return escalated.use(connection, escalation_id, digest, caller, decision_id, now)

    def escalation(self, escalation_id: str) -> Escalation | None:
        """One escalation; None if there is none of that id.

        :raises StoreCorrupt: if the record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(escalated.select_one(escalation_id))
        return escalated.read(found[0]) if found else None

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

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(escalated.select_page(policy, world, state, now, after, limit))
        return [escalated.read(row) for row in found]

    # ------------------------------------------------------------ chains

    def chains(self) -> list[Chain]:
        """The chains of every store that wrote decisions here, sorted by id.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        return [read_chain(row) for row in self._sessions.read(select_chains)]

    def receipts(self) -> Iterator[Receipt]:
        """Receipts of all decisions: first of those without a place in a chain, then by chain and position.

        :raises StoreError: if the store cannot be read.
        """
        placed = sa.and_(decisions.c.chain.is_not(None), decisions.c.position.is_not(None))
        for where, order in ((sa.not_(placed), (decisions.c.id,)), (placed, _PLACE)):
            query = _select_decision.where(where).order_by(*order).limit(CHUNK)
            chunk = self._sessions.read(query)
            while chunk:
                yield from map(read_receipt, chunk)
                last = sa.tuple_(*(getattr(chunk[-1], column.name) for column in order))
                chunk = self._sessions.read(query.where(sa.tuple_(*order) > last))

    # ------------------------------------------------------------ policies and snapshots

    def record_policy(self, name: str, revision: str, document: str) -> None:
        """Keep a policy document under its revision; a revision already there is left as it is.

        :raises StoreError: if the transaction failed; nothing was written.
        """
        with self._sessions.write() as connection:
            insert_many(connection, policies, [policy_row(name, revision, document, time.time())], unless_there=True)

    def policy_document(self, revision: str) -> str | None:
        """The policy document of a revision; None if it was never recorded.

        :raises StoreCorrupt: if the record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(sa.select(policies).where(policies.c.revision == revision))
        return read_policy_document(found[0]) if found else None

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; of its log and policy revision, only the two newest stay.

        :raises StoreError: if the transaction failed, or it names a log that was never started; nothing was written.
        """
        with self._sessions.write([("snapshot", str(snapshot.policy), str(snapshot.world))]) as connection:
            save(connection, snapshot)

    def latest_snapshot(
        self, policy: str, world: str, policy_revision: str, generation: int | None = None
    ) -> Snapshot | None:
        """The newest intact snapshot of that revision, of a log or of the present one; None if there is none.

        :raises StoreError: if the store cannot be read.
        """
        query = newest_first(policy, world, policy_revision, generation)
        for rank in range(SNAPSHOTS_KEPT):
            for row in self._sessions.read(query.limit(1).offset(rank)):
                snapshot = read_snapshot(policy_revision, row)
                if snapshot is not None:
                    return snapshot
        return None

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        self._sessions.close()


def _log_of(record: DecisionRecord) -> LogKey:
    return record.policy, record.world, record.generation
