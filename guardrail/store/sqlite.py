"""SQLite as a backend: files, pragmas, locking, and what its errors mean."""

from __future__ import annotations

import functools
import os
import sqlite3
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy as sa

from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store.backend import as_store_errors
from guardrail.store.lockfile import LockFile
from guardrail.store.lookups import select_log
from guardrail.store.rows import RESTORE
from guardrail.store.schema import require_present_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from guardrail.store.base import Feed

BUSY_TIMEOUT = 5.0
"""Seconds to wait for a lock; only other programs can hold one."""
WAL_SIZE_LIMIT = 64 * 2**20
"""Bytes that the write-ahead log keeps on disk after a large snapshot went through it."""
CHECKED_SIZE = 128 * 2**20
"""Bytes of the largest database whose tables and indexes are checked whole when it is opened for
writing: about a second. In a larger one damage is found when the damaged record is read."""
_MAGIC = b"SQLite format 3\x00"

_MEANINGS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "is not a SQLite database: restore it from a backup, or give another path"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "is damaged: restore it from a backup"),
    sqlite3.SQLITE_FULL: (StoreError, "has no room left: free some disk space and try again"),
    sqlite3.SQLITE_IOERR: (StoreError, "cannot be read or written: check the disk and its free space"),
    sqlite3.SQLITE_BUSY: (StoreError, "is locked by another program: stop it and try again"),
    sqlite3.SQLITE_READONLY: (StoreError, "may not be written: check the permissions of the file and its directory"),
    sqlite3.SQLITE_CANTOPEN: (StoreError, "cannot be opened: check the permissions of the file and its directory"),
}


def database_path(url_or_path: str | os.PathLike[str]) -> Path:
    """The file that a path or a `sqlite:///PATH` URL names.

    :raises StoreError: if it names another kind of database, or one that is not in a file.
    """
    text = os.fspath(url_or_path)
    if "://" in text:
        try:
            url = sa.make_url(text)
        except sa.exc.ArgumentError as error:
            # The text may hold a password, so the message leaves it out.
            raise StoreError(
                "the store's URL is not well formed: use a file path, sqlite:///PATH or postgresql://..."
            ) from error
        if url.drivername != "sqlite" or url.host or url.query:
            raise StoreError(
                f"cannot open {url.render_as_string()}: use a file path, sqlite:///PATH or postgresql://..."
            )
        text = url.database or ""
    if text in ("", ":memory:"):
        raise StoreError("the store must be a file, so that it outlives the process: give a path")
    if "\x00" in text:
        raise StoreError("the store's path holds a NUL character: give another path")
    return Path(text)


class SqliteBackend:
    """A SQLite database file in WAL mode, upgraded to the present schema.

    :raises StoreError: (or a subclass) as `open_store` says.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.read_only = read_only
        self.database = str(path)
        self._lock: LockFile | None = None
        with as_store_errors(self):
            self._path = Path(os.path.realpath(path))
        self._writers = _engine(functools.partial(self._connect, "rw", _WRITER_PRAGMAS), sa.NullPool)
        self._readers = _engine(
            functools.partial(self._connect, "ro" if read_only else "rw", _READER_PRAGMAS),
            sa.QueuePool,
            max_overflow=-1,
        )
        sa.event.listen(self._writers, "begin", _begin_immediate)
        try:
            with as_store_errors(self):
                self._open_reading() if read_only else self._open_writing()
        except BaseException:
            self.close()
            raise

    def connect_writer(self) -> sa.Connection:
        """A connection whose transactions start with BEGIN IMMEDIATE and sync on commit."""
        return self._writers.connect()

    def exclude(self, connection: sa.Connection, names: Collection[tuple[str, ...]]) -> None:
        """Nothing more to do: the transaction excludes every other writer."""

    def announce(self, connection: sa.Connection, worlds: Collection[tuple[str, str]]) -> None:
        """Nothing to do: there is nobody to tell."""

    def acknowledge(self, observations: int) -> None:
        """Note beside the database how many observations it must hold at least."""
        if self._lock is not None:
            self._lock.acknowledge(observations)

    def follow(self) -> Feed | None:
        """None: the lock keeps every other writer out."""
        return None

    def limit(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """No limit: SQLite waits for locks only, with a limit of its own."""
        return nullcontext()

    def connect_reader(self) -> sa.Connection:
        """A connection that cannot write; every statement is a transaction of its own."""
        return self._readers.connect()

    def explain(self, error: Exception) -> StoreError:
        """What an error of SQLite, SQLAlchemy or the operating system means for the caller."""
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        # The low byte is the kind of error, the rest says where it happened.
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        kind, meaning = _MEANINGS.get(code, (StoreError, "failed"))
        return kind(f"the database {self.database} {meaning} ({cause})")

    def close(self) -> None:
        """Close every connection and release the lock."""
        with suppress(sa.exc.SQLAlchemyError):
            self._writers.dispose()
            self._readers.dispose()
        if self._lock is not None:
            self._lock.release()

    def _open_reading(self) -> None:
        if not self._path.is_file():
            raise StoreError(f"there is no database {self.database} to read: check the path")
        self._require_sqlite_file()
        with self.connect_reader() as connection:
            require_present_schema(connection, self.database, upgrade=False)

    def _open_writing(self) -> None:
        if not self._path.parent.is_dir():
            raise StoreError(f"there is no directory {self._path.parent} for the database: create it")
        # Before anything is written beside it: the path may be a mistake.
        self._require_sqlite_file()
        self._lock = LockFile(self._path.with_name(self._path.name + ".lock"), self.database)
        existed = self._path.exists()  # who deletes it starts without its records
        if existed:
            self._require_not_truncated(self._lock.database_existed)
        _create_private(self._path)
        with self.connect_writer() as connection:
            self._require_intact()
            # A migration that writes a table anew must not delete what refers to it. This connection is not used again.
            _driver(connection).execute("PRAGMA foreign_keys = OFF")
            with connection.begin():
                upgraded = require_present_schema(connection, self.database, upgrade=True)
                if upgraded and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise StoreCorrupt(f"the database {self.database} has records of no world: {RESTORE}")
            held = int(connection.scalar(_held) or 0)
        if existed and held < self._lock.acknowledged:
            raise StoreCorrupt(
                f"the database {self.database} holds {held} observations, and {self._lock.acknowledged} were "
                "acknowledged: its end is lost, or an older copy was put back. Restore the newest backup; to go on "
                f"without the rest, delete {self._lock.path}"
            )
        self._lock.record_holder(held)

    def _require_sqlite_file(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            start = file.read(len(_MAGIC))
        if start not in (b"", _MAGIC):
            raise StoreCorrupt(f"the database {self.database} {_MEANINGS[sqlite3.SQLITE_NOTADB][1]}")

    def _require_not_truncated(self, existed: bool) -> None:
        """SQLite takes an empty file for a new database and a short last page for one that ends in zeros."""
        size = self._path.stat().st_size
        if size == 0 and existed:
            raise StoreCorrupt(
                f"the database {self.database} is empty but was not: restore it from a backup, "
                "or delete the file to start without its records"
            )
        wal = self._path.with_name(self._path.name + "-wal")
        if size and not wal.exists():  # what a crash cut short is whole again after the log is replayed
            with self._path.open("rb") as file:
                page = int.from_bytes(file.read(18)[16:18], "big")
            # The two bytes cannot hold the largest page size, 65,536, which stands there as 1.
            if page == 0 or size % (2**16 if page == 1 else page):
                raise StoreCorrupt(f"the database {self.database} is cut short: restore it from a backup")

    def _require_intact(self) -> None:
        if self._path.stat().st_size > CHECKED_SIZE:
            return
        # Through a reader's connection, which begins no transaction by itself.
        with self.connect_reader() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if found != "ok":
            raise StoreCorrupt(f"the database {self.database} {_MEANINGS[sqlite3.SQLITE_CORRUPT][1]} ({found})")

    def _connect(self, mode: str, pragmas: tuple[str, ...]) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self._path))}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # Damaged text must reach the checksum, which names the record, instead of failing in the driver.
            connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}")
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",) and mode == "rw":
                raise sqlite3.OperationalError("the file system does not allow write-ahead logging")
        except BaseException:
            connection.close()
            raise
        return connection


_logs = select_log.subquery()
# A log that has lost records itself, not with all that was written since, is named when it is used.
_held = sa.select(sa.func.sum(sa.func.max(_logs.c.observations, sa.func.coalesce(_logs.c.last, 0))))

_WRITER_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "cell_size_check = ON",
    "trusted_schema = OFF",
    f"journal_size_limit = {WAL_SIZE_LIMIT}",
)
_READER_PRAGMAS = ("query_only = ON", "cell_size_check = ON", "trusted_schema = OFF")


def _engine(creator: Callable[[], sqlite3.Connection], pool: type[sa.Pool], **options: int) -> sa.Engine:
    # What was reported is nobody's business who reads the logs of a failed statement.
    return sa.create_engine("sqlite://", creator=creator, poolclass=pool, hide_parameters=True, **options)


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create_private(path: Path) -> None:
    """Create the file, for its owner only; SQLite gives its companions the same mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
