"""Bring a database to the present schema, or say why that cannot be."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from guardrail.errors import SchemaMismatch, StoreCorrupt
from guardrail.store.tables import SCHEMA_REVISION, VERSION_TABLE, metadata

if TYPE_CHECKING:
    from alembic.config import Config

_version = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
# Alembic hands its context to the migrations through module globals.
_alembic = threading.Lock()


def require_present_schema(connection: sa.Connection, database: str, *, upgrade: bool) -> bool:
    """Check the schema of a database, and bring it up to date if `upgrade` is true.

    Args:
        connection: with `upgrade`, inside a transaction that excludes other writers: all
            migrations are in it, so that they happen altogether or not at all.
        database: what messages call the database.
        upgrade: whether the database may be changed.

    Returns:
        True if anything was changed.

    :raises SchemaMismatch: if it belongs to another program, to a newer version of this one, or
        is older and may not be changed.
    :raises StoreCorrupt: if tables are missing.
    """
    present = set(sa.inspect(connection).get_table_names())
    revision = _revision(connection, database) if VERSION_TABLE in present else None
    if revision == SCHEMA_REVISION:
        missing = sorted(set(metadata.tables) - present)
        if missing:
            raise StoreCorrupt(f"{database} lacks the tables {', '.join(missing)}: restore it from a backup")
        return False
    if revision is None and present:
        raise SchemaMismatch(f"{database} is a database of another program: give another one")
    if revision is not None and revision not in _known_revisions():
        raise SchemaMismatch(
            f"{database} has schema {revision}, this version knows {SCHEMA_REVISION} and older: "
            "install the newer guardrail that wrote it, or give another database"
        )
    if not upgrade:
        what = "is empty" if revision is None else f"has the older schema {revision}"
        raise SchemaMismatch(f"{database} {what}: open it for writing once, for instance with `guardrail serve`")
    _upgrade(connection)
    return True


def _revision(connection: sa.Connection, database: str) -> str:
    rows = connection.execute(sa.select(_version.c.version_num)).scalars().all()
    if len(rows) != 1:
        raise StoreCorrupt(f"{database} does not say its schema version: restore it from a backup")
    return str(rows[0])


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    # The value goes through ConfigParser, to which a percent sign is special.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
