"""Opening a store: which files are taken, who may write, and what each refusal says."""

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from guardrail.errors import SchemaMismatch, StoreCorrupt, StoreError
from guardrail.store import open_store
from guardrail.store.base import Snapshot
from guardrail.store.schema import _config
from guardrail.store.tables import SCHEMA_REVISION, VERSION_TABLE, metadata
from guardrail.testing.store_contract import decision, new_at, observation


@pytest.fixture
def path(tmp_path):
    """A closed database with 500 observations."""
    path = tmp_path / "store.db"
    with closing(open_store(path)) as store:
        store.append_observations([observation(str(i), "x" * 100) for i in range(500)])
    return path


def refusal(kind, path, **options):
    """The message with which opening fails; it must be of exactly that kind."""
    with pytest.raises(StoreError) as caught:
        open_store(path, **options)
    assert type(caught.value) is kind
    return str(caught.value)


# ------------------------------------------------------------ schema


def test_migrations_build_the_tables_of_the_code(path):
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        indexes = {i["name"] for i in sa.inspect(connection).get_indexes("decisions")}
        assert "ix_decisions_order" in indexes
    engine.dispose()
    assert ScriptDirectory.from_config(_config()).get_heads() == [SCHEMA_REVISION]


def test_opening_again_changes_nothing(path):
    def contents():
        with closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())

    before = contents()
    for _ in range(2):
        open_store(path).close()
    assert contents() == before


def test_a_migration_that_fails_leaves_an_empty_database(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    monkeypatch.setattr("guardrail.store.schema._version", sa.table("elsewhere", sa.column("version_num")))
    monkeypatch.setattr("guardrail.store.schema.VERSION_TABLE", "policies")

    def upgrade_half(connection):
        connection.exec_driver_sql("CREATE TABLE policies (x)")
        connection.exec_driver_sql("CREATE TABLE policies (x)")

    monkeypatch.setattr("guardrail.store.schema._upgrade", upgrade_half)
    assert "already exists" in refusal(StoreError, path)
    monkeypatch.undo()
    with closing(open_store(path)) as store:
        assert store.append_observations([observation("a")]) == [new_at(1)]


def test_a_newer_schema_is_refused(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'guardrail_9999'")
    for read_only in (False, True):
        message = refusal(SchemaMismatch, path, read_only=read_only)
        assert "guardrail_9999" in message
        assert "install the newer guardrail" in message


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    for read_only in (False, True):
        assert "another program" in refusal(SchemaMismatch, path, read_only=read_only)
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert names == {"customers", "alembic_version"}


@pytest.mark.parametrize("statement", ["DROP TABLE decisions", f"DELETE FROM {VERSION_TABLE}"])
def test_missing_parts_are_damage(path, statement):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    for read_only in (False, True):
        assert "restore it from a backup" in refusal(StoreCorrupt, path, read_only=read_only)


# ------------------------------------------------------------ damaged files


@pytest.mark.parametrize("content", [b"name: oring-launch\n", b"SQLite", b"\x00" * 8192, bytes(range(64))])
def test_a_file_that_is_not_a_database_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    for read_only in (False, True):
        message = refusal(StoreCorrupt, path, read_only=read_only)
        assert str(path) in message
        assert "is not a SQLite database" in message
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["policy.yaml"]


@pytest.mark.parametrize("kept", [20, 100, 512, 4096, 5000, 8192, 0.3, 0.5, 0.9, -4096, -1])
def test_a_truncated_database_is_damage(path, kept):
    size = path.stat().st_size
    os.truncate(path, size + kept if kept < 0 else int(size * kept) if isinstance(kept, float) else kept)
    assert "restore it from a backup" in refusal(StoreCorrupt, path)


def test_a_database_truncated_to_nothing_is_damage(path):
    os.truncate(path, 0)
    assert "is empty but was not" in refusal(StoreCorrupt, path)
    assert "is empty" in refusal(SchemaMismatch, path, read_only=True)
    path.unlink()
    with closing(open_store(path)) as store:
        assert store.worlds() == []


def test_an_empty_file_that_was_never_a_database_becomes_one(tmp_path):
    path = tmp_path / "store.db"
    path.touch()
    with closing(open_store(path)) as store:
        assert store.append_observations([observation("a")]) == [new_at(1)]


def test_overwritten_pages_are_damage_at_open_or_when_read(path):
    """Every page in turn is overwritten; no record is ever returned other than it was written."""
    intact = path.read_bytes()
    with closing(open_store(path, read_only=True)) as store:
        expected = list(store.observations("policy", "world"))
    at_open = 0
    for page in range(len(intact) // 4096):
        broken = bytearray(intact)
        broken[page * 4096 + 8 : (page + 1) * 4096 - 8] = b"\xa5" * 4080
        path.write_bytes(broken)
        try:
            store = open_store(path)
        except StoreCorrupt:
            at_open += 1
            continue
        with closing(store), suppress(StoreCorrupt):
            assert list(store.observations("policy", "world")) == expected
    # The page of an empty table has no cells, and nothing in it that could be damaged.
    used = sum(intact[start + 3 : start + 5] != b"\0\0" for start in range(0, len(intact), 4096))
    assert at_open > 0.8 * used


# ------------------------------------------------------------ paths


@pytest.mark.parametrize(
    "url",
    [
        *("", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x.db?mode=ro"),
        *("sqlite://host/x.db", "postgres://user:secret@host/db", "mysql://host/db", "://", "a\x00b"),
    ],
)
def test_what_is_not_a_file_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read_only in (False, True):
        assert "secret" not in refusal(StoreError, url, read_only=read_only)
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_or_file_is_named(tmp_path):
    assert str(tmp_path / "none") in refusal(StoreError, tmp_path / "none" / "store.db")
    assert "to read" in refusal(StoreError, tmp_path / "store.db", read_only=True)
    refusal(StoreError, tmp_path)
    assert os.listdir(tmp_path) == []


def test_odd_names_and_urls_open_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "50% #1? ünï.db"
    with closing(open_store(str(path))) as store:
        store.append_observations([observation("a")])
    assert path.is_file()
    for again in (path.name, f"./{path.name}"):
        with closing(open_store(again)) as store:
            assert store.observation_count("policy", "world") == 1
    open_store(tmp_path / "plain.db").close()
    with closing(open_store("sqlite:///plain.db")) as store:
        store.append_observations([observation("a")])
    with closing(open_store(f"sqlite:///{tmp_path}/plain.db", read_only=True)) as store:
        assert store.observation_count("policy", "world") == 1


def test_a_new_database_is_for_its_owner_only(tmp_path):
    old = os.umask(0)
    try:
        with closing(open_store(tmp_path / "store.db")) as store:
            store.append_observations([observation("a")])
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert set(modes) >= {"store.db", "store.db-wal", "store.db.lock"}
    assert set(modes.values()) == {0o600}


def test_opening_needs_neither_jax_nor_grpc_nor_the_server(tmp_path):
    code = (
        "import sys; from guardrail.store import open_store; open_store(sys.argv[1]).close();"
        "print([m for m in ('jax', 'numpy', 'torch', 'grpc', 'guardrail.server') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "s.db"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ------------------------------------------------------------ who may write


HOLD = """
import sys
from guardrail.store import open_store
from guardrail.testing.store_contract import observation
store = open_store(sys.argv[1])
store.append_observations([observation("from the holder")])
print("open", flush=True)
sys.stdin.readline()
store.append_observations([observation("from the holder, later")])
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the database open for writing."""
    command = [sys.executable, "-c", HOLD, tmp_path / "store.db"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_writing_process_is_refused(holder, tmp_path):
    message = refusal(StoreError, tmp_path / "store.db")
    assert f"process {holder.pid}" in message
    assert "read-only" in message
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "store.db")
    assert f"process {holder.pid}" in refusal(StoreError, link)


def test_a_killed_writer_leaves_the_database_to_the_next(holder, tmp_path):
    holder.kill()
    holder.wait()
    with closing(open_store(tmp_path / "store.db")) as store:
        assert store.observation_count("policy", "world") == 1


def test_a_second_store_in_the_same_process_is_refused_until_the_first_is_closed(path):
    first = open_store(path)
    assert f"process {os.getpid()}" in refusal(StoreError, path)
    first.close()
    open_store(path).close()


def test_a_failed_open_holds_no_lock(path):
    intact = path.read_bytes()
    os.truncate(path, 5000)
    refusal(StoreCorrupt, path)
    path.write_bytes(intact)
    open_store(path).close()


def test_reading_while_another_process_writes(holder, tmp_path):
    with closing(open_store(tmp_path / "store.db", read_only=True)) as store:
        assert [o.observation_id for o in store.observations("policy", "world")] == ["from the holder"]
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "done\n"
        assert store.observation_count("policy", "world") == 2
        for write in (
            lambda: store.append_observations([observation("x")]),
            lambda: store.append_decisions([decision("x")]),
            lambda: store.record_policy("policy", "r", "document"),
            lambda: store.save_snapshot(Snapshot("policy", "r", "world", 1, b"")),
        ):
            with pytest.raises(StoreError, match="read-only"):
                write()


def test_reading_a_closed_database_leaves_it_as_it_was(path):
    before = path.read_bytes()
    with closing(open_store(path, read_only=True)) as store:
        assert store.observation_count("policy", "world") == 500
        assert sum(1 for _ in store.observations("policy", "world")) == 500
    assert path.read_bytes() == before


def test_errors_of_the_database_keep_their_cause_and_show_only_a_store_error(path):
    os.truncate(path, 8192)
    with pytest.raises(StoreCorrupt) as caught:
        open_store(path)
    assert isinstance(caught.value.__cause__, sa.exc.DBAPIError)
    assert "sqlalche" not in str(caught.value)
    assert Path(str(path)).name in str(caught.value)
