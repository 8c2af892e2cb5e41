"""Closing a world's log and starting the next one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import GenerationMismatch, WorldNotFound
from guardrail.store.awaiting import any_awaited
from guardrail.store.base import ResetRecord
from guardrail.store.lookups import is_present, log_length, select_log
from guardrail.store.rows import read_reset, reset_row
from guardrail.store.tables import resets, worlds

_resets: sa.Select[Any] = (
    sa.select(
        worlds.c.policy,
        worlds.c.world,
        worlds.c.generation,
        resets.c.observations,
        resets.c.reason,
        resets.c.caller,
        resets.c.reset_at,
        resets.c.checksum,
    )
    .join_from(resets, worlds)
    .order_by(worlds.c.generation)
)

if TYPE_CHECKING:
    from guardrail.store.records import WorldKey


def select_resets(key: WorldKey) -> sa.Select[Any]:
    """The rows of a world's resets, for `read_reset`."""
    return _resets.where(worlds.c.policy == key[0], worlds.c.world == key[1])


def close_log(connection: sa.Connection, key: WorldKey, generation: int, reason: str, caller: str) -> ResetRecord:
    """Close the present log of a world and start the next one, inside a transaction that excludes its other writers.

    :raises WorldNotFound: if the world never held an observation, and no outcome is awaited in it.
    :raises GenerationMismatch: if another log is the present one, and this is not the reset that closed the last one.
    :raises StoreCorrupt: if the log has lost records.
    """
    policy, world = key
    present = select_log.where(worlds.c.policy == policy, worlds.c.world == world, is_present)
    row = connection.execute(present).first()
    if row is None or (row.generation == 1 and row.observations == 0 and not any_awaited(connection, row.id)):
        raise WorldNotFound(f"policy {policy!r} has no world {world!r} that holds observations")
    if generation == row.generation - 1:
        (found,) = connection.execute(select_resets(key).where(worlds.c.generation == generation))
        last = read_reset(found)
        if (last.reason, last.caller) == (reason, caller):
            return last
    if generation != row.generation:
        raise GenerationMismatch(f"world {world!r} is in generation {row.generation}, not {generation}")
    record = ResetRecord(policy, world, generation, log_length(row), reason, caller, time.time())
    connection.execute(sa.insert(resets), reset_row(row.id, record))
    following = {"policy": policy, "world": world, "generation": generation + 1, "creator": row.creator}
    connection.execute(sa.insert(worlds), {**following, "observations": 0})
    return record
