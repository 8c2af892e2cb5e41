"""What a writing transaction must know before it writes. Each function runs inside one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store.records import Known, LogKey, ObservationKey, WorldKey
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
_any_log = worlds.alias("any_log")
is_present = (
    worlds.c.generation
    == sa.select(sa.func.max(_any_log.c.generation))
    .where(_any_log.c.policy == worlds.c.policy, _any_log.c.world == worlds.c.world)
    .correlate(worlds)
    .scalar_subquery()
)
"""Selects the rows of present logs."""
select_log: sa.Select[Any] = sa.select(
    worlds.c.id,
    worlds.c.policy,
    worlds.c.world,
    worlds.c.generation,
    worlds.c.creator,
    worlds.c.observations,
    _last_sequence.label("last"),
)
"""Logs with the length that they state (`observations`) and the end of what they hold (`last`)."""

# Built once: SQLAlchemy spends longer on building a statement than SQLite on running it.
_present_among = select_log.where(
    sa.tuple_(worlds.c.policy, worlds.c.world).in_(sa.bindparam("keys", expanding=True)), is_present
)
_ids_among = sa.select(worlds.c.id, worlds.c.policy, worlds.c.world, worlds.c.generation).where(
    sa.tuple_(worlds.c.policy, worlds.c.world, worlds.c.generation).in_(sa.bindparam("keys", expanding=True))
)
# For one world at a time: SQLite has no index search for pairs of world and id.
_observations_among = sa.select(observations.c.observation_id, observations.c.sequence, observations.c.digest).where(
    observations.c.world_id == sa.bindparam("of"),
    observations.c.observation_id.in_(sa.bindparam("keys", expanding=True)),
)
_logs_of: sa.Select[Any] = sa.select(worlds.c.id, worlds.c.generation, worlds.c.observations).where(
    worlds.c.policy == sa.bindparam("policy"), worlds.c.world == sa.bindparam("world")
)
_decisions_among = sa.select(decisions.c.decision_id, decisions.c.checksum).where(
    decisions.c.decision_id.in_(sa.bindparam("keys", expanding=True))
)


def log_length(row: sa.Row[Any]) -> int:
    """Length of the log of a row of `select_log`.

    :raises StoreCorrupt: if the log's record and what it holds disagree.
    """
    if row.observations != (row.last or 0):
        raise StoreCorrupt(
            f"the log of world {row.world!r} of policy {row.policy!r} should hold {row.observations} observations "
            f"and ends with {row.last or 0}: {RESTORE}"
        )
    return int(row.observations)


def present_logs(connection: sa.Connection, keys: Iterable[WorldKey]) -> dict[WorldKey, sa.Row[Any]]:
    """The rows of `select_log` for the present logs of worlds, creating those of worlds that are new."""
    wanted = dict.fromkeys(keys)
    found = _find_present(connection, wanted)
    new = [(*key, 1) for key in wanted if key not in found]
    if new:
        _create(connection, new)
        found |= _find_present(connection, wanted)
    return found


def ids_of_logs(connection: sa.Connection, keys: Iterable[LogKey]) -> dict[LogKey, int]:
    """The ids of logs, creating the first ones of worlds that are new.

    :raises StoreError: if a later one was never started.
    """
    wanted = dict.fromkeys(keys)
    found = _find_ids(connection, wanted)
    missing = [key for key in wanted if key not in found]
    for policy, world, generation in missing:
        if generation != 1:
            raise StoreError(f"world {world!r} of policy {policy!r} has no generation {generation}")
    if missing:
        _create(connection, missing)
        found |= _find_ids(connection, missing)
    return found


def _create(connection: sa.Connection, new: Sequence[LogKey]) -> None:
    # In one order for all writers, so that none waits for the other; one of them creates a row.
    rows = [{"policy": p, "world": w, "generation": g, "observations": 0} for p, w, g in sorted(new)]
    insert_many(connection, worlds, rows, unless_there=True)


def known_observations(
    connection: sa.Connection, batch: Sequence[NewObservation], present: Mapping[WorldKey, sa.Row[Any]]
) -> dict[ObservationKey, Known]:
    """Those of the batch's observation ids that any log of their world holds.

    Args:
        connection: inside a writing transaction.
        batch: what is to be appended.
        present: what `present_logs` gave for the worlds of the batch.
    """
    wanted: dict[WorldKey, list[str]] = {}
    for new in batch:
        wanted.setdefault((new.policy, new.world), []).append(new.observation_id)
    known = {}
    for world, observation_ids in wanted.items():
        for log in _logs(connection, present[world]):
            if log.observations == 0:
                continue
            for keys in chunks(observation_ids):
                for row in connection.execute(_observations_among, {"of": log.id, "keys": keys}):
                    known[*world, row.observation_id] = Known(row.sequence, row.digest, log.generation)
    return known


def _logs(connection: sa.Connection, present: sa.Row[Any]) -> Sequence[sa.Row[Any]]:
    """All logs of a world."""
    if present.generation == 1:
        return [present]
    return connection.execute(_logs_of, {"policy": present.policy, "world": present.world}).all()


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
    for keys in chunks(decision_ids):
        for row in connection.execute(_decisions_among, {"keys": keys}):
            known[row.decision_id] = row.checksum
    return known


def _find_present(connection: sa.Connection, keys: Iterable[WorldKey]) -> dict[WorldKey, sa.Row[Any]]:
    found: dict[WorldKey, sa.Row[Any]] = {}
    for chunk in chunks(keys):
        for row in connection.execute(_present_among, {"keys": chunk}):
            found[row.policy, row.world] = row
    return found


def _find_ids(connection: sa.Connection, keys: Iterable[LogKey]) -> dict[LogKey, int]:
    found: dict[LogKey, int] = {}
    for chunk in chunks(keys):
        for row in connection.execute(_ids_among, {"keys": chunk}):
            found[row.policy, row.world, row.generation] = row.id
    return found


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """As many items as one SELECT looks up, again and again."""
    rest = iter(items)
    while chunk := list(islice(rest, KEYS_PER_SELECT)):
        yield chunk
