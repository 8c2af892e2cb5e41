"""A full disk: an append fails whole, says so, and works again once there is room."""

import json
import subprocess
import sys
from contextlib import closing

import pytest

from guardrail.errors import StoreError
from guardrail.store import open_store
from guardrail.store.base import Snapshot
from guardrail.testing.store_contract import decision, duplicate_of, new_at, observation

SMALL = 60
"""Pages of 4 KiB that the database may grow to."""


@pytest.fixture
def cramped(tmp_path):
    """A store with ten observations whose present connection may not grow the database any more."""
    with closing(open_store(tmp_path / "store.db")) as store:
        store.append_observations([observation(str(i)) for i in range(10)])
        with store._sessions.write() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {SMALL}")
        yield store


def large_batch(name):
    return [observation(f"{name}-{i}", "x" * 1_000) for i in range(1_000)]


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.append_observations(large_batch("new")),
        lambda store: store.append_decisions([decision(str(i), verdict="x" * 1_000) for i in range(1_000)]),
        lambda store: store.save_snapshot(Snapshot("policy", "r", "world", 10, b"x" * 10**6)),
        lambda store: store.record_policy("policy", "r", "x" * 10**6),
    ],
    ids=["observations", "decisions", "snapshot", "policy"],
)
def test_a_full_database_takes_nothing_and_recovers(cramped, write):
    with pytest.raises(StoreError, match="no room left: free some disk space"):
        write(cramped)
    assert cramped.observation_count("policy", "world") == 10
    assert list(cramped.decisions()) == []
    assert cramped.policy_document("r") is None
    assert cramped.latest_snapshot("policy", "world", "r") is None
    write(cramped)
    results = cramped.append_observations([observation("3"), observation("later")])
    assert results[0] == duplicate_of(4)
    assert results[1].sequence == cramped.observation_count("policy", "world")


# The limit on file size makes every write beyond it fail in the operating system, in the write-ahead
# log as well as in the database. Only the process itself may be limited, so it is another one.
LIMITED = """
import json, resource, sys
from guardrail.errors import StoreError
from guardrail.store import open_store
from guardrail.testing.store_contract import observation

store = open_store(sys.argv[1])
kept = [r.sequence for r in store.append_observations([observation(str(i)) for i in range(10)])]
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
messages, acknowledged = [], 0
for attempt in range(200):
    batch = [observation(f"{attempt}-{i}", "x" * 500) for i in range(20)]
    try:
        store.append_observations(batch)
        acknowledged += 20
    except StoreError as error:
        messages.append(str(error))
        if len(messages) == 3:
            break
count = store.observation_count("policy", "world")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
after = [r.sequence for r in store.append_observations(batch)]
sequences = [o.sequence for o in store.observations("policy", "world")]
store.close()
print(json.dumps([kept, acknowledged, messages, count, after, sequences]))
"""


@pytest.mark.parametrize("limit", [150_000, 400_000])
def test_writes_that_the_system_refuses_leave_whole_batches(tmp_path, limit):
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", LIMITED, path, str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, acknowledged, messages, count, after, sequences = json.loads(result.stdout)
    assert kept == list(range(1, 11))
    assert len(messages) == 3
    assert all("free some disk space" in m or "check the disk and its free space" in m for m in messages)
    assert count == 10 + acknowledged
    assert after == list(range(count + 1, count + 21))
    assert sequences == list(range(1, count + 21))
    with closing(open_store(path)) as store:
        assert store.observation_count("policy", "world") == count + 20


def test_a_database_that_cannot_be_created_leaves_a_clear_error_and_can_be_created_later(tmp_path):
    path = tmp_path / "store.db"
    code = """
import resource, sys
from guardrail.errors import StoreError
from guardrail.store import open_store
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
try:
    open_store(sys.argv[1])
except StoreError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert str(path) in result.stdout
    assert "free" in result.stdout
    with closing(open_store(path)) as store:
        assert store.append_observations([observation("a")]) == [new_at(1)]
