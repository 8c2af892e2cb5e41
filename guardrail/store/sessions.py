"""Connections in use: one writer at a time, readers beside it, and nothing after close."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import StoreError
from guardrail.store.backend import Backend, as_store_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Sessions:
    """Writing transactions and reads on a backend. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self.database = backend.database
        self._backend = backend
        self._lock = threading.Lock()
        self._writer: sa.Connection | None = None
        self._closed = False

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that excludes every other writer and is durable once the block is left.

        After a failure the next transaction gets a new connection, whatever state the old one is in.

        :raises StoreError: if the transaction failed; nothing was written.
        """
        with self._lock, as_store_errors(self._backend):
            self._require_open()
            if self._backend.read_only:
                raise StoreError(f"the database {self.database} was opened read-only")
            if self._writer is None:
                self._writer = self._backend.connect_writer()
            try:
                with self._writer.begin():
                    yield self._writer
            except BaseException:
                self._drop_writer()
                raise

    def read(self, query: sa.Select[Any], parameters: Mapping[str, object] | None = None) -> Sequence[sa.Row[Any]]:
        """All rows of one SELECT, which sees everything committed before it.

        :raises StoreError: if the database cannot be read.
        """
        self._require_open()
        with as_store_errors(self._backend), self._backend.connect_reader() as connection:
            return connection.execute(query, parameters).all()

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
