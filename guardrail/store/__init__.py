"""Durable, append-only records: observations, decisions, policy documents and snapshots."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from guardrail.store.base import Store

__all__ = ["open_store"]


def open_store(
    url_or_path: str | os.PathLike[str], *, read_only: bool = False, signing_key: Ed25519PrivateKey | None = None
) -> Store:
    """Open the store in a database, creating or upgrading its tables if need be.

    In a SQLite file, one store at a time may write; any number may read it meanwhile. A new file is
    readable and writable by its owner only; its directory must exist. In a PostgreSQL database, which
    must exist, any number of stores may write at the same time.

    Args:
        url_or_path: path of a SQLite database file, `sqlite:///PATH`, or
            `postgresql://USER:PASSWORD@HOST/DATABASE?OPTION=...` with libpq's options, for instance `sslmode`.
        read_only: never write, not even to upgrade; allowed while others write.
        signing_key: signs the chain of decisions that this store appends; None for one that is not signed.

    :raises StoreError: if the database cannot be opened, another store writes to the file, or the server does not
        keep what it acknowledges.
    :raises StoreCorrupt: if the database is damaged, or the file is not a SQLite database.
    :raises SchemaMismatch: if another program or a newer version of this one wrote the database.
    :raises MissingExtra: if the `server` extra is not installed, or the `postgres` extra for PostgreSQL.
    """
    from guardrail.errors import MissingExtra

    try:
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise MissingExtra("the store", "server") from error

    from guardrail.store.backend import Backend
    from guardrail.store.postgres import PostgresBackend, database_url, is_postgres
    from guardrail.store.sql import SqlStore
    from guardrail.store.sqlite import SqliteBackend, database_path

    text = os.fspath(url_or_path)
    backend: Backend
    if is_postgres(text):
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingExtra("a store in PostgreSQL", "postgres") from error
        backend = PostgresBackend(database_url(text), read_only=read_only)
    else:
        backend = SqliteBackend(database_path(text), read_only=read_only)
    return SqlStore(backend, signing_key)
