"""Decisions newest first, in steps whose cost does not grow with the log.

No index holds decisions in the order in which they were written within a world. A world with few decisions is read
through the index that lists its decisions, which is short for it; everything else along the log's own order, from
window to window, so that what matches nothing costs no more than a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from guardrail.store.tables import decisions, worlds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Read = Callable[[sa.Select[Any]], Sequence[sa.Row[Any]]]

WINDOW: Final = 5_000
"""Places of the log that one step looks at."""
FEW: Final = 50_000
"""Up to so many decisions of a world are looked at through the index that lists them."""
MOST_LOGS: Final = 500
"""Up to so many logs go by one name, over all policies and generations, where that index is used."""

# A sum is in no index: these conditions leave a database no choice of how to find the rows.
_place = decisions.c.id + 0
_select: sa.Select[Any] = sa.select(decisions, worlds.c.policy, worlds.c.world, worlds.c.generation).join_from(
    decisions, worlds, decisions.c.world_id + 0 == worlds.c.id
)


def rows_before(
    read: Read, policy: str | None, world: str | None, before: int | None, limit: int
) -> tuple[Sequence[sa.Row[Any]], int | None]:
    """Rows of decisions, the one written last first, and the place before which to look for more; None at the end.

    Args:
        read: runs one SELECT.
        policy: only those of this policy.
        world: only those of this world.
        before: only those at an earlier place; None to begin with the last one.
        limit: most of them, at least 1.
    """
    if before is None:
        last = read(sa.select(sa.func.max(decisions.c.id).label("id")))[0].id
        before = 1 if last is None else last + 1
    if before <= 1:
        return [], None
    if world is not None:
        logs = _few(read, policy, world)
        if logs is not None:
            return _of_logs(read, logs, before, limit)
    low = max(before - WINDOW, 1)
    query = _select.where(decisions.c.id >= low, decisions.c.id < before)
    if policy is not None:
        query = query.where(worlds.c.policy == policy)
    if world is not None:
        query = query.where(worlds.c.world == world)
    rows = read(query.order_by(decisions.c.id.desc()).limit(limit))
    following = rows[-1].id if len(rows) == limit else low
    return rows, following if following > 1 else None


def _few(read: Read, policy: str | None, world: str) -> list[int] | None:
    """Ids of a world's logs, if they have few decisions together; else None."""
    query = sa.select(worlds.c.id).where(worlds.c.world == world)
    if policy is not None:
        query = query.where(worlds.c.policy == policy)
    logs = [row.id for row in read(query.limit(MOST_LOGS + 1))]
    if len(logs) > MOST_LOGS:
        return None
    some = sa.select(decisions.c.world_id).where(decisions.c.world_id.in_(logs)).limit(FEW + 1).subquery()
    found = read(sa.select(sa.func.count().label("n")).select_from(some))[0].n
    return logs if found <= FEW else None


def _of_logs(read: Read, logs: list[int], before: int, limit: int) -> tuple[Sequence[sa.Row[Any]], int | None]:
    places = sa.select(decisions.c.id).where(decisions.c.world_id.in_(logs), _place < before)
    found = [row.id for row in read(places.order_by(_place.desc()).limit(limit))]
    rows = read(_select.where(decisions.c.id.in_(found)).order_by(decisions.c.id.desc())) if found else []
    return rows, found[-1] if len(found) == limit and found[-1] > 1 else None
