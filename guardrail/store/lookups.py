"""What a writing transaction must know before it writes. Each function runs inside one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from guardrail.errors import StoreCorrupt
from guardrail.store.records import Known, ObservationKey, WorldKey
from guardrail.store.rows import RESTORE
from guardrail.store.tables import decisions, observations, worlds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from guardrail.store.base import NewObservation

KEYS_PER_SELECT = 500
"""Keys looked up by one SELECT; databases limit the parameters of a statement."""

Item = TypeVar("Item")

_last_sequence = (
    sa.select(sa.func.max(observations.c.sequence)).where(observations.c.world_id == worlds.c.id).scalar_subquery()
)
select_world: sa.Select[Any] = sa.select(
    worlds.c.id, worlds.c.policy, worlds.c.world, worlds.c.observations, _last_sequence.label("last")
)
"""Worlds with the length that they state (`observations`) and the end of what their log holds (`last`)."""

# Built once: SQLAlchemy spends longer on building a statement than SQLite on running it.
_worlds_among = select_world.where(sa.tuple_(worlds.c.policy, worlds.c.world).in_(sa.bindparam("keys", expanding=True)))
# For one world at a time: SQLite has no index search for pairs of world and id.
_observations_among = sa.select(observations.c.observation_id, observations.c.sequence, observations.c.digest).where(
    observations.c.world_id == sa.bindparam("of"),
    observations.c.observation_id.in_(sa.bindparam("keys", expanding=True)),
)
_decisions_among = sa.select(decisions.c.decision_id, decisions.c.checksum).where(
    decisions.c.decision_id.in_(sa.bindparam("keys", expanding=True))
)


def log_length(row: sa.Row[Any]) -> int:
    """Length of the log of a row of `select_world`.

    :raises StoreCorrupt: if the world's record and its log disagree.
    """
    if row.observations != (row.last or 0):
        raise StoreCorrupt(
            f"the log of world {row.world!r} of policy {row.policy!r} should hold {row.observations} observations "
            f"and ends with {row.last or 0}: {RESTORE}"
        )
    return int(row.observations)


def worlds_of(connection: sa.Connection, keys: Iterable[WorldKey]) -> dict[WorldKey, sa.Row[Any]]:
    """The rows of `select_world` for all keys, creating those worlds that are new."""
    wanted = dict.fromkeys(keys)
    found = _find_worlds(connection, wanted)
    new = [key for key in wanted if key not in found]
    if new:
        # In one order for all writers, so that none waits for the other; one of them creates a world's row.
        rows = [{"policy": policy, "world": world, "observations": 0} for policy, world in sorted(new)]
        insert_many(connection, worlds, rows, unless_there=True)
        found |= _find_worlds(connection, new)
    return found


def known_observations(
    connection: sa.Connection, batch: Sequence[NewObservation], found: Mapping[WorldKey, sa.Row[Any]]
) -> dict[ObservationKey, Known]:
    """Those of the batch's observation ids that the log holds.

    Args:
        connection: inside a writing transaction.
        batch: what is to be appended.
        found: what `worlds_of` gave for the worlds of the batch.
    """
    wanted: dict[WorldKey, list[str]] = {}
    for new in batch:
        wanted.setdefault((new.policy, new.world), []).append(new.observation_id)
    known = {}
    for world, observation_ids in wanted.items():
        if found[world].observations == 0:
            continue
        for keys in _chunks(observation_ids):
            for row in connection.execute(_observations_among, {"of": found[world].id, "keys": keys}):
                known[*world, row.observation_id] = Known(row.sequence, row.digest)
    return known


def insert_many(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, unless_there: bool = False
) -> None:
    """Insert rows that all have the same columns; plain values only.

    With `unless_there`, a row whose key is taken is left out, also if another transaction takes it at the same time.

    The statement goes to the driver as it is: SQLAlchemy's handling of each row's parameters would
    cost more than the database's own work.
    """
    if not rows:
        return
    statement = sa.insert(table).inline().compile(dialect=connection.dialect, column_keys=list(rows[0]))
    names = statement.positiontup
    values = rows if names is None else [tuple(row[name] for name in names) for row in rows]
    text = f"{statement} ON CONFLICT DO NOTHING" if unless_there else str(statement)
    connection.exec_driver_sql(text, list(values))


def known_decisions(connection: sa.Connection, decision_ids: Collection[str]) -> dict[str, bytes]:
    """The checksums of those decisions that the log holds."""
    known = {}
    for keys in _chunks(decision_ids):
        for row in connection.execute(_decisions_among, {"keys": keys}):
            known[row.decision_id] = row.checksum
    return known


def _find_worlds(connection: sa.Connection, keys: Iterable[WorldKey]) -> dict[WorldKey, sa.Row[Any]]:
    found: dict[WorldKey, sa.Row[Any]] = {}
    for chunk in _chunks(keys):
        for row in connection.execute(_worlds_among, {"keys": chunk}):
            found[row.policy, row.world] = row
    return found


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while chunk := list(islice(rest, KEYS_PER_SELECT)):
        yield chunk
