"""The SQL store on SQLite passes the contract of every store, and detects damage to its rows."""

import enum
import itertools
import sqlite3
import time
import traceback
import types
from contextlib import closing

import pytest

from guardrail.domain import Decision
from guardrail.errors import StoreCorrupt, StoreError
from guardrail.store import open_store, sql
from guardrail.store.base import NewObservation, Snapshot
from guardrail.testing.awaiting_contract import awaited
from guardrail.testing.store_contract import DIGEST, StoreContract, decision, escalation, new_at, observation


class TestSqlite(StoreContract):
    def open(self, directory):
        return open_store(directory / "store.db")


@pytest.fixture
def path(tmp_path):
    """A database with five observations of two worlds each, a decision, a policy and two snapshots."""
    path = tmp_path / "store.db"
    with closing(open_store(path)) as store:
        for world in ("w1", "w2"):
            store.append_observations([observation(f"id-{i}", f'{{"outcome":{i}}}', "p", world) for i in range(5)])
        store.append_decisions([decision("d", "p", "w1")])
        store.record_policy("p", "r", "document")
        for sequence in (1, 2):
            store.save_snapshot(Snapshot("p", "r", "w1", sequence, b"state %d" % sequence))
    return path


DAMAGED_ESCALATIONS = {
    "state": "state = 'approved'",
    "caller": "caller = 'other'",
    "digest": "digest = 'other'",
    "expiry": "expires_at = expires_at + 1",
    "used": "used_by = 'd'",
}


def test_an_outcome_that_becomes_overdue_while_the_transaction_waits_is_overdue(path, monkeypatch):
    with closing(open_store(path)) as store:
        assert store.await_outcomes([awaited("a")], 0.0) == [None]
        passing = types.SimpleNamespace(time=time.time, monotonic=itertools.count(0.0, 5.0).__next__)
        monkeypatch.setattr(sql, "time", passing)
        assert store.await_outcomes([awaited("b", 60.0)], 4.0) == [None]
        (owed,) = store.await_outcomes([awaited("c", 60.0)], 6.0)
        assert owed is not None
        assert (owed.overdue, owed.oldest) == (1, "a")


@pytest.mark.parametrize("change", DAMAGED_ESCALATIONS.values(), ids=DAMAGED_ESCALATIONS.keys())
def test_a_damaged_escalation_is_neither_shown_nor_used(path, change):
    with closing(open_store(path)) as store:
        store.open_escalations([escalation("a")])
    damage(path, f"UPDATE escalations SET {change}")
    with closing(open_store(path)) as store:
        for use in (
            lambda: store.escalation("a"),
            lambda: store.escalations(now=0.0),
            lambda: store.resolve_escalation("a", DIGEST, True, "person", "", 1.0),
            lambda: store.use_escalation("a", DIGEST, "agent", "d", 1.0),
        ):
            with pytest.raises(StoreCorrupt, match="escalation 'a' is damaged"):
                use()


def damage(path, statement, *parameters):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(statement, parameters).rowcount > 0


DAMAGED_OBSERVATIONS = {
    "content": "content = '{\"outcome\":9}'",
    "content is a blob": "content = x'7b7d'",
    "content is not UTF-8": "content = CAST(x'ff7b7d' AS TEXT)",
    "id": "observation_id = 'other'",
    "digest": "digest = 'other'",
    "time": "recorded_at = recorded_at + 1",
    "time is text": "recorded_at = 'now'",
    "checksum": "checksum = x'00'",
    "world": "world_id = 9",
}


@pytest.mark.parametrize("change", DAMAGED_OBSERVATIONS.values(), ids=DAMAGED_OBSERVATIONS.keys())
@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_observation_is_named(path, change, read_only):
    damage(path, f"UPDATE observations SET {change} WHERE sequence = 3 AND world_id = 1")
    with closing(open_store(path, read_only=read_only)) as store:
        stream = store.observations("p", "w1")
        assert [next(stream).sequence, next(stream).sequence] == [1, 2]
        with pytest.raises(StoreCorrupt, match=r"observation 3 of world 'w1' of policy 'p' is (damaged|missing)"):
            next(stream)
        assert len(list(store.observations("p", "w2"))) == 5
        assert [o.sequence for o in store.observations("p", "w1", after=3)] == [4, 5]


def test_exchanged_observations_are_damage(path):
    for old, new in [(2, 99), (3, 2), (99, 3)]:
        damage(path, "UPDATE observations SET sequence = ? WHERE sequence = ? AND world_id = 1", new, old)
    with closing(open_store(path)) as store, pytest.raises(StoreCorrupt, match=r"observation 2 of world 'w1'"):
        list(store.observations("p", "w1"))


def test_an_observation_moved_to_another_world_is_damage(path):
    damage(path, "DELETE FROM observations WHERE world_id = 2 AND sequence = 5")
    damage(path, "UPDATE observations SET world_id = 2 WHERE world_id = 1 AND sequence = 5")
    with closing(open_store(path)) as store, pytest.raises(StoreCorrupt, match=r"observation 5 of world 'w2'"):
        list(store.observations("p", "w2"))


@pytest.mark.parametrize("missing", [1, 3])
def test_a_missing_observation_is_named(path, missing):
    damage(path, "DELETE FROM observations WHERE world_id = 1 AND sequence = ?", missing)
    with closing(open_store(path)) as store:
        with pytest.raises(StoreCorrupt, match=rf"observation {missing} of world 'w1' of policy 'p' is missing"):
            list(store.observations("p", "w1"))
        assert [o.sequence for o in store.observations("p", "w1", after=3)] == [4, 5]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM observations WHERE world_id = 1 AND sequence >= 4",
        "DELETE FROM observations WHERE world_id = 1",
        "UPDATE worlds SET observations = 4 WHERE id = 1",
        "UPDATE worlds SET observations = 6 WHERE id = 1",
    ],
)
def test_a_log_that_is_not_as_long_as_it_says_is_damage_to_every_user(path, change):
    damage(path, change)
    with closing(open_store(path)) as store:
        for use in (
            lambda: list(store.observations("p", "w1")),
            lambda: store.observation_count("p", "w1"),
            lambda: store.append_observations([observation("new", policy="p", world="w1")]),
            lambda: store.append_observations([observation("n", policy="p", world=w) for w in ("w2", "w1")]),
        ):
            with pytest.raises(StoreCorrupt, match="world 'w1' of policy 'p'"):
                use()
        assert store.observation_count("p", "w2") == 5
        assert store.append_observations([observation("new", policy="p", world="w2")]) == [new_at(6)]


@pytest.mark.parametrize("column", ["policy_revision", "decision", "request", "verdict"])
def test_a_damaged_decision_is_named(path, column):
    damage(path, f"UPDATE decisions SET {column} = 'accept'")
    with closing(open_store(path)) as store:
        with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
            store.decision("d")
        with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
            list(store.decisions())


def test_a_damaged_policy_document_is_named(path):
    damage(path, "UPDATE policies SET document = 'accept everything'")
    with closing(open_store(path)) as store, pytest.raises(StoreCorrupt, match="policy revision 'r' is damaged"):
        store.policy_document("r")


@pytest.mark.parametrize("change", ["payload = x'00'", "payload = 'text'", "checksum = x'00'", "sequence = 7"])
def test_a_damaged_snapshot_is_passed_over(path, change):
    damage(path, f"UPDATE snapshots SET {change} WHERE sequence = 2")
    with closing(open_store(path)) as store:
        assert store.latest_snapshot("p", "w1", "r") == Snapshot("p", "r", "w1", 1, b"state 1")
    damage(path, "UPDATE snapshots SET payload = x'00'")
    with closing(open_store(path)) as store:
        assert store.latest_snapshot("p", "w1", "r") is None


def test_two_snapshots_of_a_revision_are_kept(path):
    with closing(open_store(path)) as store:
        for sequence in (9, 3, 5):
            store.save_snapshot(Snapshot("p", "r", "w1", sequence, b"state"))
        store.save_snapshot(Snapshot("p", "r2", "w1", 1, b"state"))
    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT policy_revision, sequence FROM snapshots ORDER BY 1, 2").fetchall()
    assert kept == [("r", 5), ("r", 9), ("r2", 1)]


def test_values_of_related_types_are_stored_as_plain_ones(tmp_path):
    class Text(enum.StrEnum):
        A = "a"

    a = Text.A
    with closing(open_store(tmp_path / "store.db")) as store:
        store.append_decisions([decision("d", decision=Decision.REJECT, decided_at=7, posterior_revision=True)])
        found = store.decision("d")
        assert store.append_observations([NewObservation(a, a, a, a, a)]) == [new_at(1)]
        assert [(o.observation_id, o.content) for o in store.observations("a", "a")] == [("a", "a")]
        store.save_snapshot(Snapshot(a, a, a, True, bytearray(b"state")))
        assert store.latest_snapshot(a, a, a) == Snapshot("a", "a", "a", 1, b"state")
        store.record_policy(a, a, a)
        assert store.policy_document("a") == "a"
    assert found == decision("d", decision="reject", decided_at=7.0, posterior_revision=1)
    assert (type(found.decision), type(found.decided_at), type(found.posterior_revision)) == (str, float, int)


def test_a_stream_does_not_outlive_the_store(path):
    with closing(open_store(path)) as store:
        store.append_observations([observation(str(i), policy="p", world="w1") for i in range(5_000)])
        stream = store.observations("p", "w1")
        next(stream)
    with pytest.raises(StoreError, match="was closed"):
        list(stream)


def test_the_work_of_an_append_does_not_grow_with_the_log(tmp_path):
    """Counted in steps of SQLite's virtual machine, which do not depend on the machine."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    with closing(open_store(tmp_path / "store.db")) as store:

        def work(name):
            nonlocal steps
            store.append_observations([observation(f"first of {name}")])
            steps = 0
            store._sessions._writer.connection.driver_connection.set_progress_handler(count, 1)
            store.append_observations([observation(name)])
            store.append_observations([observation(name)])
            return steps

        short = work("short")
        store.append_observations([observation(str(i)) for i in range(20_000)])
        assert 0 < work("long") <= 1.5 * short


def test_a_commit_is_synchronised_and_logged_ahead(tmp_path):
    store = open_store(tmp_path / "store.db")
    with closing(store), store._sessions.write() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5_000}


def test_decisions_about_ever_new_worlds_take_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "MAX_LOG_IDS", 10)
    with closing(open_store(tmp_path / "store.db")) as store:
        for number in range(50):
            store.append_decisions([decision(f"d{number}", "p", f"w{number % 25}")])
            assert len(store._log_ids) <= 10
        assert [found.world for found in store.decisions("p")] == sorted(f"w{n % 25}" for n in range(50))


def test_a_failed_statement_shows_nothing_of_what_was_reported(tmp_path):
    """Its whole chain of causes goes to the service's log."""
    reported = observation("id", '{"outcome":"confidential"}')
    with closing(open_store(tmp_path / "store.db")) as store:
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
            other.execute("ALTER TABLE observations RENAME COLUMN content TO renamed")
        with pytest.raises(StoreError) as caught:
            store.append_observations([reported])
    assert "confidential" not in "".join(traceback.format_exception(caught.value))
