"""PostgreSQL as a backend: connections, locks, time limits, and what its errors mean.

Several processes may write to one database. Transactions exclude each other by name with advisory
locks (`exclude`): one writer a world, while other worlds go on.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store.backend import as_store_errors
from guardrail.store.feed import PostgresFeed, announce
from guardrail.store.schema import require_present_schema
from guardrail.store.watchdog import cut_after

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    import psycopg

    from guardrail.store.base import Feed

MAX_READERS = 8
"""Connections for reading that one store keeps; with the writing and the listening one, ten a process."""
CONNECT_SECONDS = 5
"""For a new connection."""
READER_WAIT_SECONDS = 10
"""For a reading connection while all of them are in use."""
LOCK_SECONDS = 10
"""For another writer of the same world."""
IDLE_SECONDS = 5
"""After which the server ends a transaction whose process is silent; less than others wait for its locks."""
STATEMENT_SECONDS = 15
"""For one statement."""
SILENCE_SECONDS = 20
"""For one transaction, counted on this side: also against a server that hangs."""
UPGRADE_SECONDS = 60
"""For another store that upgrades the schema."""

_CONNECT_OPTIONS = {
    "application_name": "guardrail",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
# A cluster may ask for more than `on`, for instance that a standby has applied the commit.
_SET_UP = f"""
SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', false),
       set_config('statement_timeout', '{STATEMENT_SECONDS}s', false),
       set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('client_encoding', 'UTF8', false),
       set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false),
       current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync,
       pg_is_in_recovery() AS standby
"""
_EXCLUDE = "SELECT pg_advisory_xact_lock(number) FROM unnest(%(numbers)s::bigint[]) AS number"

# Errors of connecting come without a SQLSTATE.
_UNREACHABLE = (
    "cannot be reached: check that the server runs and answers, that the database exists, and its user and password"
)
# By SQLSTATE, or by its first two characters, the class.
_MEANINGS: dict[str, tuple[type[StoreError], str]] = {
    "22": (StoreError, "cannot hold this value: text must be Unicode without NUL characters"),
    "25006": (StoreError, "may only be read: it is a standby, or the server allows no writing; connect to the primary"),
    "3F": (StoreError, "has no schema to create tables in: check the user's search_path"),
    "42501": (StoreError, "does not give this user the rights it needs: see docs/operations.md"),
    "53100": (StoreError, "has no room left: free some disk space and try again"),
    "53200": (StoreError, "is out of memory: see the server's log, and max_locks_per_transaction"),
    "53300": (StoreError, "has no connection left: raise max_connections, or run fewer processes"),
    "55P03": (StoreError, f"is locked by another writer for more than {LOCK_SECONDS} seconds: try again"),
    "57014": (StoreError, "took too long: try again, and see what else the server does"),
    "XX001": (StoreCorrupt, "is damaged: restore it from a backup"),
    "XX002": (StoreCorrupt, "has a damaged index: restore it from a backup"),
}


def is_postgres(text: str) -> bool:
    """Whether a store's URL names a PostgreSQL database."""
    return text.startswith(("postgresql://", "postgresql+psycopg://"))


def database_url(text: str) -> sa.URL:
    """Read a `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=...` URL.

    :raises StoreError: if it is not well formed or names no database; the message does not repeat it.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # Not chained: the cause shows the text, which may hold a password.
        raise StoreError("the store's URL is not well formed: use postgresql://USER@HOST/DATABASE") from None
    if not url.database:
        raise StoreError("the store's URL names no database: use postgresql://USER@HOST/DATABASE")
    if "password" in url.query:
        raise StoreError("the store's URL has its password among the options: use postgresql://USER:PASSWORD@HOST/...")
    return url.set(drivername="postgresql+psycopg")


class PostgresBackend:
    """A PostgreSQL database, upgraded to the present schema.

    :raises StoreError: (or a subclass) as `open_store` says.
    """

    def __init__(self, url: sa.URL, *, read_only: bool) -> None:
        self.read_only = read_only
        plain = sa.URL.create("postgresql", url.username, None, url.host, url.port, url.database)
        self.database = plain.render_as_string()
        self._secret = url.password or ""
        self._feeds: list[PostgresFeed] = []
        options = {name: value for name, value in _CONNECT_OPTIONS.items() if name not in url.query}
        self._writers = _engine(url, options, poolclass=sa.NullPool)
        self._readers = _engine(
            url,
            options,
            pool_size=MAX_READERS,
            max_overflow=0,
            pool_timeout=READER_WAIT_SECONDS,
            isolation_level="AUTOCOMMIT",
        )
        sa.event.listen(self._writers, "connect", self._set_up_writer)
        sa.event.listen(self._readers, "connect", self._set_up_reader)
        try:
            with as_store_errors(self):
                self._open_reading() if read_only else self._open_writing()
        except BaseException:
            self.close()
            raise

    def connect_writer(self) -> sa.Connection:
        """A connection whose transactions are READ COMMITTED and on disk when the commit returns."""
        return self._writers.connect()

    def exclude(self, connection: sa.Connection, names: Collection[tuple[str, ...]]) -> None:
        """Take the advisory lock of every name, in one order for all processes, so that none waits for the other."""
        if names:
            connection.exec_driver_sql(_EXCLUDE, {"numbers": sorted({_lock_number(name) for name in names})})

    def connect_reader(self) -> sa.Connection:
        """A connection that cannot write; every statement is a transaction of its own."""
        return self._readers.connect()

    def announce(self, connection: sa.Connection, worlds: Collection[tuple[str, str]]) -> None:
        """Send a notification for each world; PostgreSQL delivers it with the commit."""
        announce(connection, worlds)

    def acknowledge(self, observations: int) -> None:
        """Nothing to do: the server's own log is checked when it restarts."""

    def follow(self) -> Feed:
        """A feed on a connection of its own."""
        feed = PostgresFeed(self)
        self._feeds.append(feed)
        return feed

    def connect_listener(self) -> psycopg.Connection:
        """A connection outside the pool, in which every statement is a transaction of its own."""
        pooled = self._writers.raw_connection()
        connection = cast("psycopg.Connection", pooled.driver_connection)
        pooled.detach()
        connection.autocommit = True
        return connection

    def limit(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """Cut the connection if the block takes longer than SILENCE_SECONDS."""
        driver: Any = connection.connection.driver_connection
        return cut_after(SILENCE_SECONDS, driver.fileno())

    def explain(self, error: Exception) -> StoreError:
        """What an error of PostgreSQL, its driver or SQLAlchemy means for the caller."""
        import psycopg

        cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
        state = getattr(cause, "sqlstate", None) or ""
        if isinstance(error, sa.exc.TimeoutError):
            kind, meaning = StoreError, f"has all {MAX_READERS} reading connections of this process in use: try again"
        elif not state and isinstance(cause, psycopg.OperationalError):
            kind, meaning = StoreError, _UNREACHABLE
        else:
            kind, meaning = _MEANINGS.get(state) or _MEANINGS.get(state[:2]) or (StoreError, "failed")
        return kind(f"the database {self.database} {meaning} ({self._in_words(cause)})")

    def close(self) -> None:
        """Close every connection."""
        for feed in self._feeds:
            feed.close()
        with suppress(sa.exc.SQLAlchemyError):
            self._writers.dispose()
            self._readers.dispose()

    def _in_words(self, cause: BaseException) -> str:
        diagnosis = getattr(cause, "diag", None)
        words = " ".join(str(getattr(diagnosis, "message_primary", None) or cause).split())
        return words.replace(self._secret, "***") if self._secret else words

    def _open_reading(self) -> None:
        with self.connect_reader() as connection, self.limit(connection):
            require_present_schema(connection, self.database, upgrade=False)

    def _open_writing(self) -> None:
        with self.connect_writer() as connection, connection.begin():
            # Stores that start together upgrade one after the other; a large table takes its time.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{UPGRADE_SECONDS}s'")
            self.exclude(connection, [("schema",)])
            require_present_schema(connection, self.database, upgrade=True)

    def _set_up_writer(self, driver_connection: Any, _: object) -> None:
        self._set_up(driver_connection, "SET default_transaction_read_only = off")

    def _set_up_reader(self, driver_connection: Any, _: object) -> None:
        self._set_up(driver_connection, "SET default_transaction_read_only = on")

    def _set_up(self, driver_connection: Any, mode: str) -> None:
        with cut_after(CONNECT_SECONDS, driver_connection.fileno()), driver_connection.cursor() as cursor:
            cursor.execute(mode)
            cursor.execute(_SET_UP)
            *_, encoding, fsync, standby = cursor.fetchone()
            driver_connection.commit()
        if encoding != "UTF8":
            raise StoreError(
                f"the database {self.database} has the encoding {encoding}: create it with "
                "TEMPLATE template0 ENCODING 'UTF8'"
            )
        if fsync != "on" and not self.read_only:
            raise StoreError(
                f"the database {self.database} is on a server with fsync = off, which loses acknowledged reports in a "
                "crash: set fsync = on"
            )
        # What is read decides what is current: a standby may lag behind what was acknowledged.
        if standby and not self.read_only:
            raise StoreError(
                f"the database {self.database} is on a standby, which may lag behind the log: connect to the primary, "
                "where the URL has several hosts with target_session_attrs=primary"
            )


def _engine(url: sa.URL, options: dict[str, Any], **engine_options: Any) -> sa.Engine:
    return sa.create_engine(
        url,
        connect_args=options,
        # What was reported is nobody's business who reads the logs of a failed statement.
        hide_parameters=True,
        **engine_options,
    )


def _lock_number(name: tuple[str, ...]) -> int:
    """The name as PostgreSQL's locks have it: 64 bits with sign. Two names that collide wait without need."""
    digest = hashlib.blake2b(ascii(name).encode("ascii"), digest_size=8, person=b"guardrail").digest()
    return int.from_bytes(digest, "big", signed=True)
