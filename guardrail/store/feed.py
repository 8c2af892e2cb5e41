"""What any store committed, told by PostgreSQL's notifications."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from guardrail.errors import StoreError
from guardrail.store.base import Changes
from guardrail.store.watchdog import cut_after

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import psycopg

    from guardrail.store.postgres import PostgresBackend

CHANNEL = "guardrail_logs"
_ANNOUNCE = "SELECT pg_notify(%(channel)s, payload) FROM unnest(%(payloads)s::text[]) AS payload"
MAX_PAYLOAD = 7_900
"""Bytes of a notification; PostgreSQL allows 7,999."""
ANSWER_SECONDS = 5
"""For the server to show that it is still there."""


def announce(connection: sa.Connection, worlds: Collection[tuple[str, str]]) -> None:
    """Send a notification for each world, which is delivered when the connection's transaction commits."""
    payloads = [payload(world) for world in worlds]
    connection.exec_driver_sql(_ANNOUNCE, {"channel": CHANNEL, "payloads": payloads})


def payload(world: tuple[str, str]) -> str:
    """The notification for a world; empty if its names are too long, which means any world."""
    text = json.dumps([str(name) for name in world])
    return text if len(text) <= MAX_PAYLOAD else ""


def read_payloads(payloads: Iterable[str]) -> Changes:
    """What notifications say; one that cannot be read means that any world may have changed."""
    worlds, missed = set(), False
    for text in payloads:
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
        match names:
            case [str() as policy, str() as world]:
                worlds.add((policy, world))
            case _:
                missed = True
    return Changes(frozenset(worlds), missed)


class PostgresFeed:
    """`guardrail.store.base.Feed` on a connection of its own, which is made when it is needed."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend
        self._connection: psycopg.Connection | None = None
        self._watched: socket.socket | None = None
        self._in_use = threading.Lock()
        self._closed = False

    def next(self, timeout: float) -> Changes:
        """Wait until something changed, at most `timeout` seconds; then the server must show that it is there.

        The first answer, and the first after a lost connection, has `missed` set.

        :raises StoreError: if the database cannot be reached; calling again tries again.
        """
        import psycopg

        with self._in_use:
            self._require_open()
            try:
                return self._connect() if self._connection is None else self._listen(self._connection, timeout)
            except (psycopg.Error, sa.exc.SQLAlchemyError, OSError) as error:
                self._drop()
                self._require_open()
                raise self._backend.explain(error) from error

    def close(self) -> None:
        """Stop listening. A `next` under way ends soon, with a StoreError. Calling it again does nothing."""
        self._closed = True
        watched = self._watched
        if watched is not None:
            with suppress(OSError):  # it was closed by `next` or is not connected any more
                watched.shutdown(socket.SHUT_RDWR)
        with self._in_use:
            self._drop()

    def _connect(self) -> Changes:
        connection = self._backend.connect_listener()
        self._connection = connection
        self._watched = socket.socket(fileno=os.dup(connection.fileno()))
        self._require_open()  # `close` may have come too early to see the socket
        with cut_after(ANSWER_SECONDS, connection.fileno()):
            connection.execute(f"LISTEN {CHANNEL}")
        return Changes(frozenset(), missed=True)

    def _listen(self, connection: psycopg.Connection, timeout: float) -> Changes:
        notes = [note.payload for note in connection.notifies(timeout=timeout, stop_after=1)]
        if not notes:
            with cut_after(ANSWER_SECONDS, connection.fileno()):
                connection.execute("SELECT 1")
        return read_payloads(notes)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"the feed of {self._backend.database} was closed")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.close()
        if connection is not None:
            with suppress(OSError):
                connection.close()
