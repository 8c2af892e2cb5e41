"""Durable, append-only records: observations, decisions, policy documents and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from guardrail.store.base import Store

__all__ = ["open_store"]


def open_store(url_or_path: str | os.PathLike[str], *, read_only: bool = False) -> Store:
    """Open the store in a database file, creating or upgrading it if need be.

    One store at a time may write to a database; any number may read it meanwhile. A new
    database is readable and writable by its owner only; its directory must exist.

    Args:
        url_or_path: path of a SQLite database file, or `sqlite:///PATH`.
        read_only: never write, not even to upgrade; allowed while another process writes.

    :raises StoreError: if the database cannot be opened, or another store writes to it.
    :raises StoreCorrupt: if the file is damaged or is not a SQLite database.
    :raises SchemaMismatch: if another program or a newer version of this one wrote the database.
    :raises MissingExtra: if the `server` extra is not installed.
    """
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        from guardrail.errors import MissingExtra

        raise MissingExtra("the store", "server") from error

    from guardrail.store.sql import SqlStore
    from guardrail.store.sqlite import SqliteBackend, database_path

    return SqlStore(SqliteBackend(database_path(url_or_path), read_only=read_only))
