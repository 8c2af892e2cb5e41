"""Connections in use: one writer at a time in this process, readers beside it, and nothing after close."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import StoreError
from guardrail.store.backend import Backend, as_store_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from guardrail.store.base import Feed


class Sessions:
    """Writing transactions and reads on a backend. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self.database = backend.database
        self._backend = backend
        self._lock = threading.Lock()
        self._writer: sa.Connection | None = None
        self._closed = False

    @contextmanager
    def write(self, exclude: Collection[tuple[str, ...]] = ()) -> Iterator[sa.Connection]:
        """A transaction that is durable once the block is left.

        Those of this process come one after the other. After a failure the next transaction gets a new
        connection, whatever state the old one is in.

        Args:
            exclude: names of what the block reads and then writes. Transactions of any process that share one
                exclude each other, so what the block has read about it stays true until it is left.

        :raises StoreError: if the transaction failed. Nothing was written, unless the connection was lost while
            it was committed: then it may have been.
        """
        with self._lock, as_store_errors(self._backend):
            self._require_open()
            if self._backend.read_only:
                raise StoreError(f"the database {self.database} was opened read-only")
            if self._writer is None:
                self._writer = self._backend.connect_writer()
            try:
                with self._backend.limit(self._writer), self._writer.begin():
                    self._backend.exclude(self._writer, exclude)
                    yield self._writer
            except BaseException:
                self._drop_writer()
                raise

    def read(self, query: sa.Select[Any], parameters: Mapping[str, object] | None = None) -> Sequence[sa.Row[Any]]:
        """All rows of one SELECT, which sees everything committed before it.

        :raises StoreError: if the database cannot be read.
        """
        self._require_open()
        with as_store_errors(self._backend):
            try:
                return self._select(query, parameters)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # A server that was restarted since has ended every connection that was kept for reading.
                return self._select(query, parameters)

    def _select(self, query: sa.Select[Any], parameters: Mapping[str, object] | None) -> Sequence[sa.Row[Any]]:
        with self._backend.connect_reader() as connection, self._backend.limit(connection):
            return connection.execute(query, parameters).all()

    def announce(self, connection: sa.Connection, worlds: Collection[tuple[str, str]]) -> None:
        """Tell every feed, once the transaction of `write` is committed, that the logs of these worlds changed."""
        self._backend.announce(connection, worlds)

    def acknowledge(self, observations: int) -> None:
        """Take note, after `write`, that so many more observations are committed.

        :raises StoreError: if that cannot be noted.
        """
        with self._lock, as_store_errors(self._backend):
            self._require_open()
            self._backend.acknowledge(observations)

    def follow(self) -> Feed | None:
        """A feed of what every store announces; None if no other store can write.

        :raises StoreError: if the store was closed.
        """
        self._require_open()
        return self._backend.follow()

    def close(self) -> None:
        """Close every connection, after the present transaction. Calling it again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._drop_writer()
                self._backend.close()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"the database {self.database} was closed")

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(sa.exc.SQLAlchemyError):
                writer.close()
