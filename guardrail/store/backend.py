"""What differs from one database to the next, behind one protocol."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from guardrail.errors import StoreError
    from guardrail.store.base import Feed


class Backend(Protocol):
    """An open database with the present schema."""

    database: str
    """What messages call it; holds no password."""
    read_only: bool

    def connect_writer(self) -> sa.Connection:
        """A connection for writing transactions.

        Its commits are durable when they return. Every statement sees all that was committed
        before it, or the transaction excludes every other writer.
        """
        ...

    def exclude(self, connection: sa.Connection, names: Collection[tuple[str, ...]]) -> None:
        """Wait, as the first thing of a writing transaction, until no other one of any process holds one of the names.

        They are held until the transaction ends.
        """
        ...

    def connect_reader(self) -> sa.Connection:
        """A connection for single SELECT statements, each of which sees all that is committed."""
        ...

    def announce(self, connection: sa.Connection, worlds: Collection[tuple[str, str]]) -> None:
        """Tell the feeds of every store, once the transaction is committed, that the logs of these worlds changed."""
        ...

    def acknowledge(self, observations: int) -> None:
        """Take note, after the commit, that so many more observations are in the database."""
        ...

    def follow(self) -> Feed | None:
        """A new feed of what is announced; None if no other store can write meanwhile."""
        ...

    def limit(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """Within the block, a database that does not answer is an error after some seconds, never a wait for ever."""
        ...

    def explain(self, error: Exception) -> StoreError:
        """The error for callers: what happened and what to do."""
        ...

    def close(self) -> None:
        """Close every connection and let another store write."""
        ...


@contextmanager
def as_store_errors(backend: Backend) -> Iterator[None]:
    """Turn what the database, its driver or the operating system raise into a StoreError.

    UnicodeError and OverflowError are text and numbers that a driver cannot encode.
    """
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError, UnicodeError, OverflowError) as error:
        raise backend.explain(error) from error
