"""Escalations in the database. Each function of a transaction runs inside one that excludes the others by its names."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.approvals import LONGEST_OPEN, Escalation, EscalationState, resolved, used
from guardrail.domain import Reason
from guardrail.errors import EscalationNotFound, StoreCorrupt, StoreError
from guardrail.store.records import escalation_checksum
from guardrail.store.rows import RESTORE
from guardrail.store.tables import escalations

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = tuple(c for c in escalations.c if c.name != "checksum")
"""In the order of the fields of `Escalation`."""

_select: sa.Select[Any] = sa.select(*COLUMNS, escalations.c.checksum)
_open_ended = (EscalationState.PENDING.value, EscalationState.APPROVED.value)


def excluded(escalation_id: str) -> tuple[str, str]:
    """What a transaction that changes an escalation excludes others by."""
    return "escalation", escalation_id


def select_one(escalation_id: str) -> sa.Select[Any]:
    """The row of an escalation, for `read`."""
    return _select.where(escalations.c.escalation_id == escalation_id)


def select_page(
    policy: str | None,
    world: str | None,
    state: EscalationState | None,
    now: float,
    after: tuple[float, str] | None,
    limit: int,
) -> sa.Select[Any]:
    """Rows of escalations, newest first, for `read`.

    None stays open for longer than a policy can say, so of those that are open older ones are not looked at.
    """
    query = _select.order_by(escalations.c.opened_at.desc(), escalations.c.escalation_id.desc()).limit(limit)
    if policy is not None:
        query = query.where(escalations.c.policy == policy)
    if world is not None:
        query = query.where(escalations.c.world == world)
    if after is not None:
        query = query.where(sa.tuple_(escalations.c.opened_at, escalations.c.escalation_id) < sa.tuple_(*after))
    if state is EscalationState.EXPIRED:
        return query.where(escalations.c.state.in_(_open_ended), escalations.c.expires_at <= now)
    if state is not None:
        query = query.where(escalations.c.state == state.value)
        if state.value in _open_ended:
            query = query.where(escalations.c.expires_at > now, escalations.c.opened_at > now - LONGEST_OPEN)
    return query


def read(row: Sequence[Any]) -> Escalation:
    """The escalation of a row.

    :raises StoreCorrupt: if the row is damaged.
    """
    *fields, checksum = row
    if checksum != escalation_checksum(fields):
        raise StoreCorrupt(f"escalation {fields[0]!r} is damaged: {RESTORE}")
    try:
        return _plain(Escalation(*fields))
    except ValueError as error:
        raise StoreCorrupt(f"escalation {fields[0]!r} is in no known state ({error}): {RESTORE}") from error


def open_new(connection: sa.Connection, batch: Sequence[Escalation]) -> None:
    """Insert escalations; one that is there already stays as it stands.

    :raises StoreError: if an id is used for something else.
    """
    for new in map(_plain, batch):
        present = _find(connection, new.escalation_id)
        if present is None:
            connection.execute(sa.insert(escalations), _row(new))
        elif present.digest != new.digest or present.caller != new.caller:
            raise StoreError(f"another escalation has the id {new.escalation_id!r}")


def resolve(
    connection: sa.Connection, escalation_id: str, digest: str, approve: bool, approver: str, note: str, now: float
) -> Escalation:
    """Take note of what a person says.

    :raises EscalationNotFound: if there is none of that id.
    :raises EscalationMismatch, EscalationClosed: as `approvals.resolved`.
    """
    present = _find(connection, escalation_id)
    if present is None:
        raise EscalationNotFound(f"there is no escalation {escalation_id!r}")
    after = resolved(present, digest, approve=approve, approver=approver, note=note, now=now)
    return _keep(connection, present, after)


def use(
    connection: sa.Connection, escalation_id: str, digest: str, caller: str, decision_id: str, now: float
) -> Escalation | Reason:
    """Use an approval up, or say why not."""
    present = _find(connection, escalation_id)
    after = used(present, escalation_id, digest, caller, decision_id, now)
    return after if present is None or isinstance(after, Reason) else _keep(connection, present, after)


def _find(connection: sa.Connection, escalation_id: str) -> Escalation | None:
    row = connection.execute(select_one(escalation_id)).first()
    return None if row is None else read(row)


def _keep(connection: sa.Connection, present: Escalation, after: Escalation) -> Escalation:
    after = _plain(after)
    if after != present:
        where = escalations.c.escalation_id == after.escalation_id
        connection.execute(sa.update(escalations).where(where).values(**_row(after)))
    return after


def _plain(one: Escalation) -> Escalation:
    """With values of exactly the types that come back from the database, but for the state, which is a word of ours."""
    return replace(
        one,
        opened_at=float(one.opened_at),
        expires_at=float(one.expires_at),
        state=EscalationState(one.state),
        resolved_at=None if one.resolved_at is None else float(one.resolved_at),
        used_at=None if one.used_at is None else float(one.used_at),
    )


def _row(one: Escalation) -> dict[str, object]:
    fields = [value.value if isinstance(value, EscalationState) else value for value in astuple(one)]
    return {
        **{c.name: value for c, value in zip(COLUMNS, fields, strict=True)},
        "checksum": escalation_checksum(fields),
    }
