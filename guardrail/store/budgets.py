"""Setting harm bounds aside, inside a transaction that excludes the budget's other writers.

What a budget has spent stands in its row, in whole units (`guardrail.budgets`). Of a window, reservations are taken off
again as they leave it: in the order of their ids, which is that of their times, from the one after `edge`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from guardrail.budgets import Ground, Terms, amount, fits, units_of
from guardrail.domain import ReasonCode
from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store.base import BudgetRecord, Reserved
from guardrail.store.records import checksum
from guardrail.store.rows import RESTORE
from guardrail.store.tables import budgets, reservations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guardrail.store.base import NewReservation

BudgetKey: TypeAlias = tuple[str, str, str]
"""Policy name, world id and session."""

CHUNK = 10_000
"""Most reservations that leave a window in one transaction; those that are left count on."""

MOST = 2**63
"""A sum that a longer window has brought back may be too large for a column; it fits no budget and is not written."""


@dataclass(frozen=True, slots=True)
class _State:
    """A budget's row but for its id and key."""

    per: str
    total: float
    window_seconds: float
    spent: int
    accepts: int
    edge: int
    started_at: float
    last_at: float

    @property
    def terms(self) -> Terms:
        return Terms(self.per, self.total, self.window_seconds)


def key_of(new: NewReservation) -> BudgetKey:
    """The budget that a reservation is for."""
    return str(new.policy), str(new.world), str(new.session)


def reserve(connection: sa.Connection, batch: Sequence[NewReservation], now: float) -> list[Reserved]:
    """Set bounds aside in order.

    :raises StoreError: if a decision id was used with another bound or budget.
    :raises StoreCorrupt: if a record is damaged.
    """
    return [_reserve_one(connection, new, now) for new in batch]


def _reserve_one(connection: sa.Connection, new: NewReservation, now: float) -> Reserved:
    key, terms, units = key_of(new), new.terms, units_of(new.bound)
    if (terms.per == "session") != bool(new.session):
        raise ValueError("a budget for each session needs a session, a window has none")
    found = connection.execute(_select(key)).first()
    if found is None:
        state, budget_id = _State(terms.per, terms.total, terms.window_seconds, 0, 0, 0, now, now), None
    else:
        state, budget_id = _read(found, key), int(found.id)
    if _has_its_share(connection, new, budget_id, units):
        return Reserved(None, state.terms, amount(state.spent))
    if state.terms != terms and "session" in (state.per, terms.per):
        return Reserved(ReasonCode.BUDGET_CHANGED, state.terms, amount(state.spent))
    # A clock that jumps back stands still: what has left a window by a later time would be missing from an earlier one.
    at = max(now, state.last_at)
    if budget_id is not None and state.per == "window":
        moved = _moved(connection, budget_id, state, terms, at)
        if moved != state and moved.spent < MOST:
            _write(connection, key, budget_id, moved)
        state = moved
    if not fits(state.spent, units, terms.total):
        return Reserved(ReasonCode.BUDGET_EXHAUSTED, terms, amount(state.spent))
    state = replace(state, spent=state.spent + units, accepts=state.accepts + 1, last_at=at)
    budget_id = _write(connection, key, budget_id, state)
    ground = new.ground
    delta = None if ground.delta is None else float(ground.delta)
    row = (str(new.decision_id), budget_id, units, at, str(ground.policy_revision), int(ground.generation), delta)
    connection.execute(sa.insert(reservations), dict(zip(_RESERVATION, (*row, checksum(row)), strict=True)))
    return Reserved(None, terms, amount(state.spent))


def _write(connection: sa.Connection, key: BudgetKey, budget_id: int | None, state: _State) -> int:
    """Write a budget's row; its id."""
    values: dict[str, Any] = {name: getattr(state, name) for name in _State.__slots__}
    values["checksum"] = checksum((*key, *astuple(state)))
    if budget_id is not None:
        connection.execute(sa.update(budgets).where(budgets.c.id == budget_id).values(**values))
        return budget_id
    place = dict(zip(("policy", "world", "session"), key, strict=True))
    return int(connection.execute(sa.insert(budgets).returning(budgets.c.id), {**place, **values}).scalar_one())


_RESERVATION = (
    "decision_id",
    "budget_id",
    "units",
    "reserved_at",
    "policy_revision",
    "generation",
    "delta",
    "checksum",
)


def _has_its_share(connection: sa.Connection, new: NewReservation, budget_id: int | None, units: int) -> bool:
    query = sa.select(reservations).where(reservations.c.decision_id == str(new.decision_id))
    row = connection.execute(query).first()
    if row is None:
        return False
    if (row.budget_id, _checked(row)) != (budget_id, units):
        raise StoreError(f"decision {new.decision_id!r} has set aside another bound, or in another budget")
    return True


def _moved(connection: sa.Connection, budget_id: int, state: _State, terms: Terms, at: float) -> _State:
    """The state of a window that ends at a time, under the present terms."""
    end = at - terms.window_seconds
    of_budget = sa.select(reservations).where(reservations.c.budget_id == budget_id)
    spent, edge = state.spent, state.edge
    if terms.window_seconds > state.window_seconds:  # what has left the shorter window is in the longer one again
        back = of_budget.where(reservations.c.id <= edge, reservations.c.reserved_at > end)
        rows = connection.execute(back).all()
        spent += sum(map(_checked, rows))
        edge = min((row.id for row in rows), default=edge + 1) - 1
    gone = of_budget.where(reservations.c.id > edge, reservations.c.reserved_at <= end)
    rows = connection.execute(gone.order_by(reservations.c.id).limit(CHUNK)).all()
    spent -= sum(map(_checked, rows))
    if spent < 0:
        raise StoreCorrupt(f"a harm budget has spent less than its reservations say: {RESTORE}")
    now = replace(state, total=terms.total, window_seconds=terms.window_seconds, spent=spent)
    return replace(now, edge=rows[-1].id, last_at=at) if rows else replace(now, edge=edge)


def _checked(row: sa.Row[Any]) -> int:
    """The units of a reservation.

    :raises StoreCorrupt: if the row is damaged.
    """
    if row.checksum != checksum(tuple(getattr(row, name) for name in _RESERVATION[:-1])):
        raise StoreCorrupt(f"the reservation of decision {row.decision_id!r} is damaged: {RESTORE}")
    return int(row.units)


def _select(key: BudgetKey) -> sa.Select[Any]:
    policy, world, session = key
    return sa.select(budgets).where(budgets.c.policy == policy, budgets.c.world == world, budgets.c.session == session)


def _read(row: sa.Row[Any], key: BudgetKey) -> _State:
    state = _State(*(getattr(row, name) for name in _State.__slots__))
    if row.checksum != checksum((*key, *astuple(state))):
        policy, world, session = key
        what = f"session {session!r}" if session else "the window"
        raise StoreCorrupt(f"the harm budget of {what} in world {world!r} of policy {policy!r} is damaged: {RESTORE}")
    return state


_unknown = sa.func.count() - sa.func.count(reservations.c.delta)
_place = (reservations.c.policy_revision, reservations.c.generation)
_grounds = (
    sa.select(*_place, sa.func.max(reservations.c.delta).label("delta"), _unknown.label("unknown"))
    .group_by(*_place)
    .order_by(*_place)
)


def read_budget(
    read: Callable[[sa.Select[Any]], Sequence[sa.Row[Any]]], key: BudgetKey, now: float
) -> BudgetRecord | None:
    """What a budget has spent; None if nothing ever was.

    :raises StoreCorrupt: if its row is damaged.
    """
    found = read(_select(key))
    if not found:
        return None
    state = _read(found[0], key)
    spent, accepts = state.spent, state.accepts
    counting = reservations.c.budget_id == found[0].id
    if state.per == "window":
        end = max(now, state.last_at) - state.window_seconds
        left = counting & (reservations.c.id > state.edge) & (reservations.c.reserved_at <= end)
        spent -= int(read(sa.select(sa.func.sum(reservations.c.units).label("units")).where(left))[0].units or 0)
        counting &= (reservations.c.id > state.edge) & (reservations.c.reserved_at > end)
        accepts = read(sa.select(sa.func.count().label("n")).select_from(reservations).where(counting))[0].n
    grounds = read(_grounds.where(counting))
    return BudgetRecord(
        *key,
        state.terms,
        amount(max(0, spent)),
        accepts,
        state.started_at,
        tuple(Ground(g.policy_revision, g.generation, None if g.unknown else g.delta) for g in grounds),
    )
