"""Awaited outcomes in the database. What changes them runs inside a transaction that excludes their worlds' writers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from guardrail.awaiting import ASSUMED_BY, Awaited
from guardrail.errors import DecisionNotFound, ReportConflict, StoreCorrupt
from guardrail.store.base import NewObservation, OverdueOutcome
from guardrail.store.lookups import chunks, insert_many, is_present, present_logs
from guardrail.store.records import checksum
from guardrail.store.rows import RESTORE
from guardrail.store.tables import awaited, observations, worlds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guardrail.store.base import NewAwaited
    from guardrail.store.records import ObservationKey, WorldKey

AWAITED: Final = "awaited"
REPORTED: Final = "reported"
NOT_TAKEN: Final = "not_taken"
ASSUMED: Final = "assumed"

_FIELDS = tuple(c.name for c in awaited.c if c.name != "checksum")
_unsettled: sa.Select[Any] = (
    sa.select(awaited.c.decision_id, awaited.c.due_at)
    .where(
        awaited.c.state == AWAITED,
        awaited.c.world_id == sa.bindparam("of"),
        awaited.c.due_at <= sa.bindparam("now"),
    )
    .order_by(awaited.c.due_at, awaited.c.decision_id)
)
_oldest_overdue = _unsettled.limit(1)
_overdue_count = sa.select(sa.func.count().label("n")).select_from(
    _unsettled.order_by(None).subquery()  # built once, as all statements of writing transactions
)
_among: sa.Select[Any] = (
    sa.select(awaited, worlds.c.policy, worlds.c.world, is_present.label("present"))
    .join_from(awaited, worlds)
    .where(awaited.c.decision_id.in_(sa.bindparam("keys", expanding=True)))
)
# The reporter stands in the statement itself, so that the database finds the index of just those rows.
_by_assumption: sa.ColumnElement[bool] = observations.c.reporter == sa.literal_column(f"'{ASSUMED_BY}'")
_any_assumed = (
    sa.select(observations.c.sequence).where(observations.c.world_id == sa.bindparam("of"), _by_assumption).limit(1)
)


def keep(connection: sa.Connection, batch: Sequence[NewAwaited], now: float) -> list[Awaited | None]:
    """Keep accepts, but for those in worlds where an outcome is overdue, or was taken for harm and the bound does not
    know of it: for these, what the world owes.

    :raises StoreError: if an id is used already.
    """
    logs = present_logs(connection, [(new.policy, new.world) for new in batch])
    owed = {key: _owed_in(connection, key, int(row.id), now) for key, row in logs.items()}
    answers: list[Awaited | None] = []
    rows = []
    for new in batch:
        state = owed[new.policy, new.world]
        if (not state.overdue or new.approved) and (not state.assumed or new.assumed):
            world_id = int(logs[new.policy, new.world].id)
            fields = (str(new.decision_id), world_id, str(new.policy_revision), float(new.decided_at))
            rows.append(_row((*fields, float(new.due_at), str(new.request), AWAITED, None)))
            answers.append(None)
        else:
            answers.append(state)
    insert_many(connection, awaited, rows)
    return answers


def _owed_in(connection: sa.Connection, key: WorldKey, world_id: int, now: float) -> Awaited:
    """What is overdue in a log, and whether anything was taken for harm; not what is awaited."""
    assumed = 0 if connection.execute(_any_assumed, {"of": world_id}).first() is None else 1
    oldest = connection.execute(_oldest_overdue, {"of": world_id, "now": now}).first()
    if oldest is None:
        return Awaited(*key, assumed=assumed)
    count = int(connection.execute(_overdue_count, {"of": world_id, "now": now}).scalar_one())
    due, decision_id = float(oldest.due_at), str(oldest.decision_id)
    return Awaited(*key, overdue=count, oldest_due=due, oldest=decision_id, assumed=assumed)


def settle(connection: sa.Connection, accepted: Iterable[NewObservation], now: float) -> set[ObservationKey]:
    """Await no longer what these new observations are the outcomes of. Those that were awaited until now."""
    by_id = {new.observation_id: new for new in accepted}
    settled: set[ObservationKey] = set()
    for row in _found(connection, by_id):
        new = by_id[row.decision_id]
        if (row.policy, row.world) != (new.policy, new.world):
            continue
        if row.state == AWAITED:
            settled.add((new.policy, new.world, new.observation_id))
        _move(connection, row, ASSUMED if new.reporter == ASSUMED_BY else REPORTED, now)
    return settled


def still_overdue(connection: sa.Connection, batch: Sequence[NewObservation], now: float) -> list[bool]:
    """Which of the observations are outcomes that are awaited in the present log of their world, and overdue."""
    found = {row.decision_id: row for row in _found(connection, {new.observation_id: new for new in batch})}

    def is_overdue(new: NewObservation) -> bool:
        row = found.get(new.observation_id)
        if row is None or (row.policy, row.world) != (new.policy, new.world):
            return False
        return bool(row.present) and row.state == AWAITED and row.due_at <= now

    return [is_overdue(new) for new in batch]


def release(connection: sa.Connection, policy: str, world: str, decision_ids: Sequence[str], now: float) -> int:
    """Await outcomes of actions no longer that were not taken. How many were awaited.

    :raises DecisionNotFound: if the outcome of any of them was never awaited in this world.
    :raises ReportConflict: if the log holds an outcome of any of them.
    """
    wanted = dict.fromkeys(decision_ids)
    rows = {row.decision_id: row for row in _found(connection, wanted) if (row.policy, row.world) == (policy, world)}
    for decision_id in wanted:
        if decision_id not in rows:
            raise DecisionNotFound(f"no outcome of decision {decision_id!r} was ever awaited in world {world!r}")
        if rows[decision_id].state == ASSUMED:
            raise ReportConflict(f"the outcome of decision {decision_id!r} was overdue and taken for harm")
        if rows[decision_id].state == REPORTED:
            raise ReportConflict(f"the outcome of decision {decision_id!r} was reported, so the action was taken")
    open_ = [row for row in rows.values() if row.state == AWAITED]
    for row in open_:
        _move(connection, row, NOT_TAKEN, now)
    return len(open_)


def read_awaited(
    read: Callable[[sa.Select[Any], dict[str, Any]], Sequence[sa.Row[Any]]],
    now: float,
    policy: str | None,
    world: str | None,
) -> list[Awaited]:
    """What the present logs of worlds owe at a time; of all worlds, or of one."""
    is_open = awaited.c.state == AWAITED
    per_log = sa.select(
        awaited.c.world_id,
        sa.func.sum(sa.case((is_open, 1), else_=0)).label("open"),
        sa.func.sum(sa.case((sa.and_(is_open, awaited.c.due_at <= now), 1), else_=0)).label("overdue"),
        sa.func.min(sa.case((is_open, awaited.c.due_at))).label("oldest_due"),
        sa.func.sum(sa.case((is_open, 0), else_=1)).label("assumed"),
    ).where(awaited.c.state.in_((AWAITED, ASSUMED)))
    if policy is not None and world is not None:
        log = sa.select(worlds.c.id).where(worlds.c.policy == policy, worlds.c.world == world, is_present)
        per_log = per_log.where(awaited.c.world_id.in_(log))
    counted = per_log.group_by(awaited.c.world_id).subquery()
    query = (
        sa.select(worlds.c.policy, worlds.c.world, counted)
        .join_from(counted, worlds, worlds.c.id == counted.c.world_id)
        .where(is_present)
        .order_by(worlds.c.policy, worlds.c.world)
    )
    told = []
    for row in read(query, {}):
        open_, overdue, oldest_due = int(row.open), int(row.overdue), row.oldest_due
        first = read(_oldest_overdue, {"of": row.world_id, "now": oldest_due}) if overdue else ()
        oldest = str(first[0].decision_id) if first else ""
        told.append(Awaited(row.policy, row.world, open_ - overdue, overdue, oldest_due, oldest, int(row.assumed)))
    return told


def select_overdue(policy: str, world: str, now: float, limit: int) -> sa.Select[Any]:
    """Rows for `read_overdue`, oldest first."""
    return (
        sa.select(awaited)
        .join_from(awaited, worlds)
        .where(worlds.c.policy == policy, worlds.c.world == world, is_present)
        .where(awaited.c.state == AWAITED, awaited.c.due_at <= now)
        .order_by(awaited.c.due_at, awaited.c.decision_id)
        .limit(limit)
    )


def read_overdue(row: sa.Row[Any]) -> OverdueOutcome:
    """The overdue outcome of a row.

    :raises StoreCorrupt: if the row is damaged.
    """
    _require_intact(row)
    return OverdueOutcome(row.decision_id, row.due_at, row.request)


def select_first_assumed(policy: str, world: str, generation: int) -> sa.Select[Any]:
    """One row with the `sequence` of the first outcome in a log that was taken for harm, or none."""
    return (
        sa.select(observations.c.sequence)
        .join_from(observations, worlds)
        .where(worlds.c.policy == policy, worlds.c.world == world, worlds.c.generation == generation, _by_assumption)
        .order_by(observations.c.sequence)
        .limit(1)
    )


def any_awaited(connection: sa.Connection, world_id: int) -> bool:
    """Whether an outcome is awaited in a log."""
    query = sa.select(awaited.c.decision_id).where(awaited.c.state == AWAITED, awaited.c.world_id == world_id).limit(1)
    return connection.execute(query).first() is not None


def _found(connection: sa.Connection, decision_ids: Iterable[str]) -> list[sa.Row[Any]]:
    """The rows of decisions, each intact."""
    rows = [row for keys in chunks(decision_ids) for row in connection.execute(_among, {"keys": keys})]
    for row in rows:
        _require_intact(row)
    return rows


def _move(connection: sa.Connection, row: sa.Row[Any], state: str, now: float) -> None:
    fields = {**{name: getattr(row, name) for name in _FIELDS}, "state": state, "settled_at": float(now)}
    update = sa.update(awaited).where(awaited.c.decision_id == row.decision_id)
    connection.execute(update.values(**_row(tuple(fields.values()))))


def _row(fields: tuple[Any, ...]) -> dict[str, Any]:
    return {**dict(zip(_FIELDS, fields, strict=True)), "checksum": checksum(fields)}


def _require_intact(row: sa.Row[Any]) -> None:
    if row.checksum != checksum(tuple(getattr(row, name) for name in _FIELDS)):
        raise StoreCorrupt(f"the awaited outcome of decision {row.decision_id!r} is damaged: {RESTORE}")
