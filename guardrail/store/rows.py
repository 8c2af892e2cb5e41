"""Records to rows and back; a row whose checksum fails is StoreCorrupt, never a record.

A checksum tells 1 from 1.0, and a string from an enum's member that equals it, so records are
made of plain values, of the types that come back from the database, before they are summed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from guardrail.errors import StoreCorrupt
from guardrail.store.base import DecisionRecord, NewObservation, ObservationRecord, ResetRecord, Snapshot
from guardrail.store.records import (
    LogKey,
    decision_checksum,
    observation_checksum,
    policy_checksum,
    reset_checksum,
    snapshot_checksum,
)
from guardrail.store.tables import observations

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from guardrail.receipts import Sealed

NewRow: TypeAlias = dict[str, object]
"""Column name to value."""

OBSERVATION_COLUMNS = (
    observations.c.sequence,
    observations.c.observation_id,
    observations.c.digest,
    observations.c.content,
    observations.c.recorded_at,
    observations.c.checksum,
    observations.c.reporter,
)

RESTORE = "restore the database from a backup"


def observation_row(world_id: int, generation: int, sequence: int, new: NewObservation, recorded_at: float) -> NewRow:
    """The row of a new observation."""
    observation_id, digest, content, reporter = map(str, (new.observation_id, new.digest, new.content, new.reporter))
    log = (str(new.policy), str(new.world), generation)
    return {
        "world_id": world_id,
        "sequence": sequence,
        "observation_id": observation_id,
        "digest": digest,
        "content": content,
        "recorded_at": recorded_at,
        "checksum": observation_checksum(log, sequence, observation_id, digest, content, recorded_at, reporter),
        "reporter": reporter,
    }


def read_observation(log: LogKey, sequence: int, row: Sequence[Any]) -> ObservationRecord:
    """The observation that stands at a place of a log. `row` holds OBSERVATION_COLUMNS.

    :raises StoreCorrupt: if the row is damaged or belongs to another place.
    """
    at, observation_id, digest, content, recorded_at, checksum, reporter = row
    if at != sequence:
        raise observation_missing(log, sequence)
    if checksum != observation_checksum(log, sequence, observation_id, digest, content, recorded_at, reporter):
        raise StoreCorrupt(f"observation {sequence} of {_named(log)} is damaged: {RESTORE}")
    return ObservationRecord(sequence, observation_id, content, recorded_at, reporter)


def observation_missing(log: LogKey, sequence: int) -> StoreCorrupt:
    """The error for a gap in a log."""
    return StoreCorrupt(f"observation {sequence} of {_named(log)} is missing: {RESTORE}")


def _named(log: LogKey) -> str:
    policy, world, generation = log
    return f"world {world!r} of policy {policy!r}" + ("" if generation == 1 else f" in generation {generation}")


def reset_row(world_id: int, record: ResetRecord) -> NewRow:
    """The row of a reset; `record` is plain."""
    return {
        "world_id": world_id,
        "observations": record.observations,
        "reason": record.reason,
        "caller": record.caller,
        "reset_at": record.reset_at,
        "checksum": reset_checksum(record),
    }


def read_reset(row: sa.Row[Any]) -> ResetRecord:
    """The reset of a row of `resets` joined with `worlds`.

    :raises StoreCorrupt: if the row is damaged.
    """
    record = ResetRecord(row.policy, row.world, row.generation, row.observations, row.reason, row.caller, row.reset_at)
    if row.checksum != reset_checksum(record):
        raise StoreCorrupt(f"the reset of {_named((row.policy, row.world, row.generation))} is damaged: {RESTORE}")
    return record


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
        generation=int(record.generation),
    )


def decision_row(world_id: int, record: DecisionRecord, chain: str, sealed: Sealed) -> NewRow:
    """The row of a new decision with its place in a chain; `record` is plain."""
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
        "chain": chain,
        "position": sealed.position,
        "link": sealed.link,
        "signature": sealed.signature,
    }


def decision_of(row: sa.Row[Any]) -> DecisionRecord:
    """What a row of `decisions` joined with `worlds` says, damaged or not."""
    return DecisionRecord(
        row.decision_id,
        row.policy,
        row.policy_revision,
        row.world,
        row.posterior_revision,
        row.decision,
        row.request,
        row.verdict,
        row.decided_at,
        row.generation,
    )


def read_decision(row: sa.Row[Any]) -> DecisionRecord:
    """The decision of a row of `decisions` joined with `worlds`.

    :raises StoreCorrupt: if the row is damaged.
    """
    record = decision_of(row)
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
        int(snapshot.generation),
    )
    return {
        "world_id": world_id,
        "policy_revision": plain.policy_revision,
        "sequence": plain.sequence,
        "checksum": snapshot_checksum(plain),
        "payload": plain.payload,
    }


def read_snapshot(policy_revision: str, row: sa.Row[Any]) -> Snapshot | None:
    """The snapshot of a row of `snapshots` joined with `worlds`; None if it is damaged."""
    if not isinstance(row.payload, bytes):
        return None
    snapshot = Snapshot(row.policy, str(policy_revision), row.world, row.sequence, row.payload, row.generation)
    return snapshot if row.checksum == snapshot_checksum(snapshot) else None
