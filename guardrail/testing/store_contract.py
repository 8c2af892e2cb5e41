"""What every store must do, as tests. Subclass `StoreContract` in a test module and say how to open a store.

    class TestMyStore(StoreContract):
        def open(self, directory):
            return MyStore(directory / "database")

To see the values in failed assertions, call
`pytest.register_assert_rewrite("guardrail.testing.store_contract")` in `conftest.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.approvals import Escalation, EscalationState
from guardrail.audit import Audit
from guardrail.budgets import Ground, Terms
from guardrail.domain import Reason, ReasonCode
from guardrail.errors import (
    EscalationClosed,
    EscalationMismatch,
    EscalationNotFound,
    GenerationMismatch,
    StoreError,
    WorldNotFound,
)
from guardrail.store import recent
from guardrail.store.base import (
    Appended,
    Changes,
    DecisionRecord,
    Feed,
    NewObservation,
    NewReservation,
    RecentDecisions,
    Snapshot,
    Store,
    WorldRecord,
)
from guardrail.testing.awaiting_contract import AwaitingContract

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

AWKWARD_TEXT = ("plain", "it's", '"quoted"', "%s ? :name", "ünïcødé ☃ 𝒳", "line\nbreak", " spaces ", "x" * 10_000)


def observation(
    observation_id: str, content: str = "{}", policy: str = "policy", world: str = "world"
) -> NewObservation:
    """A new observation whose digest fits its content."""
    return NewObservation(policy, world, observation_id, hashlib.sha256(content.encode()).hexdigest(), content)


def decision(decision_id: str, policy: str = "policy", world: str = "world", **other: object) -> DecisionRecord:
    """A decision with some plain content."""
    plain = DecisionRecord(decision_id, policy, "revision", world, 0, "reject", "{}", '{"x": 1}', 1.5)
    return replace(plain, **other)  # type: ignore[arg-type]


def reservation(decision_id: str, bound: float, **other: object) -> NewReservation:
    """A reservation in a session with a total of 0.5."""
    plain = NewReservation(
        decision_id, "policy", "world", "session", Terms("session", 0.5), bound, Ground("r", 1, 0.05)
    )
    return replace(plain, **other)  # type: ignore[arg-type]


class Clock:
    """The wall clock of every store of this process; a test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("guardrail.store.sql.time", self)

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now


def new_at(sequence: int, generation: int = 1) -> Appended:
    """The result for an observation that was accepted at that place."""
    return Appended(sequence, duplicate=False, conflict=False, generation=generation)


def duplicate_of(sequence: int, generation: int = 1) -> Appended:
    """The result for an observation that was accepted at that place before."""
    return Appended(sequence, duplicate=True, conflict=False, generation=generation)


def conflict_with(sequence: int, generation: int = 1) -> Appended:
    """The result for an observation whose id was accepted at that place with other content."""
    return Appended(sequence, duplicate=False, conflict=True, generation=generation)


DIGEST = "0" * 64


def escalation(escalation_id: str, **other: object) -> Escalation:
    """A pending escalation of the caller `agent`."""
    names = (escalation_id, "policy", "revision", "world", "agent", DIGEST)
    return replace(Escalation(*names, opened_at=1.0, expires_at=1e12), **other)  # type: ignore[arg-type]


def race_for(escalation_id: str, stores: Sequence[Store]) -> list[bool]:
    """Lets each of the stores use one approval at the same time; whether it could, those that could first."""
    start, outcomes = threading.Barrier(len(stores)), [False] * len(stores)

    def use(place: int) -> None:
        start.wait()
        outcome = stores[place].use_escalation(escalation_id, DIGEST, "agent", f"decision-{place}", 2.0)
        outcomes[place] = isinstance(outcome, Escalation)

    threads = [threading.Thread(target=use, args=(place,)) for place in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes, reverse=True)


def _refusal(outcome: Escalation | Reason) -> ReasonCode:
    assert isinstance(outcome, Reason)
    return outcome.code


class StoreContract(AwaitingContract):
    """The clauses of `guardrail.store.base.Store`, one test each."""

    @abstractmethod
    def open(self, directory: Path) -> Store:
        """A store that keeps its data in a directory; called again after `close`, it must find them."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """An empty store, closed after the test."""
        store = self.open(tmp_path)
        yield store
        store.close()

    # ------------------------------------------------------------ observations

    def test_numbers_each_world_from_one_without_gaps(self, store: Store) -> None:
        """Worlds, and equal worlds of other policies, count on their own."""
        batch = [observation("a"), observation("b", world="other"), observation("c"), observation("d", policy="other")]
        assert store.append_observations(batch) == [new_at(1), new_at(1), new_at(2), new_at(1)]
        assert store.append_observations([observation("e"), observation("f", world="other")]) == [new_at(3), new_at(2)]
        assert [(o.sequence, o.observation_id) for o in store.observations("policy", "world")] == [
            (1, "a"),
            (2, "c"),
            (3, "e"),
        ]

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        """No observations, no results."""
        assert store.append_observations([]) == []
        assert store.worlds() == []

    def test_a_repeated_id_with_equal_content_is_a_duplicate(self, store: Store) -> None:
        """It is answered with its first place and takes no number, in the store and within a batch."""
        store.append_observations([observation("a"), observation("b")])
        again = [observation("c"), observation("b"), observation("c"), observation("d")]
        assert store.append_observations(again) == [new_at(3), duplicate_of(2), duplicate_of(3), new_at(4)]
        assert store.observation_count("policy", "world") == 4

    def test_a_repeated_id_with_other_content_is_a_conflict(self, store: Store) -> None:
        """Nothing is written for it; the rest of the batch is; the first content stays."""
        store.append_observations([observation("a", "1")])
        batch = [observation("a", "2"), observation("b", "1"), observation("b", "2"), observation("c", "1")]
        assert store.append_observations(batch) == [conflict_with(1), new_at(2), conflict_with(2), new_at(3)]
        assert [o.content for o in store.observations("policy", "world")] == ["1", "1", "1"]

    def test_ids_are_unique_within_a_world_only(self, store: Store) -> None:
        """The same id in another world or policy is another observation."""
        store.append_observations([observation("a", "1")])
        batch = [observation("a", "2", world="other"), observation("a", "3", policy="other")]
        assert store.append_observations(batch) == [new_at(1), new_at(1)]

    def test_a_batch_is_written_whole_or_not_at_all(self, store: Store) -> None:
        """Text that no database can hold, in the last place, undoes the first."""
        store.append_observations([observation("a")])
        unwritable = NewObservation("policy", "world", "c", "digest", "lone surrogate \ud800")
        with pytest.raises(StoreError):
            store.append_observations([observation("b"), observation("b", world="other"), unwritable])
        assert store.observation_count("policy", "world") == 1
        assert store.worlds() == [WorldRecord("policy", "world", 1)]
        assert store.append_observations([observation("b")]) == [new_at(2)]

    def test_text_comes_back_as_it_was(self, store: Store) -> None:
        """Ids, names and content of any characters."""
        for text in AWKWARD_TEXT:
            new = observation(text, text, policy=text, world=text)
            assert store.append_observations([new]) == [new_at(1)]
            (found,) = store.observations(text, text)
            assert (found.observation_id, found.content) == (text, text)
            assert store.append_observations([new]) == [duplicate_of(1)]

    def test_observations_after_a_place(self, store: Store) -> None:
        """Only later ones; none after the end; everything after zero or less."""
        store.append_observations([observation(str(i)) for i in range(10)])
        for after, first in [(-1, 1), (0, 1), (4, 5), (9, 10)]:
            assert [o.sequence for o in store.observations("policy", "world", after)] == list(range(first, 11))
        for after in (10, 11, 10**30):
            assert list(store.observations("policy", "world", after)) == []

    def test_observations_are_stamped_with_the_time(self, store: Store) -> None:
        """Seconds since the epoch, of this century, not decreasing within a batch."""
        store.append_observations([observation("a"), observation("b")])
        first, second = (o.recorded_at for o in store.observations("policy", "world"))
        assert 1.5e9 < first <= second < 5e9

    def test_an_unknown_world_is_empty(self, store: Store) -> None:
        """It has no observations and is not listed."""
        store.append_observations([observation("a")])
        for policy, world in [("policy", "other"), ("other", "world"), ("", "")]:
            assert store.observation_count(policy, world) == 0
            assert list(store.observations(policy, world)) == []

    def test_a_long_log_streams_in_order(self, store: Store) -> None:
        """Several thousand observations of two interleaved worlds."""
        batch = [observation(str(i), str(i), world=f"world-{i % 2}") for i in range(10_000)]
        store.append_observations(batch)
        for world in (0, 1):
            found = list(store.observations("policy", f"world-{world}"))
            assert [o.sequence for o in found] == list(range(1, 5_001))
            assert [o.content for o in found] == [str(i) for i in range(world, 10_000, 2)]

    def test_a_stream_ends_where_the_log_ended_when_it_began(self, store: Store) -> None:
        """What is appended meanwhile belongs to the next stream."""
        store.append_observations([observation(str(i)) for i in range(5_000)])
        stream = store.observations("policy", "world")
        assert next(stream).sequence == 1
        store.append_observations([observation("later")])
        assert [o.sequence for o in stream] == list(range(2, 5_001))

    def test_an_abandoned_stream_holds_nothing(self, store: Store) -> None:
        """Many streams that were begun and never ended hinder neither writing nor reading."""
        store.append_observations([observation(str(i)) for i in range(5_000)])
        begun = [store.observations("policy", "world") for _ in range(50)]
        assert {next(stream).sequence for stream in begun} == {1}
        assert store.append_observations([observation("later")]) == [new_at(5_001)]
        assert store.observation_count("policy", "world") == 5_001

    def test_worlds_are_listed_by_policy_and_world(self, store: Store) -> None:
        """With the lengths of their logs; a world that has decisions only is not listed."""
        keys = [("b", "2"), ("a", "z"), ("b", "10"), ("B", "1"), ("a", "é")]
        for policy, world in keys:
            store.append_observations([observation("x", policy=policy, world=world)])
        store.append_observations([observation("y", policy="a", world="z")])
        store.append_decisions([decision("d", world="decided")])
        expected = [WorldRecord(p, w, 2 if (p, w) == ("a", "z") else 1) for p, w in sorted(keys)]
        assert store.worlds() == expected
        assert store.worlds("a") == [w for w in expected if w.policy == "a"]
        assert store.worlds("none") == []

    def test_any_history_agrees_with_a_model(self, store: Store) -> None:
        """Random batches over few worlds, ids and contents, against lists and dictionaries."""
        names = (f"policy-{i}" for i in itertools.count())
        ids, contents, worlds = st.sampled_from("abcdef"), st.sampled_from("12"), st.sampled_from("vw")
        batches = st.lists(st.lists(st.tuples(worlds, ids, contents), max_size=8), max_size=6)

        @settings(derandomize=True, deadline=None, max_examples=60)
        @given(batches)
        def agree(history: list[list[tuple[str, str, str]]]) -> None:
            policy = next(names)
            model: dict[str, list[tuple[str, str]]] = {"v": [], "w": []}
            for batch in history:
                expected = [_append_to_model(model[world], item, content) for world, item, content in batch]
                appended = store.append_observations([observation(i, c, policy, w) for w, i, c in batch])
                assert appended == expected
            for world, log in model.items():
                found = list(store.observations(policy, world))
                assert [(o.observation_id, o.content) for o in found] == log
                assert [o.sequence for o in found] == list(range(1, len(log) + 1))
                assert store.observation_count(policy, world) == len(log)
            assert store.worlds(policy) == [WorldRecord(policy, w, len(log)) for w, log in model.items() if log]

        agree()

    # ------------------------------------------------------------ who reported

    def test_reporters_come_back_and_count_as_creators_of_what_they_were_first_to_report_on(self, store: Store) -> None:
        """The first observation of a world makes its creator; duplicates, decisions, snapshots and resets do not."""
        store.append_decisions([decision("d", world="a")])
        store.save_snapshot(Snapshot("policy", "r", "a", 0, b""))
        by = {"x": ("a", "b", "a"), "y": ("a", "c"), "": ("d",)}
        for reporter, worlds in by.items():
            batch = [replace(observation(f"{reporter}{i}", world=w), reporter=reporter) for i, w in enumerate(worlds)]
            store.append_observations(batch)
        assert [o.reporter for o in store.observations("policy", "a")] == ["x", "x", "y"]
        store.append_observations([replace(observation("x0", world="a"), reporter="y")])
        store.reset_world("policy", "b", 1, "why", "y")
        store.append_observations([replace(observation("z", world="b"), reporter="y")])
        counts = {caller: store.worlds_created_by(caller) for caller in ("x", "y", "", "nobody")}
        assert counts == {"x": 2, "y": 1, "": 1, "nobody": 0}
        assert [o.reporter for o in store.observations("policy", "b", generation=1)] == ["x"]

    # ------------------------------------------------------------ resets

    def test_a_reset_closes_the_log_and_starts_the_next(self, store: Store) -> None:
        """The closed log stays as it was; the new one counts from one; the record says who, when and why."""
        store.append_observations([observation("a"), observation("b"), observation("c", world="other")])
        closed = list(store.observations("policy", "world"))
        record = store.reset_world("policy", "world", 1, "the sensor was replaced", "operator")
        assert (record.policy, record.world, record.generation, record.observations) == ("policy", "world", 1, 2)
        assert (record.reason, record.caller) == ("the sensor was replaced", "operator")
        assert 1.5e9 < record.reset_at < 5e9
        assert store.resets("policy", "world") == [record]
        assert store.resets("policy", "other") == store.resets("none", "world") == []
        assert store.head("policy", "world") == WorldRecord("policy", "world", 0, 2)
        assert list(store.observations("policy", "world")) == []
        assert store.append_observations([observation("d"), observation("e", world="other")]) == [
            new_at(1, 2),
            new_at(2),
        ]
        assert [o.observation_id for o in store.observations("policy", "world")] == ["d"]
        assert list(store.observations("policy", "world", generation=1)) == closed
        assert [store.observation_count("policy", "world", g) for g in (None, 1, 2, 3)] == [1, 2, 1, 0]
        assert list(store.observations("policy", "world", generation=3)) == []

    def test_a_world_stays_in_the_list_after_a_reset(self, store: Store) -> None:
        """With its present generation and no observation, until there are some."""
        store.append_observations([observation("a"), observation("b", world="other")])
        store.reset_world("policy", "world", 1, "why", "")
        other = WorldRecord("policy", "other", 1)
        assert store.worlds() == [other, WorldRecord("policy", "world", 0, 2)]
        store.append_observations([observation("c")])
        assert store.worlds("policy") == [other, WorldRecord("policy", "world", 1, 2)]

    def test_a_late_report_does_not_count_in_the_new_log(self, store: Store) -> None:
        """An id of any closed log is still a duplicate or a conflict; the answer says of which log."""
        store.append_observations([observation("a", "1"), observation("b", "1")])
        store.reset_world("policy", "world", 1, "why", "")
        store.append_observations([observation("c", "1")])
        store.reset_world("policy", "world", 2, "why", "")
        batch = [observation(i, c) for i, c in (("b", "1"), ("a", "2"), ("c", "1"), ("d", "1"), ("d", "1"))]
        expected = [duplicate_of(2, 1), conflict_with(1, 1), duplicate_of(1, 2), new_at(1, 3), duplicate_of(1, 3)]
        assert store.append_observations(batch) == expected
        assert [o.observation_id for o in store.observations("policy", "world")] == ["d"]

    def test_a_reset_happens_once(self, store: Store) -> None:
        """Repeated it is answered as before; another generation, reason or caller is refused."""
        store.append_observations([observation("a")])
        record = store.reset_world("policy", "world", 1, "why", "who")
        store.append_observations([observation("b")])
        assert store.reset_world("policy", "world", 1, "why", "who") == record
        for generation, reason, caller in [
            (1, "other", "who"),
            (1, "why", "other"),
            (0, "why", "who"),
            (3, "why", "who"),
        ]:
            with pytest.raises(GenerationMismatch, match="is in generation 2"):
                store.reset_world("policy", "world", generation, reason, caller)
        assert store.head("policy", "world") == WorldRecord("policy", "world", 1, 2)
        store.reset_world("policy", "world", 2, "why", "who")
        with pytest.raises(GenerationMismatch, match="is in generation 3"):
            store.reset_world("policy", "world", 1, "why", "who")
        assert [r.generation for r in store.resets("policy", "world")] == [1, 2]

    def test_there_must_be_something_to_reset(self, store: Store) -> None:
        """A world that nobody reported on is not there, whatever was decided in it."""
        store.append_decisions([decision("d")])
        for world in ("world", "none"):
            with pytest.raises(WorldNotFound):
                store.reset_world("policy", world, 1, "why", "")
        assert store.worlds() == []

    def test_decisions_and_snapshots_belong_to_their_log(self, store: Store) -> None:
        """Those of a closed log stay with it, also what is written late; a log that was never started has none."""
        store.append_observations([observation("a")])
        store.append_decisions([decision("1"), decision("2", posterior_revision=1)])
        store.save_snapshot(Snapshot("policy", "r", "world", 1, b"first"))
        store.reset_world("policy", "world", 1, "why", "")
        assert store.latest_snapshot("policy", "world", "r") is None
        store.append_decisions([decision("3", generation=2), decision("4")])
        store.save_snapshot(Snapshot("policy", "r", "world", 1, b"second", 2))
        assert [(r.decision_id, r.generation) for r in store.decisions()] == [("1", 1), ("4", 1), ("2", 1), ("3", 2)]
        assert store.decision("3") == decision("3", generation=2)
        for generation, payload in ((1, b"first"), (2, b"second")):
            expected = Snapshot("policy", "r", "world", 1, payload, generation)
            assert store.latest_snapshot("policy", "world", "r", generation) == expected
        assert store.latest_snapshot("policy", "world", "r") == Snapshot("policy", "r", "world", 1, b"second", 2)
        with pytest.raises(StoreError):
            store.append_decisions([decision("5"), decision("6", generation=3)])
        with pytest.raises(StoreError):
            store.save_snapshot(Snapshot("policy", "r", "world", 1, b"", 3))
        with pytest.raises(StoreError):
            store.append_decisions([decision("3", generation=1)])
        assert store.decision("5") is None
        assert store.head("policy", "world") == WorldRecord("policy", "world", 0, 2)

    def test_a_stream_that_began_before_a_reset_stays_in_its_log(self, store: Store) -> None:
        """No record of the new log follows on those of the closed one."""
        store.append_observations([observation(str(i)) for i in range(5_000)])
        stream = store.observations("policy", "world")
        assert next(stream).sequence == 1
        store.reset_world("policy", "world", 1, "why", "")
        store.append_observations([observation(f"new-{i}") for i in range(10)])
        assert [o.observation_id for o in stream] == [str(i) for i in range(1, 5_000)]

    def test_reports_and_resets_at_once(self, store: Store) -> None:
        """Whatever the order, each observation is in one log, and every log is numbered without gaps."""
        told: list[tuple[str, Appended]] = []
        lock = threading.Lock()

        def report(thread: int) -> None:
            for i in range(30):
                name = f"{thread}-{i}"
                (result,) = store.append_observations([observation(name)])
                with lock:
                    told.append((name, result))

        store.append_observations([observation("first")])
        threads = [threading.Thread(target=report, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for generation in range(1, 6):
            store.reset_world("policy", "world", generation, "why", "")
        for thread in threads:
            thread.join()
        logs = {g: list(store.observations("policy", "world", generation=g)) for g in range(1, 7)}
        for log in logs.values():
            assert [o.sequence for o in log] == list(range(1, len(log) + 1))
        placed = {o.observation_id: (g, o.sequence) for g, log in logs.items() for o in log}
        assert sum(map(len, logs.values())) == len(placed) == 91
        assert {name: (r.generation, r.sequence) for name, r in told} == {
            k: v for k, v in placed.items() if k != "first"
        }
        assert [r.observations for r in store.resets("policy", "world")] == [len(logs[g]) for g in range(1, 6)]

    # ------------------------------------------------------------ changes

    def test_a_feed_tells_what_any_store_committed(self, store: Store, tmp_path: Path) -> None:
        """Appends and resets, once they are there to be read; nothing else; a store without other writers has none."""
        feed = store.follow()
        if feed is None:
            return
        assert feed.next(0) == Changes(frozenset(), missed=True)
        assert feed.next(0) == Changes(frozenset(), missed=False)
        other = self.open(tmp_path)
        for writer in (store, other):
            name = "mine" if writer is store else "theirs"
            writer.append_observations([observation(name, world=w) for w in (name, "it's ☃")])
            assert _told(feed, 2) == {("policy", name), ("policy", "it's ☃")}
        other.append_observations([observation("mine", world="mine")])
        with pytest.raises(StoreError):
            other.append_observations([NewObservation("policy", "mine", "x", "d", "lone surrogate \ud800")])
        other.append_decisions([decision("d")])
        other.save_snapshot(Snapshot("policy", "r", "mine", 1, b""))
        other.reset_world("policy", "theirs", 1, "why", "")
        assert _told(feed, 1) == {("policy", "theirs")}
        assert feed.next(0) == Changes(frozenset(), missed=False)
        long = "x" * 10_000
        other.append_observations([observation("a", world=long)])
        assert feed.next(30).missed
        other.close()
        feed.close()
        feed.close()
        with pytest.raises(StoreError):
            feed.next(0)

    def test_a_feed_that_waits_ends_with_it(self, store: Store) -> None:
        """Closing the feed, or the store, ends a `next` under way."""
        for close in ("feed", "store"):
            feed = store.follow()
            if feed is None:
                return
            feed.next(0)
            ended: list[str] = []

            def wait(feed: Feed, ended: list[str]) -> None:
                try:
                    feed.next(600)
                except StoreError as error:
                    ended.append(str(error))

            thread = threading.Thread(target=wait, args=(feed, ended))
            thread.start()
            (feed if close == "feed" else store).close()
            thread.join(30)
            assert len(ended) == 1

    # ------------------------------------------------------------ decisions

    def test_decisions_come_back_as_they_were(self, store: Store) -> None:
        """Every field, by id and in the stream; an unknown id is None."""
        records = [
            decision(
                f"id-{i}", text, text, request=text, verdict=text, decided_at=1e9 + i / 7, posterior_revision=2**53
            )
            for i, text in enumerate(AWKWARD_TEXT)
        ]
        store.append_decisions(records)
        store.append_decisions([])
        assert [store.decision(r.decision_id) for r in records] == records
        assert store.decision("unknown") is None
        assert sorted(store.decisions(), key=lambda r: r.decision_id) == records

    def test_decisions_stream_in_order(self, store: Store) -> None:
        """By policy, world, policy revision, posterior revision, time; filtered by policy and world."""
        places = itertools.product("ba", ("w10", "w2"), ("r2", "r1"), (10, 9), (2.5, 1.5))
        records = [
            decision(f"{i:03}", p, w, policy_revision=r, posterior_revision=n, decided_at=t)
            for i, (p, w, r, n, t) in enumerate(places)
        ]
        store.append_decisions(records[::2])
        store.append_decisions(records[1::2])
        ordered = sorted(
            records, key=lambda r: (r.policy, r.world, r.policy_revision, r.posterior_revision, r.decided_at)
        )
        assert list(store.decisions()) == ordered
        assert list(store.decisions("a")) == [r for r in ordered if r.policy == "a"]
        assert list(store.decisions("a", "w2")) == [r for r in ordered if (r.policy, r.world) == ("a", "w2")]
        assert list(store.decisions(world="w2")) == [r for r in ordered if r.world == "w2"]
        assert list(store.decisions("none")) == []

    def test_a_long_decision_log_streams_whole(self, store: Store) -> None:
        """Several thousand decisions at equal places and times: none twice, none left out."""
        records = [decision(f"{i:05}", posterior_revision=i // 4_000) for i in range(9_000)]
        store.append_decisions(records)
        stream = store.decisions()
        found = [next(stream)]
        store.append_decisions([decision("later", posterior_revision=10**6)])
        found += stream
        assert sorted(found, key=lambda r: r.decision_id) == records

    def test_recent_decisions_come_newest_first_and_each_once(self, store: Store) -> None:
        """Also where a world is busy and another rare, after resets, and while others are appended."""
        kept = []
        for number in range(120):
            policy, world = ("q", "w") if number % 10 == 3 else ("p", "rare" if number in (5, 90) else "w")
            kept.append(decision(f"d{number}", policy, world, decided_at=float(number)))
            store.append_decisions(kept[-1:])
        newest = kept[::-1]
        every: tuple[tuple[str | None, str | None], ...] = (
            *((None, None), ("p", None), ("q", None), ("r", None)),
            *(("p", "w"), (None, "w"), (None, "rare")),
        )
        for of_policy, of_world in every:
            wanted = [r for r in newest if of_policy in (None, r.policy) and of_world in (None, r.world)]
            for limit in (1, 7, 200):
                assert paged(store, of_policy, of_world, limit) == wanted, (of_policy, of_world, limit)
        page = store.recent_decisions(limit=10)
        store.append_decisions([decision("later")])
        assert [record for _, record in page.found] == newest[:10]
        assert [r for _, r in store.recent_decisions(before=page.before, limit=5).found] == newest[10:15]
        place, record = page.found[3]
        assert store.decision_place(record.decision_id) == place
        assert store.decision_place("none") is None
        assert store.recent_decisions(before=1).found == ()

    def test_recent_decisions_look_at_a_part_of_the_log(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each step is bounded, and all together they find everything."""
        monkeypatch.setattr(recent, "WINDOW", 9)
        monkeypatch.setattr(recent, "FEW", 3)
        kept = [decision(f"d{n}", "p", "rare" if n in (2, 40) else "busy" if n % 2 else f"w{n}") for n in range(60)]
        store.append_decisions(kept)
        assert store.recent_decisions("none").found == ()
        assert store.recent_decisions("none").before is not None  # so much was looked at, and no more
        found = store.recent_decisions("p", "rare", limit=2)
        assert [r.decision_id for _, r in found.found] == ["d40", "d2"]  # at once: the world has few
        for world in (None, "rare", "busy", "w4"):
            wanted = [r for r in kept[::-1] if world in (None, r.world)]
            assert paged(store, "p", world, 4) == wanted
            assert paged(store, "other", world, 4) == []

    def test_no_decisions_are_recent_in_an_empty_log(self, store: Store) -> None:
        """Nor is there more to look for."""
        for of in ((), ("p",), (None, "w")):
            assert store.recent_decisions(*of) == RecentDecisions((), None)

    def test_a_decision_may_be_appended_again(self, store: Store) -> None:
        """Equal content is left as it is; other content fails and undoes the batch."""
        store.append_decisions([decision("a")])
        store.append_decisions([decision("a"), decision("b"), decision("b")])
        with pytest.raises(StoreError):
            store.append_decisions([decision("c"), decision("a", verdict="{}")])
        with pytest.raises(StoreError):
            store.append_decisions([decision("c"), decision("c", verdict="{}")])
        assert [r.decision_id for r in store.decisions()] == ["a", "b"]

    # ------------------------------------------------------------ harm budgets

    def test_bounds_are_set_aside_until_the_total_is_reached(self, store: Store) -> None:
        """In order, exactly, in each budget apart; what does not fit changes nothing."""
        batch = [reservation("a", 0.25), reservation("b", 0.5), reservation("c", 0.25), reservation("d", 0.0)]
        assert [(r.refused, r.spent) for r in store.reserve(batch)] == [
            (None, 0.25),
            (ReasonCode.BUDGET_EXHAUSTED, 0.25),
            (None, 0.5),
            (None, 0.5),
        ]
        others = [
            reservation("e", 0.5, session="other"),
            reservation("f", 0.5, world="other"),
            reservation("g", 0.5, policy="p"),
        ]
        assert [(r.refused, r.spent) for r in store.reserve(others)] == [(None, 0.5)] * 3
        record = store.budget("policy", "world", "session")
        assert record is not None
        assert (record.spent, record.accepts, record.terms) == (0.5, 3, Terms("session", 0.5))
        assert store.budget("policy", "world", "none") is None
        assert store.reserve([]) == []

    def test_a_decision_takes_its_share_once(self, store: Store) -> None:
        """Repeated, alone or in a batch, it is answered as before; with another bound or session it is an error."""
        first = store.reserve([reservation("a", 0.25)])
        assert store.reserve([reservation("a", 0.25), reservation("a", 0.25)]) == first * 2
        store.reserve([reservation("b", 0.25)])
        assert [r.refused for r in store.reserve([reservation("a", 0.25)])] == [None]
        for other in (reservation("a", 0.125), reservation("a", 0.25, session="other")):
            with pytest.raises(StoreError):
                store.reserve([reservation("c", 0.0), other])
        record = store.budget("policy", "world", "session")
        assert record is not None
        assert (record.spent, record.accepts) == (0.5, 2)

    def test_a_session_keeps_the_budget_that_it_began_with(self, store: Store) -> None:
        """Other terms are refused, lower or higher, until they are the first ones again."""
        store.reserve([reservation("a", 0.25)])
        for number, total in enumerate((0.4, 0.6, 1.0)):
            (refused,) = store.reserve([reservation(f"x{number}", 0.0, terms=Terms("session", total))])
            assert (refused.refused, refused.terms, refused.spent) == (
                ReasonCode.BUDGET_CHANGED,
                Terms("session", 0.5),
                0.25,
            )
        assert store.reserve([reservation("b", 0.25)])[0].refused is None

    def test_a_budget_says_what_its_bounds_rest_on(self, store: Store) -> None:
        """One entry for each revision and generation, with the largest delta; None if any bound is no theorem."""
        grounds = [Ground("r1", 1, 0.05), Ground("r1", 1, 0.1), Ground("r1", 2, 0.05), Ground("r2", 2, None)]
        grounds.append(Ground("r2", 2, 0.05))
        store.reserve([reservation(str(i), 0.01, ground=ground) for i, ground in enumerate(grounds)])
        record = store.budget("policy", "world", "session")
        assert record is not None
        assert record.grounds == (Ground("r1", 1, 0.1), Ground("r1", 2, 0.05), Ground("r2", 2, None))

    def test_a_window_moves_with_the_clock_and_never_back(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """What has left it counts no more; a clock that jumps back frees nothing."""
        clock = Clock(monkeypatch)

        def ask(name: str, bound: float, at: float, **terms: float) -> tuple[ReasonCode | None, float]:
            clock.now = at
            window = Terms("window", **{"total": 0.5, "window_seconds": 60.0, **terms})
            (found,) = store.reserve([reservation(name, bound, session="", terms=window)])
            return found.refused, found.spent

        full = ReasonCode.BUDGET_EXHAUSTED
        assert ask("a", 0.25, 1000.0) == (None, 0.25)
        assert ask("b", 0.25, 1030.0) == (None, 0.5)
        assert ask("c", 0.25, 1059.0) == (full, 0.5)
        assert ask("d", 0.25, 10.0) == (full, 0.5)
        assert ask("e", 0.5, 1060.0) == (full, 0.25)
        assert ask("f", 0.25, 1000.0) == (None, 0.5), "what had left by then stays gone, and counts from now"
        assert ask("g", 0.25, 1089.0) == (full, 0.5)
        assert ask("h", 0.25, 1090.0) == (None, 0.5)
        record = store.budget("policy", "world", "")
        assert record is not None
        assert (record.spent, record.accepts, record.terms.per) == (0.5, 2, "window")
        clock.now = 1120.0
        record = store.budget("policy", "world", "")
        assert record is not None
        assert (record.spent, record.accepts) == (0.25, 1)
        # a longer window has again in it what had left the shorter one
        assert ask("i", 0.25, 1120.0, window_seconds=100.0, total=1.0) == (None, 1.0)
        assert ask("j", 0.25, 1120.0, window_seconds=100.0, total=0.5) == (full, 1.0)

    def test_more_than_a_chunk_may_leave_a_window(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is not taken off at once counts on, and is taken off by the next checks, also if they are refused."""
        monkeypatch.setattr("guardrail.store.budgets.CHUNK", 2)
        clock, terms = Clock(monkeypatch), Terms("window", 0.5, 60.0)
        clock.now = 1000.0
        store.reserve([reservation(str(i), 0.125, session="", terms=terms) for i in range(4)])
        clock.now = 2000.0
        refused = [store.reserve([reservation(f"x{i}", 0.5, session="", terms=terms)])[0].refused for i in range(2)]
        assert refused == [ReasonCode.BUDGET_EXHAUSTED, None]

    def test_writers_at_once_never_exceed_a_total(self, store: Store, tmp_path: Path) -> None:
        """Threads, and where the database allows it stores, race for sessions and for a window."""
        feed = store.follow()
        stores = [store, store] if feed is None else [store, self.open(tmp_path), self.open(tmp_path)]
        if feed is not None:
            feed.close()
        terms = {"": Terms("window", 0.5, 86_400.0), "s": Terms("session", 0.5)}
        accepted: list[str] = []
        failures: list[BaseException] = []

        def race(thread: int, own: Store) -> None:
            try:
                for i in range(20):
                    batch = [
                        reservation(f"{thread}-{i}-{s}", 1 / 32, session=s, terms=t) for s, t in sorted(terms.items())
                    ]
                    answers = own.reserve(batch if thread % 2 else batch[::-1])
                    accepted.extend(
                        b.session
                        for b, r in zip(batch if thread % 2 else batch[::-1], answers, strict=True)
                        if r.refused is None
                    )
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=race, args=(i, own)) for i, own in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(accepted) == [""] * 16 + ["s"] * 16
        for session in terms:
            record = store.budget("policy", "world", session)
            assert record is not None
            assert (record.spent, record.accepts) == (0.5, 16)
        for other in stores:
            if other is not store:
                other.close()

    # ------------------------------------------------------------ escalations

    def test_escalations_come_back_as_they_were(self, store: Store) -> None:
        """Every field, by id and in pages, newest first; an unknown id is None; opening again changes nothing."""
        opened = [
            escalation(f"id-{i}", policy=text, world=text, caller=text, opened_at=1e9 + i / 7)
            for i, text in enumerate(AWKWARD_TEXT)
        ]
        store.open_escalations(opened)
        store.open_escalations([])
        said = store.resolve_escalation("id-1", DIGEST, True, "it's ☃", "a\nnote", 5.5)
        assert said == replace(
            opened[1], state=EscalationState.APPROVED, approver="it's ☃", note="a\nnote", resolved_at=5.5
        )
        store.open_escalations([opened[1], opened[2]])
        assert [store.escalation(one.escalation_id) for one in opened] == [opened[0], said, *opened[2:]]
        assert store.escalation("unknown") is None
        assert store.escalations(now=0.0) == [*reversed(opened[2:]), said, opened[0]]
        assert store.escalations(AWKWARD_TEXT[2], AWKWARD_TEXT[2], now=0.0) == [opened[2]]

    def test_another_escalation_under_an_id_is_refused(self, store: Store) -> None:
        """It undoes the batch."""
        store.open_escalations([escalation("a")])
        with pytest.raises(StoreError):
            store.open_escalations([escalation("b"), escalation("a", digest="f" * 64)])
        assert store.escalation("b") is None

    def test_escalations_page_by_state_at_a_time(self, store: Store) -> None:
        """Places at equal times are told apart by id; what has expired is neither pending nor approved."""
        store.open_escalations([escalation(f"{i:02}", opened_at=float(i // 3), expires_at=50.0 + i) for i in range(12)])
        store.resolve_escalation("01", DIGEST, True, "p", "", 1.0)
        store.resolve_escalation("02", DIGEST, False, "p", "", 1.0)
        store.resolve_escalation("11", DIGEST, True, "p", "", 1.0)
        store.use_escalation("11", DIGEST, "agent", "d", 1.0)
        found: list[str] = []
        after = None
        while page := store.escalations("policy", now=0.0, after=after, limit=5):
            after = (page[-1].opened_at, page[-1].escalation_id)
            found += [one.escalation_id for one in page]
        assert found == [f"{i:02}" for i in reversed(range(12))]

        def ids(state: EscalationState, now: float) -> list[str]:
            return [one.escalation_id for one in store.escalations(state=state, now=now)]

        assert ids(EscalationState.DENIED, 99.0) == ["02"]
        assert ids(EscalationState.USED, 99.0) == ["11"]
        assert ids(EscalationState.APPROVED, 50.0) == ["01"]
        assert ids(EscalationState.APPROVED, 51.0) == []
        assert ids(EscalationState.EXPIRED, 51.0) == ["01", "00"]
        assert ids(EscalationState.PENDING, 59.0) == ["10"]
        assert store.escalations("policy", "other", now=0.0) == store.escalations("other", now=0.0) == []

    def test_an_approval_is_used_once(self, store: Store) -> None:
        """By the first decision, which may ask again; every other one is told why not."""
        store.open_escalations([escalation("a", expires_at=9.0)])
        assert _refusal(store.use_escalation("a", DIGEST, "agent", "d1", 1.0)) == ReasonCode.APPROVAL_PENDING
        store.resolve_escalation("a", DIGEST, True, "person", "", 2.0)
        for digest, caller in (("f" * 64, "agent"), (DIGEST, "other")):
            assert _refusal(store.use_escalation("a", digest, caller, "d1", 3.0)) == ReasonCode.APPROVAL_MISMATCH
        assert _refusal(store.use_escalation("a", DIGEST, "agent", "d1", 9.0)) == ReasonCode.APPROVAL_EXPIRED
        assert _refusal(store.use_escalation("b", DIGEST, "agent", "d1", 3.0)) == ReasonCode.APPROVAL_UNKNOWN
        after = store.use_escalation("a", DIGEST, "agent", "d1", 3.0)
        assert after == store.escalation("a")
        assert isinstance(after, Escalation)
        assert (after.state, after.used_by, after.used_at) == (EscalationState.USED, "d1", 3.0)
        assert store.use_escalation("a", DIGEST, "agent", "d1", 99.0) == after
        assert _refusal(store.use_escalation("a", DIGEST, "agent", "d2", 3.0)) == ReasonCode.APPROVAL_USED

    def test_a_resolution_stands(self, store: Store) -> None:
        """The same words of the same person again change nothing, even late; any other are refused."""
        store.open_escalations([escalation("a", expires_at=9.0), escalation("late", expires_at=9.0)])
        first = store.resolve_escalation("a", DIGEST, False, "person", "no", 1.0)
        assert store.resolve_escalation("a", DIGEST, False, "person", "no", 99.0) == first
        for approve, approver, note in ((True, "person", "no"), (False, "other", "no"), (False, "person", "")):
            with pytest.raises(EscalationClosed):
                store.resolve_escalation("a", DIGEST, approve, approver, note, 2.0)
        with pytest.raises(EscalationMismatch):
            store.resolve_escalation("a", "f" * 64, False, "person", "no", 2.0)
        with pytest.raises(EscalationClosed):
            store.resolve_escalation("late", DIGEST, True, "person", "", 9.0)
        with pytest.raises(EscalationNotFound):
            store.resolve_escalation("none", DIGEST, True, "person", "", 1.0)
        assert store.escalation("a") == first

    def test_of_decisions_that_use_an_approval_at_once_one_may(self, store: Store) -> None:
        """Eight threads, many times over."""
        for number in range(10):
            name = f"id-{number}"
            store.open_escalations([escalation(name)])
            store.resolve_escalation(name, DIGEST, True, "person", "", 1.0)
            assert race_for(name, [store] * 8) == [True] + [False] * 7

    # ------------------------------------------------------------ chains

    def test_decisions_are_chained_in_the_order_of_their_batches(self, store: Store) -> None:
        """Positions 1, 2, ... in one chain; an audit finds nothing; the head is the last of them."""
        store.append_decisions([decision(f"a{i}") for i in range(3)])
        store.append_decisions([decision(f"b{i}", world="other") for i in range(2)])
        found = list(store.receipts())
        assert [(r.decision_id, r.position) for r in found] == [("a0", 1), ("a1", 2), ("a2", 3), ("b0", 4), ("b1", 5)]
        (chain,) = store.chains()
        assert {r.chain for r in found} == {chain.chain}
        assert (chain.head.position, chain.head.link) == (5, found[-1].link)
        assert audited(store) == {}

    def test_a_decision_that_is_appended_again_keeps_its_place(self, store: Store) -> None:
        """What is new in the batch goes on after the end, without a gap."""
        store.append_decisions([decision(f"{i}") for i in range(3)])
        places = [(r.decision_id, r.position, r.link) for r in store.receipts()]
        store.append_decisions([decision(f"{i}") for i in range(3)])
        store.append_decisions([decision(f"{i}") for i in (5, 1, 4, 0)])
        assert [(r.decision_id, r.position, r.link) for r in store.receipts()][:3] == places
        assert [(r.decision_id, r.position) for r in store.receipts()][3:] == [("5", 4), ("4", 5)]
        assert audited(store) == {}

    def test_a_batch_that_fails_in_its_middle_leaves_no_gap(self, store: Store) -> None:
        """Text that no database can hold, a log that was never started, another decision of that id."""
        store.append_decisions([decision("a")])
        for bad in (decision("c", verdict="\ud800"), decision("c", generation=7), decision("a", verdict="{}")):
            with pytest.raises(StoreError):
                store.append_decisions([decision("b"), bad, decision("d")])
        store.append_decisions([decision("e")])
        assert [(r.decision_id, r.position) for r in store.receipts()] == [("a", 1), ("e", 2)]
        assert audited(store) == {}

    def test_each_store_has_a_chain_of_its_own(self, store: Store, tmp_path: Path) -> None:
        """One that is opened after another, or while the other one is open if the database allows that."""
        shared = store.follow()
        store.append_decisions([decision("a")])
        if shared is None:
            store.close()
        else:
            shared.close()
        second = self.open(tmp_path)
        try:
            second.append_decisions([decision("b"), decision("a")])
            if shared is not None:
                store.append_decisions([decision("b"), decision("c")])
                second.append_decisions([decision("d")])
            ends = sorted(chain.head.position for chain in second.chains())
            assert ends == ([1, 1] if shared is None else [2, 2])
            assert audited(second) == {}
        finally:
            second.close()

    # ------------------------------------------------------------ policies and snapshots

    def test_a_policy_document_keeps_its_revision(self, store: Store) -> None:
        """The first document of a revision stays; an unknown revision is None."""
        store.record_policy("policy", "r1", "first\n")
        store.record_policy("policy", "r2", "second ☃")
        store.record_policy("policy", "r1", "other")
        assert store.policy_document("r1") == "first\n"
        assert store.policy_document("r2") == "second ☃"
        assert store.policy_document("r3") is None

    def test_the_newest_snapshot_of_a_revision(self, store: Store) -> None:
        """By sequence, not by the time of saving; of its own world and revision only."""
        payloads = {sequence: bytes([sequence]) * 10_000 for sequence in (2, 1, 3)}
        for sequence, payload in payloads.items():
            store.save_snapshot(Snapshot("policy", "r1", "world", sequence, payload))
        store.save_snapshot(Snapshot("policy", "r2", "world", 9, b"revision"))
        store.save_snapshot(Snapshot("policy", "r1", "other", 8, b""))
        assert store.latest_snapshot("policy", "world", "r1") == Snapshot("policy", "r1", "world", 3, payloads[3])
        assert store.latest_snapshot("policy", "world", "r2") == Snapshot("policy", "r2", "world", 9, b"revision")
        assert store.latest_snapshot("policy", "other", "r1") == Snapshot("policy", "r1", "other", 8, b"")
        for key in [("policy", "world", "r3"), ("policy", "none", "r1"), ("none", "world", "r1")]:
            assert store.latest_snapshot(*key) is None

    def test_a_snapshot_may_be_saved_again(self, store: Store) -> None:
        """The last one saved for a place stands."""
        for payload in (b"first", b"second"):
            store.save_snapshot(Snapshot("policy", "r", "world", 5, payload))
        assert store.latest_snapshot("policy", "world", "r") == Snapshot("policy", "r", "world", 5, b"second")

    # ------------------------------------------------------------ life

    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        """Observations, ids, decisions, policies and snapshots outlive the store that wrote them."""
        store = self.open(tmp_path)
        store.append_observations([observation("a"), observation("b")])
        store.append_decisions([decision("d")])
        store.record_policy("policy", "r", "document")
        store.save_snapshot(Snapshot("policy", "r", "world", 2, b"state"))
        before = list(store.observations("policy", "world"))
        store.close()
        store = self.open(tmp_path)
        assert list(store.observations("policy", "world")) == before
        assert store.append_observations([observation("b"), observation("c")]) == [duplicate_of(2), new_at(3)]
        assert store.decision("d") == decision("d")
        assert store.policy_document("r") == "document"
        assert store.latest_snapshot("policy", "world", "r") == Snapshot("policy", "r", "world", 2, b"state")
        store.close()

    def test_a_closed_store_says_so(self, store: Store) -> None:
        """Closing twice is nothing; every use after it is a StoreError."""
        store.close()
        store.close()
        for use in (
            lambda: store.append_observations([observation("a")]),
            lambda: store.append_decisions([decision("a")]),
            lambda: store.reserve([reservation("a", 0.1)]),
            lambda: store.budget("policy", "world", "session"),
            lambda: store.record_policy("policy", "r", "document"),
            lambda: store.policy_document("r"),
            lambda: list(store.observations("policy", "world")),
            lambda: store.observation_count("policy", "world"),
            lambda: store.worlds(),
            lambda: store.decision("a"),
            lambda: list(store.decisions()),
            lambda: store.save_snapshot(Snapshot("policy", "r", "world", 1, b"")),
            lambda: store.latest_snapshot("policy", "world", "r"),
        ):
            with pytest.raises(StoreError):
                use()

    def test_readers_see_whole_batches_while_one_thread_writes(self, store: Store) -> None:
        """Four readers: logs never shrink, hold only whole batches, and have no gaps."""
        size, batches, failures = 10, 60, []
        done = threading.Event()
        reading = threading.Barrier(5)

        def read() -> None:
            try:
                reading.wait()
                seen = 0
                while not done.is_set():
                    found = [o.sequence for o in store.observations("policy", "world")]
                    if found != list(range(1, len(found) + 1)) or len(found) % size or len(found) < seen:
                        raise AssertionError(found)
                    seen = len(found)
                    if store.observation_count("policy", "world") < seen:
                        raise AssertionError("the log shrank")
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        reading.wait()
        try:
            for batch in range(batches):
                store.append_observations([observation(f"{batch}-{i}") for i in range(size)])
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert failures == []
        assert store.observation_count("policy", "world") == size * batches

    def test_several_threads_may_write_in_turn(self, store: Store) -> None:
        """Batches from four threads all arrive, each numbered without gaps."""
        results: dict[int, list[Appended]] = {}

        def write(thread: int) -> None:
            results[thread] = [
                result
                for batch in range(10)
                for result in store.append_observations([observation(f"{thread}-{batch}-{i}") for i in range(5)])
            ]

        writers = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(r.sequence for each in results.values() for r in each) == list(range(1, 201))
        assert store.observation_count("policy", "world") == 200


def paged(store: Store, policy: str | None, world: str | None, limit: int) -> list[DecisionRecord]:
    """All recent decisions, page by page; places fall."""
    records: list[DecisionRecord] = []
    before, last = None, math.inf
    while True:
        page = store.recent_decisions(policy, world, before=before, limit=limit)
        assert len(page.found) <= limit
        for place, record in page.found:
            assert place < last
            last = place
            records.append(record)
        if page.before is None:
            return records
        assert before is None or page.before < before
        before = page.before


def audited(store: Store) -> dict[str, int]:
    """What an audit of the decision log finds, by code."""
    audit = Audit(store.chains)
    for receipt in store.receipts():
        audit.take(receipt)
    audit.finish()
    return dict(audit.counts)


def _told(feed: Feed, worlds: int) -> frozenset[tuple[str, str]]:
    """What the feed tells until it named so many worlds."""
    found: frozenset[tuple[str, str]] = frozenset()
    while len(found) < worlds:
        changes = feed.next(30)
        assert changes.worlds, "nothing was told"
        assert not changes.missed
        found |= changes.worlds
    return found


def _append_to_model(log: list[tuple[str, str]], observation_id: str, content: str) -> Appended:
    for place, (known_id, known_content) in enumerate(log, start=1):
        if known_id == observation_id:
            return duplicate_of(place) if known_content == content else conflict_with(place)
    log.append((observation_id, content))
    return new_at(len(log))
