"""Records to rows and back; a row whose checksum fails is StoreCorrupt, never a record.

A checksum tells 1 from 1.0, and a string from an enum's member that equals it, so records are
made of plain values, of the types that come back from the database, before they are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from guardrail.errors import StoreCorrupt
from guardrail.store.base import DecisionRecord, NewObservation, ObservationRecord, Snapshot
from guardrail.store.records import (
    WorldKey,
    decision_checksum,
    observation_checksum,
    policy_checksum,
    snapshot_checksum,
)
from guardrail.store.tables import observations

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

NewRow: TypeAlias = dict[str, object]
"""Column name to value."""

OBSERVATION_COLUMNS = (
    observations.c.sequence,
    observations.c.observation_id,
    observations.c.digest,
    observations.c.content,
    observations.c.recorded_at,
    observations.c.checksum,
)

RESTORE = "restore the database from a backup"


def observation_row(world_id: int, sequence: int, new: NewObservation, recorded_at: float) -> NewRow:
    """The row of a new observation."""
    observation_id, digest, content = str(new.observation_id), str(new.digest), str(new.content)
    world = (str(new.policy), str(new.world))
    return {
        "world_id": world_id,
        "sequence": sequence,
        "observation_id": observation_id,
        "digest": digest,
        "content": content,
        "recorded_at": recorded_at,
        "checksum": observation_checksum(world, sequence, observation_id, digest, content, recorded_at),
    }


def read_observation(world: WorldKey, sequence: int, row: Sequence[Any]) -> ObservationRecord:
    """The observation that stands at a place of a world's log. `row` holds OBSERVATION_COLUMNS.

    :raises StoreCorrupt: if the row is damaged or belongs to another place.
    """
    at, observation_id, digest, content, recorded_at, checksum = row
    if at != sequence:
        raise observation_missing(world, sequence)
    if checksum != observation_checksum(world, sequence, observation_id, digest, content, recorded_at):
        raise StoreCorrupt(f"observation {sequence} of world {world[1]!r} of policy {world[0]!r} is damaged: {RESTORE}")
    return ObservationRecord(sequence, observation_id, content, recorded_at)


def observation_missing(world: WorldKey, sequence: int) -> StoreCorrupt:
    """The error for a gap in a world's log."""
    return StoreCorrupt(f"observation {sequence} of world {world[1]!r} of policy {world[0]!r} is missing: {RESTORE}")


def plain_decision(record: DecisionRecord) -> DecisionRecord:
    """The record with values of exactly the types that come back from the database."""
    return DecisionRecord(
        decision_id=str(record.decision_id),
        policy=str(record.policy),
        policy_revision=str(record.policy_revision),
        world=str(record.world),
        posterior_revision=int(record.posterior_revision),
        decision=str(record.decision),
        request=str(record.request),
        verdict=str(record.verdict),
        decided_at=float(record.decided_at),
    )


def decision_row(world_id: int, record: DecisionRecord) -> NewRow:
    """The row of a new decision; `record` is plain."""
    return {
        "decision_id": record.decision_id,
        "world_id": world_id,
        "policy_revision": record.policy_revision,
        "posterior_revision": record.posterior_revision,
        "decision": record.decision,
        "request": record.request,
        "verdict": record.verdict,
        "decided_at": record.decided_at,
        "checksum": decision_checksum(record),
    }


def read_decision(row: sa.Row[Any]) -> DecisionRecord:
    """The decision of a row of `decisions` joined with `worlds`.

    :raises StoreCorrupt: if the row is damaged.
    """
    record = DecisionRecord(
        row.decision_id,
        row.policy,
        row.policy_revision,
        row.world,
        row.posterior_revision,
        row.decision,
        row.request,
        row.verdict,
        row.decided_at,
    )
    if row.checksum != decision_checksum(record):
        raise StoreCorrupt(f"decision {row.decision_id!r} is damaged: {RESTORE}")
    return record


def policy_row(name: str, revision: str, document: str, recorded_at: float) -> NewRow:
    """The row of a policy document."""
    name, revision, document = str(name), str(revision), str(document)
    return {
        "revision": revision,
        "name": name,
        "document": document,
        "recorded_at": recorded_at,
        "checksum": policy_checksum(revision, name, document, recorded_at),
    }


def read_policy_document(row: sa.Row[Any]) -> str:
    """The document of a row of `policies`.

    :raises StoreCorrupt: if the row is damaged.
    """
    if row.checksum != policy_checksum(row.revision, row.name, row.document, row.recorded_at):
        raise StoreCorrupt(f"the document of policy revision {row.revision!r} is damaged: {RESTORE}")
    return str(row.document)


def snapshot_row(world_id: int, snapshot: Snapshot) -> NewRow:
    """The row of a snapshot."""
    plain = Snapshot(
        str(snapshot.policy),
        str(snapshot.policy_revision),
        str(snapshot.world),
        int(snapshot.sequence),
        bytes(snapshot.payload),
    )
    return {
        "world_id": world_id,
        "policy_revision": plain.policy_revision,
        "sequence": plain.sequence,
        "checksum": snapshot_checksum(plain),
        "payload": plain.payload,
    }


def read_snapshot(policy: str, world: str, policy_revision: str, row: sa.Row[Any]) -> Snapshot | None:
    """The snapshot of a row of `snapshots`; None if it is damaged."""
    if not isinstance(row.payload, bytes):
        return None
    snapshot = Snapshot(str(policy), str(policy_revision), str(world), row.sequence, row.payload)
    return snapshot if row.checksum == snapshot_checksum(snapshot) else None
