"""What differs from one database to the next, behind one protocol."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.errors import StoreError


class Backend(Protocol):
    """An open database with the present schema."""

    database: str
    """What messages call it."""
    read_only: bool

    def connect_writer(self) -> sa.Connection:
        """A connection on which `begin()` excludes every other writer until the transaction ends.

        Its commits are durable when they return.
        """
        ...

    def connect_reader(self) -> sa.Connection:
        """A connection for single SELECT statements, each of which sees all that is committed."""
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
