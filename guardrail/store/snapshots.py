"""Snapshots in the database: the newest ones of each log and policy revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.store.lookups import ids_of_logs, is_present
from guardrail.store.rows import snapshot_row
from guardrail.store.tables import snapshots, worlds

if TYPE_CHECKING:
    from guardrail.store.base import Snapshot

SNAPSHOTS_KEPT = 2
"""The newest, and one more in case that is damaged."""


def save(connection: sa.Connection, snapshot: Snapshot) -> None:
    """Keep a snapshot; of its log and policy revision, only the newest stay.

    :raises StoreError: if it names a log that was never started.
    """
    key = (str(snapshot.policy), str(snapshot.world), int(snapshot.generation))
    row = snapshot_row(ids_of_logs(connection, [key])[key], snapshot)
    same = (snapshots.c.world_id == row["world_id"], snapshots.c.policy_revision == row["policy_revision"])
    connection.execute(sa.delete(snapshots).where(*same, snapshots.c.sequence == row["sequence"]))
    connection.execute(sa.insert(snapshots), row)
    newest = sa.select(snapshots.c.sequence).where(*same).order_by(snapshots.c.sequence.desc())
    oldest_kept = connection.execute(newest.limit(SNAPSHOTS_KEPT)).scalars().all()[-1]
    connection.execute(sa.delete(snapshots).where(*same, snapshots.c.sequence < oldest_kept))


def newest_first(policy: str, world: str, policy_revision: str, generation: int | None) -> sa.Select[Any]:
    """The rows of the snapshots of a log, of a generation or the present one, for `read_snapshot`."""
    query = sa.select(
        worlds.c.policy,
        worlds.c.world,
        worlds.c.generation,
        snapshots.c.sequence,
        snapshots.c.checksum,
        snapshots.c.payload,
    )
    query = query.join_from(snapshots, worlds).where(worlds.c.policy == policy, worlds.c.world == world)
    query = query.where(is_present if generation is None else worlds.c.generation == generation)
    return query.where(snapshots.c.policy_revision == policy_revision).order_by(snapshots.c.sequence.desc())
