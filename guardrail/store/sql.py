"""The store on a SQL database, in SQLAlchemy Core.

A writing transaction names what it reads and then writes, and excludes every other one that names
the same, in any process (`Sessions.write`): a world's log has one writer at a time. What is written
without a name (decisions, policy documents, rows of new worlds) is only ever inserted. Streams read
in chunks of one SELECT each: a reader that pauses holds neither a lock nor a connection.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import StoreError
from guardrail.store.base import (
    Appended,
    DecisionRecord,
    Feed,
    NewObservation,
    ObservationRecord,
    Snapshot,
    WorldRecord,
)
from guardrail.store.lookups import (
    insert_many,
    known_decisions,
    known_observations,
    log_length,
    select_world,
    worlds_of,
)
from guardrail.store.records import WorldKey, decision_checksum, number
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
    read_snapshot,
    snapshot_row,
)
from guardrail.store.sessions import Sessions
from guardrail.store.tables import decisions, observations, policies, snapshots, worlds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guardrail.store.backend import Backend

CHUNK = 2_000
"""Rows of one SELECT of a stream."""
SNAPSHOTS_KEPT = 2
"""The newest, and one more in case that is damaged."""

_set_length = sa.update(worlds).where(worlds.c.id == sa.bindparam("of")).values(observations=sa.bindparam("length"))
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
_select_decision = sa.select(decisions, worlds.c.policy, worlds.c.world).join_from(decisions, worlds)


class SqlStore:
    """`guardrail.store.base.Store` on any `Backend`. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._sessions = Sessions(backend)
        self._world_ids: dict[WorldKey, int] = {}

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
            found = worlds_of(connection, keys)
            lengths = {world: log_length(row) for world, row in found.items()}
            ids = {world: row.id for world, row in found.items()}
            numbered = number(batch, lengths, known_observations(connection, batch, found))
            if numbered.accepted:
                now = time.time()
                rows = [observation_row(ids[new.policy, new.world], at, new, now) for at, new in numbered.accepted]
                connection.execute(_insert_observation, rows)
                grown = [{"of": ids[world], "length": length} for world, length in numbered.lengths.items()]
                connection.execute(_set_length, grown)
        return numbered.results

    def observations(self, policy: str, world: str, after: int = 0) -> Iterator[ObservationRecord]:
        """A world's observations with sequence > after, up to the log's length when iteration starts.

        :raises StoreCorrupt: if a record is damaged or a sequence number is missing.
        :raises StoreError: if the store cannot be read.
        """
        row = self._world(policy, world)
        if row is None:
            return
        last, end = max(after, 0), log_length(row)
        while last < end:
            chunk = self._sessions.read(_select_observation, {"of": row.id, "after": last, "end": end})
            for found in chunk:
                last += 1
                yield read_observation((policy, world), last, found)
            if not chunk:
                raise observation_missing((policy, world), last + 1)

    def observation_count(self, policy: str, world: str) -> int:
        """Length of a world's log; 0 for an unknown world.

        :raises StoreCorrupt: if the log has lost records at its end.
        :raises StoreError: if the store cannot be read.
        """
        row = self._world(policy, world)
        return 0 if row is None else log_length(row)

    def head(self, policy: str, world: str) -> WorldRecord | None:
        """The present log of a world; None if the world was never heard of.

        :raises StoreCorrupt: if the log has lost records at its end.
        :raises StoreError: if the store cannot be read.
        """
        row = self._world(policy, world)
        return None if row is None else WorldRecord(row.policy, row.world, log_length(row))

    def follow(self) -> Feed | None:
        """None: a database file has one writer."""
        return None

    def worlds(self, policy: str | None = None) -> list[WorldRecord]:
        """All worlds with observations, sorted by policy and world.

        :raises StoreError: if the store cannot be read.
        """
        query = sa.select(worlds).where(worlds.c.observations > 0).order_by(worlds.c.policy, worlds.c.world)
        if policy is not None:
            query = query.where(worlds.c.policy == policy)
        return [WorldRecord(row.policy, row.world, row.observations) for row in self._sessions.read(query)]

    def _world(self, policy: str, world: str) -> sa.Row[Any] | None:
        found = self._sessions.read(select_world.where(worlds.c.policy == policy, worlds.c.world == world))
        return found[0] if found else None

    # ------------------------------------------------------------ decisions

    def append_decisions(self, batch: Sequence[DecisionRecord]) -> None:
        """Append decisions in one transaction that is durable when this returns.

        A decision that is in the log with equal content is left as it is, so that a batch whose
        fate is unknown may be appended again.

        :raises StoreError: if the transaction failed, or an id is used with other content; nothing was written.
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
        with self._sessions.write() as connection:
            known = known_decisions(connection, new) if known_may_be_among_them else {}
            for decision_id, checksum in known.items():
                if checksum != decision_checksum(new[decision_id]):
                    raise StoreError(f"the log holds another decision with the id {decision_id!r}")
            records = [record for record in new.values() if record.decision_id not in known]
            world_ids = self._ids_of_worlds(connection, {(record.policy, record.world) for record in records})
            rows = [decision_row(world_ids[record.policy, record.world], record) for record in records]
            insert_many(connection, decisions, rows)
        self._world_ids |= world_ids

    def _ids_of_worlds(self, connection: sa.Connection, keys: set[WorldKey]) -> dict[WorldKey, int]:
        """The keys of the worlds' rows; they never change, so those of committed transactions are kept."""
        ids = {key: self._world_ids[key] for key in keys if key in self._world_ids}
        missing = keys - ids.keys()
        if missing:
            ids |= {key: row.id for key, row in worlds_of(connection, missing).items()}
        return ids

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """One decision; None if it is not in the log.

        :raises StoreCorrupt: if the record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        found = self._sessions.read(_select_decision.where(decisions.c.decision_id == decision_id))
        return read_decision(found[0]) if found else None

    def decisions(self, policy: str | None = None, world: str | None = None) -> Iterator[DecisionRecord]:
        """Decisions in the log when iteration starts, by policy, world, policy revision, posterior revision, time.

        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        end = self._sessions.read(sa.select(sa.func.max(decisions.c.id).label("id")))[0].id
        query = sa.select(worlds.c.id).order_by(worlds.c.policy, worlds.c.world)
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
        """Keep a snapshot; of its world and policy revision, only the two newest stay.

        :raises StoreError: if the transaction failed; nothing was written.
        """
        key = (snapshot.policy, snapshot.world)
        with self._sessions.write([("snapshot", *key)]) as connection:
            row = snapshot_row(worlds_of(connection, [key])[key].id, snapshot)
            same = (snapshots.c.world_id == row["world_id"], snapshots.c.policy_revision == row["policy_revision"])
            connection.execute(sa.delete(snapshots).where(*same, snapshots.c.sequence == row["sequence"]))
            connection.execute(sa.insert(snapshots), row)
            newest = sa.select(snapshots.c.sequence).where(*same).order_by(snapshots.c.sequence.desc())
            oldest_kept = connection.execute(newest.limit(SNAPSHOTS_KEPT)).scalars().all()[-1]
            connection.execute(sa.delete(snapshots).where(*same, snapshots.c.sequence < oldest_kept))

    def latest_snapshot(self, policy: str, world: str, policy_revision: str) -> Snapshot | None:
        """The newest intact snapshot of that revision; None if there is none.

        :raises StoreError: if the store cannot be read.
        """
        query = sa.select(snapshots.c.sequence, snapshots.c.checksum, snapshots.c.payload)
        query = query.join_from(snapshots, worlds).where(worlds.c.policy == policy, worlds.c.world == world)
        query = query.where(snapshots.c.policy_revision == policy_revision).order_by(snapshots.c.sequence.desc())
        for rank in range(SNAPSHOTS_KEPT):
            for row in self._sessions.read(query.limit(1).offset(rank)):
                snapshot = read_snapshot(policy, world, policy_revision, row)
                if snapshot is not None:
                    return snapshot
        return None

    def close(self) -> None:
        """Release everything. Calling it again does nothing."""
        self._sessions.close()
