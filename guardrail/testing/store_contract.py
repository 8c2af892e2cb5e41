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
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.errors import StoreError
from guardrail.store.base import Appended, DecisionRecord, NewObservation, Snapshot, Store, WorldRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def new_at(sequence: int) -> Appended:
    """The result for an observation that was accepted at that place."""
    return Appended(sequence, duplicate=False, conflict=False)


def duplicate_of(sequence: int) -> Appended:
    """The result for an observation that was accepted at that place before."""
    return Appended(sequence, duplicate=True, conflict=False)


def conflict_with(sequence: int) -> Appended:
    """The result for an observation whose id was accepted at that place with other content."""
    return Appended(sequence, duplicate=False, conflict=True)


class StoreContract(ABC):
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

    def test_a_decision_may_be_appended_again(self, store: Store) -> None:
        """Equal content is left as it is; other content fails and undoes the batch."""
        store.append_decisions([decision("a")])
        store.append_decisions([decision("a"), decision("b"), decision("b")])
        with pytest.raises(StoreError):
            store.append_decisions([decision("c"), decision("a", verdict="{}")])
        with pytest.raises(StoreError):
            store.append_decisions([decision("c"), decision("c", verdict="{}")])
        assert [r.decision_id for r in store.decisions()] == ["a", "b"]

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


def _append_to_model(log: list[tuple[str, str]], observation_id: str, content: str) -> Appended:
    for place, (known_id, known_content) in enumerate(log, start=1):
        if known_id == observation_id:
            return duplicate_of(place) if known_content == content else conflict_with(place)
    log.append((observation_id, content))
    return new_at(len(log))
