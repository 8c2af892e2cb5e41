"""Decisions newest first for a person to look at: those that wait to be written, then those of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from guardrail.errors import InvalidInput
from guardrail.server.security.grants import ANYONE, Caller
from guardrail.server.writer import Writer
from guardrail.store.base import Store
from guardrail.store.decisions import LoggedDecision

STEP: Final = 25
"""Most records that are read at once: each may hold as much as a request."""
STEPS: Final = 60
"""Most steps for one page; it may then end early, also empty, with a place to go on from."""
PAGE_CHARACTERS: Final = 2**20
"""Of requests and verdicts: no more records are read once a page holds as many."""

Place: TypeAlias = int | str
"""Behind what the rest of a list begins: a place in the log, or the id of a decision that waited to be written."""

_WAITING = "id:"


@dataclass(frozen=True, slots=True)
class Listed:
    """A decision in a list.

    Attributes:
        decision: the decision.
        place: behind which the rest of the list begins.
    """

    decision: LoggedDecision
    place: Place


class RecentDecisions:
    """Reads the newest decisions. Call it from the event loop."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer, self._store = writer, store

    async def page(
        self, policy: str, world: str, after: Place | None, limit: int, caller: Caller
    ) -> tuple[list[Listed], Place | None]:
        """Decisions that the caller may see, newest first, and where the next page begins; None on the last.

        Args:
            policy: only those of this policy, if not empty.
            world: only those of this world, if not empty.
            after: where the page before ended.
            limit: most of them.
            caller: who looks.

        :raises InvalidInput: if the page before ended with a decision that a crash has lost since.
        :raises StoreCorrupt: if a record is damaged.
        :raises StoreError: if the store cannot be read.
        """
        # Before the log is read: what is written meanwhile is found there, too, and left out.
        waiting = [] if isinstance(after, int) else self._writer.waiting_decisions()

        def wanted(of_policy: str, of_world: str) -> bool:
            return policy in ("", of_policy) and world in ("", of_world) and _sees(caller, of_policy, of_world)

        def read() -> tuple[list[Listed], Place | None]:
            before, rest = self._begin(waiting, after, caller)
            found = [Listed(d, d.verdict.decision_id) for d in rest if wanted(d.verdict.policy, d.verdict.world)]
            if len(found) >= limit:
                return found[:limit], found[limit - 1].place
            known, size = {d.verdict.decision_id for d in waiting}, 0
            for _ in range(STEPS):
                most = min(STEP, limit - len(found))
                page = self._store.recent_decisions(policy or None, world or None, before=before, limit=most)
                for place, record in page.found:
                    if record.decision_id not in known and wanted(record.policy, record.world):
                        found.append(Listed(LoggedDecision.from_record(record), place))
                        size += len(record.request) + len(record.verdict)
                before = page.before
                if before is None or len(found) == limit or size >= PAGE_CHARACTERS:
                    break
            return found, before

        return await asyncio.to_thread(read)

    def _begin(
        self, waiting: Sequence[LoggedDecision], after: Place | None, caller: Caller
    ) -> tuple[int | None, Sequence[LoggedDecision]]:
        """Before which place of the log to begin, and which of those that wait come first.

        :raises InvalidInput: if `after` is the id of no decision, or of one that the caller may not see.
        """
        if after is None:
            return None, waiting
        if isinstance(after, int):
            return after, ()
        for at, decision in enumerate(waiting):
            if decision.verdict.decision_id == after and _sees(caller, decision.verdict.policy, decision.verdict.world):
                return None, waiting[at + 1 :]
        record, place = self._store.decision(after), self._store.decision_place(after)
        if record is None or place is None or not _sees(caller, record.policy, record.world):
            raise InvalidInput("the decision with which the page before ended is not in the log: begin anew")
        return place, ()


def _sees(caller: Caller, policy: str, world: str) -> bool:
    return caller is ANYONE or caller.sees("ListDecisions", policy, world)


def token_of(place: Place | None) -> str:
    """A place as a page token; empty for None."""
    if place is None:
        return ""
    return str(place) if isinstance(place, int) else f"{_WAITING}{place}"


def place_of(token: str) -> Place | None:
    """Where a page begins; None for the first.

    :raises InvalidInput: if the token is not one of `token_of`.
    """
    if not token:
        return None
    if token.startswith(_WAITING):
        return token.removeprefix(_WAITING)
    if not (token.isascii() and token.isdecimal() and int(token) < 2**63):
        raise InvalidInput("page_token is not one that this service gave out")
    return int(token)
