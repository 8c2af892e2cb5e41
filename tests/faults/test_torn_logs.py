"""Damage to the files of a SQLite store that a crash left behind: a named error, or exactly what was acknowledged."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store import open_store
from guardrail.testing.store_contract import decision, observation

# Appends in batches of one to three, with a decision and a snapshot now and then, and ends as in a crash: what was
# committed lies in the write-ahead log only.
WRITER = """
import os, signal, sys
from guardrail.store import open_store
from guardrail.store.base import Snapshot
from guardrail.testing.store_contract import decision, observation

store = open_store(sys.argv[1])
number = 0
for batch in range(25):
    ids = [str(number + i) for i in range(batch % 3 + 1)]
    store.append_observations([observation(i, "content of " + i, world=f"w{batch % 2}") for i in ids])
    number += len(ids)
    if batch % 5 == 0:
        store.append_decisions([decision(str(batch))])
        store.save_snapshot(Snapshot("policy", "r", "w0", batch // 2 + 1, os.urandom(5_000)))
print(number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """The folder of a store whose process was killed, and the number of observations it had acknowledged."""
    folder = tmp_path_factory.mktemp("crashed")
    command = [sys.executable, "-c", WRITER, folder / "store.db"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert result.returncode == -signal.SIGKILL
    assert (folder / "store.db-wal").stat().st_size > 100_000
    return folder, int(result.stdout)


def logs_of(path):
    with closing(open_store(path)) as store:
        return {world: [o.observation_id for o in store.observations("policy", world)] for world in ("w0", "w1")}


def found_in(folder, damage, tmp_path):
    """What a store over a damaged copy says: the number of its observations, or an error."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    damage(copy)
    try:
        return sum(map(len, logs_of(copy / "store.db").values()))
    except StoreError as error:
        return str(error)


def test_what_a_crash_left_is_read_back_whole(crashed, tmp_path):
    folder, acknowledged = crashed
    assert found_in(folder, lambda copy: None, tmp_path) == acknowledged


def torn(size, draw):
    """Damage to a file of that size, at every kind of place."""
    for place in [0, 1, 31, 32, 33, 56, size - 1, size // 2, *(draw.randrange(size) for _ in range(25))]:
        yield f"cut at {place}", lambda data, at=place: data[:at]
        yield f"zeros from {place}", lambda data, at=place: data[:at] + bytes(len(data) - at)
        flipped = draw.randrange(1, 256)
        yield (
            f"a byte at {place} is another",
            lambda data, at=place, by=flipped: data[:at] + bytes([data[at] ^ by]) + data[at + 1 :],
        )
        noise = draw.randbytes(500)
        yield (
            f"noise at {place}",
            lambda data, at=place, noise=noise: (data[:at] + noise + data[at + 500 :])[: len(data)],
        )


@pytest.mark.parametrize("name", ["store.db-wal", "store.db"])
def test_a_torn_file_never_gives_a_shorter_log(crashed, tmp_path, name):
    folder, acknowledged = crashed
    size, refused, whole = (folder / name).stat().st_size, 0, 0
    for what, change in torn(size, random.Random(name)):
        found = found_in(
            folder, lambda copy, c=change: (copy / name).write_bytes(c((copy / name).read_bytes())), tmp_path
        )
        if isinstance(found, int):  # what was damaged is not in use any more
            assert found == acknowledged, f"{name}, {what}: {found} of {acknowledged} observations"
            whole += 1
        else:
            assert str(tmp_path) in found or "observation" in found
            refused += 1
    assert refused > 50 if name == "store.db-wal" else whole > 50


def test_a_lost_write_ahead_log_is_noticed(crashed, tmp_path):
    assert "store.db" in found_in(crashed[0], lambda copy: (copy / "store.db-wal").unlink(), tmp_path)


def test_an_older_copy_is_refused_until_the_operator_says_that_the_rest_is_lost(tmp_path):
    path, older = tmp_path / "store.db", tmp_path / "older.db"
    with closing(open_store(path)) as store:
        store.append_observations([observation("a")])
    shutil.copy(path, older)
    with closing(open_store(path)) as store:
        store.append_observations([observation("b"), observation("a")])
    shutil.copy(older, path)
    with pytest.raises(StoreCorrupt, match=r"holds 1 observations, and 2 were acknowledged.*delete .*store.db.lock"):
        open_store(path)
    (tmp_path / "store.db.lock").unlink()
    with closing(open_store(path)) as store:
        assert [o.observation_id for o in store.observations("policy", "world")] == ["a"]
        assert store.append_observations([observation("b")])[0].sequence == 2


@pytest.mark.parametrize(
    "text", [b"", b"\xff" * 50, b"process 1\nacknowledged -3\n", b"process 1\nacknowledged 9", b"x" * 999]
)
def test_a_damaged_note_of_what_was_acknowledged_says_nothing(tmp_path, text):
    path = tmp_path / "store.db"
    with closing(open_store(path)) as store:
        store.append_observations([observation("a")])
    (tmp_path / "store.db.lock").write_bytes(text)
    if text.endswith(b" 9"):
        with pytest.raises(StoreCorrupt):
            open_store(path)
        return
    with closing(open_store(path)) as store:
        assert store.observation_count("policy", "world") == 1


COLUMNS = ["sequence", "observation_id", "digest", "content", "recorded_at", "checksum"]
VALUES = [0, -1, 2**62, 1.5, None, "", "a", b"", b"\x00" * 16]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_damaged_row_is_named_and_never_read_as_something_else(tmp_path, column):
    path = tmp_path / "store.db"
    with closing(open_store(path)) as store:
        store.append_observations([observation(str(i), f"content of {i}") for i in range(3)])
        before = list(store.observations("policy", "world"))
    for value in VALUES:
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        with closing(sqlite3.connect(copy)) as connection, connection:
            try:
                connection.execute(f"UPDATE observations SET {column} = ? WHERE sequence = 2", (value,))
            except sqlite3.IntegrityError:
                continue  # the database itself refuses it
        try:
            with closing(open_store(copy)) as store:
                found = list(store.observations("policy", "world"))
        except StoreError as error:
            assert "observation" in str(error)  # noqa: PT017 - most values are refused, some are what was there
            continue
        assert found == before


@pytest.mark.parametrize("column", ["decision", "request", "verdict", "posterior_revision", "decided_at", "checksum"])
def test_a_damaged_decision_is_named(tmp_path, column):
    path = tmp_path / "store.db"
    with closing(open_store(path)) as store:
        store.append_decisions([decision("d")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE decisions SET {column} = ?", (b"x" if column == "checksum" else 7,))
    with closing(open_store(path)) as store:
        with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
            store.decision("d")
        with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
            list(store.decisions())
