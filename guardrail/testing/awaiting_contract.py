"""What every store must do about awaited outcomes; part of `store_contract.StoreContract`."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.awaiting import ASSUMED_BY, Awaited
from guardrail.errors import DecisionNotFound, ReportConflict, StoreError
from guardrail.store.base import Appended, NewAwaited, NewObservation, OverdueOutcome, Store

if TYPE_CHECKING:
    from pathlib import Path


def awaited(decision_id: str, due_at: float = 10.0, **other: object) -> NewAwaited:
    """An accept at time 0 whose outcome is due at a time."""
    plain = NewAwaited(decision_id, "policy", "world", "revision", 0.0, due_at)
    return replace(plain, **other)  # type: ignore[arg-type]


def outcome(decision_id: str, content: str = "{}", world: str = "world", reporter: str = "") -> NewObservation:
    """The outcome of a decision."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    return NewObservation("policy", world, decision_id, digest, content, reporter)


def harm(decision_id: str, world: str = "world") -> NewObservation:
    """What an overdue outcome is taken for."""
    return outcome(decision_id, '{"harm": true}', world, ASSUMED_BY)


OWED = Awaited("policy", "world")


class AwaitingContract(ABC):
    """The clauses of `guardrail.store.base.Store` about awaited outcomes, one test each."""

    @abstractmethod
    def open(self, directory: Path) -> Store:
        """A store that keeps its data in a directory; called again after `close`, it must find them."""

    def test_what_is_owed_by_time_and_world(self, store: Store) -> None:
        """Awaited, then overdue from the very time on that it is due; each world apart."""
        batch = [awaited("a"), awaited("b", 20.0), awaited("c", 5.0, world="other")]
        assert store.await_outcomes(batch, 0.0) == [None] * 3
        other = Awaited("policy", "other", 0, 1, 5.0, "c")
        assert store.awaited(9.0) == [other, replace(OWED, awaited=2, oldest_due=10.0)]
        assert store.awaited(10.0, "policy", "world") == [
            replace(OWED, awaited=1, overdue=1, oldest_due=10.0, oldest="a")
        ]
        assert store.awaited(10.0, "policy", "none") == []
        assert store.overdue_outcomes("policy", "world", 9.0, 5) == []
        assert [one.decision_id for one in store.overdue_outcomes("policy", "world", 20.0, 5)] == ["a", "b"]
        assert [one.decision_id for one in store.overdue_outcomes("policy", "world", 20.0, 1)] == ["a"]
        assert store.await_outcomes([], 0.0) == []

    def test_what_was_asked_comes_back(self, store: Store) -> None:
        """For whoever takes the outcome for harm."""
        store.await_outcomes([awaited("a", request='{"action":{"x":"\u2603"}}')], 0.0)
        assert store.overdue_outcomes("policy", "world", 10.0, 5) == [
            OverdueOutcome("a", 10.0, '{"action":{"x":"\u2603"}}')
        ]

    def test_nothing_is_kept_while_an_outcome_is_overdue(self, store: Store) -> None:
        """But in other worlds, and what a person approved; the answer says what is owed."""
        store.await_outcomes([awaited("a"), awaited("b")], 0.0)
        batch = [awaited("c", 30.0), awaited("d", 30.0, approved=True), awaited("e", 30.0, world="other")]
        owed = replace(OWED, overdue=2, oldest_due=10.0, oldest="a")
        assert store.await_outcomes(batch, 9.0)[1:] == [None, None]
        batch = [replace(one, decision_id=f"{one.decision_id}2") for one in batch]
        assert store.await_outcomes(batch, 10.0) == [owed, None, None]
        assert store.awaited(10.0, "policy", "world")[0].awaited == 3

    def test_an_id_is_awaited_once(self, store: Store) -> None:
        """A used one fails its whole batch."""
        store.await_outcomes([awaited("a")], 0.0)
        with pytest.raises(StoreError):
            store.await_outcomes([awaited("b"), awaited("a", world="other")], 0.0)
        assert store.awaited(0.0) == [replace(OWED, awaited=1, oldest_due=10.0)]

    def test_a_report_settles_what_is_awaited(self, store: Store) -> None:
        """Under the decision's id, in its world, whether it is late or not; once."""
        store.await_outcomes([awaited("a"), awaited("b")], 0.0)
        appended = store.append_observations([outcome("a"), outcome("x"), outcome("b", world="other")])
        assert [one.settled for one in appended] == [True, False, False]
        assert store.awaited(10.0) == [replace(OWED, overdue=1, oldest_due=10.0, oldest="b")]
        assert [one.settled for one in store.append_observations([outcome("a"), outcome("b")])] == [False, True]
        assert store.awaited(10.0) == []
        assert store.await_outcomes([awaited("c", 30.0)], 20.0) == [None]

    def test_what_was_not_taken_is_awaited_no_longer(self, store: Store) -> None:
        """All of a list or nothing of it; again it changes nothing, and an outcome after all is taken up."""
        store.await_outcomes([awaited("a"), awaited("b"), awaited("c")], 0.0)
        store.append_observations([outcome("c")])
        for unknown, error in (("c", ReportConflict), ("none", DecisionNotFound)):
            with pytest.raises(error):
                store.release_outcomes("policy", "world", ["a", unknown], 1.0)
        with pytest.raises(DecisionNotFound):
            store.release_outcomes("policy", "other", ["a"], 1.0)
        assert store.release_outcomes("policy", "world", ["a", "a"], 1.0) == 1
        assert store.release_outcomes("policy", "world", ["a", "b"], 1.0) == 1
        assert store.awaited(10.0) == []
        assert not store.append_observations([outcome("a")])[0].settled
        with pytest.raises(ReportConflict):
            store.release_outcomes("policy", "world", ["a"], 1.0)

    def test_only_what_is_overdue_is_taken_for_harm(self, store: Store) -> None:
        """Not what is reported, not taken, not due, unknown or of another world."""
        store.await_outcomes([awaited(i) for i in "abcd"], 0.0)
        store.await_outcomes([awaited("later", 30.0)], 0.0)
        store.append_observations([outcome("b")])
        store.release_outcomes("policy", "world", ["c"], 1.0)
        batch = [harm(i) for i in ("a", "b", "c", "later", "none")] + [harm("d", "other")]
        taken, *others = store.assume_outcomes(batch, 10.0)
        assert taken == Appended(2, duplicate=False, conflict=False, settled=True)
        assert others == [None] * 5
        assert store.assume_outcomes([harm("a")], 10.0) == [None]
        assert store.assume_outcomes([], 10.0) == []
        assert store.first_assumed("policy", "world", 1) == 2
        assert store.first_assumed("policy", "world", 2) is None
        assert store.first_assumed("policy", "other", 1) is None
        (owed,) = store.awaited(10.0)
        assert owed == replace(OWED, awaited=1, overdue=1, oldest_due=10.0, oldest="d", assumed=1)
        assert [o.reporter for o in store.observations("policy", "world")] == ["", ASSUMED_BY]
        assert store.append_observations([outcome("a"), harm("a")]) == [
            Appended(2, duplicate=False, conflict=True),
            Appended(2, duplicate=True, conflict=False),
        ]
        with pytest.raises(ReportConflict):
            store.release_outcomes("policy", "world", ["a"], 10.0)

    def test_no_bound_is_kept_that_does_not_know_what_was_taken_for_harm(self, store: Store) -> None:
        """Whatever was approved."""
        store.await_outcomes([awaited("a")], 0.0)
        store.assume_outcomes([harm("a")], 10.0)
        batch = [awaited("b", 30.0), awaited("c", 30.0, approved=True), awaited("d", 30.0, assumed=True)]
        owed = replace(OWED, assumed=1)
        assert store.await_outcomes(batch, 10.0) == [owed, owed, None]

    def test_a_reset_closes_what_is_awaited(self, store: Store) -> None:
        """Also where nothing was reported yet; what was assumed stays with the closed log."""
        store.await_outcomes([awaited("a"), awaited("b")], 0.0)
        store.reset_world("policy", "world", 1, "why", "")
        assert store.awaited(10.0) == []
        assert store.overdue_outcomes("policy", "world", 10.0, 5) == []
        assert store.assume_outcomes([harm("a")], 10.0) == [None]
        assert store.await_outcomes([awaited("c", 20.0)], 10.0) == [None]
        store.assume_outcomes([harm("c")], 20.0)
        assert store.first_assumed("policy", "world", 2) == 1
        store.reset_world("policy", "world", 2, "why", "")
        assert store.awaited(20.0) == []
        assert store.await_outcomes([awaited("d", 30.0)], 20.0) == [None]
        assert store.append_observations([outcome("b")])[0].settled  # late, and of no consequence

    def test_what_is_awaited_is_there_after_reopening(self, tmp_path: Path) -> None:
        """With everything that became of it."""
        store = self.open(tmp_path)
        store.await_outcomes([awaited("a"), awaited("b"), awaited("c", 20.0)], 0.0)
        store.assume_outcomes([harm("a")], 10.0)
        store.release_outcomes("policy", "world", ["b"], 10.0)
        before = store.awaited(15.0)
        store.close()
        store = self.open(tmp_path)
        assert store.awaited(15.0) == before == [replace(OWED, awaited=1, oldest_due=20.0, assumed=1)]
        store.close()

    def test_a_report_and_an_assumption_race(self, store: Store, tmp_path: Path) -> None:
        """Threads, and where the database allows it stores: exactly one of them is in the log, and settles it."""
        feed = store.follow()
        stores = [store, store] if feed is None else [store, self.open(tmp_path)]
        if feed is not None:
            feed.close()
        store.await_outcomes([awaited(str(i)) for i in range(20)], 0.0)
        start, told = threading.Barrier(2), {}
        failures: list[BaseException] = []

        def race(name: str, own: Store) -> None:
            try:
                start.wait()
                told[name] = [
                    own.append_observations([outcome(str(i))])[0]
                    if name == "report"
                    else own.assume_outcomes([harm(str(i))], 10.0)[0]
                    for i in range(20)
                ]
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=race, args=pair) for pair in zip(("report", "assume"), stores, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        log = {o.observation_id: o.reporter for o in store.observations("policy", "world")}
        assert len(log) == 20
        for i in range(20):
            reported, assumed = told["report"][i], told["assume"][i]
            assert reported is not None
            if log[str(i)] == ASSUMED_BY:
                assert (reported.conflict, assumed is not None and assumed.settled) == (True, True)
            else:
                assert (reported.settled, assumed) == (True, None)
        assert store.awaited(10.0) == [replace(OWED, assumed=sum(r == ASSUMED_BY for r in log.values()))] or (
            ASSUMED_BY not in log.values()
        )
        for other in stores:
            if other is not store:
                other.close()

    def test_any_history_of_awaited_outcomes_agrees_with_a_model(self, store: Store) -> None:
        """Accepts, reports, releases and assumptions in any order: nothing is settled twice, and nothing is lost."""
        steps = st.lists(
            st.tuples(st.sampled_from(("accept", "report", "release", "assume", "wait")), st.integers(0, 4)),
            max_size=25,
        )
        runs = 0

        @settings(derandomize=True, deadline=None, max_examples=40)
        @given(steps)
        def agrees(history: list[tuple[str, int]]) -> None:
            nonlocal runs
            runs += 1
            _follow_model(store, f"world-{runs}", history)

        agrees()


def _follow_model(store: Store, world: str, history: list[tuple[str, int]]) -> None:
    now, states, due = 0.0, dict[str, str](), dict[str, float]()
    log: list[str] = []

    def overdue() -> list[str]:
        return [one for one in states if states[one] == "awaited" and due[one] <= now]

    for what, number in history:
        name = f"{world}-{number}"
        state = states.get(name)
        if what == "wait":
            now += 5.0
        elif what == "accept" and state is None:
            expected = None
            if overdue() or "assumed" in states.values():
                expected = "refused"
            else:
                states[name], due[name] = "awaited", now + 10.0
            (found,) = store.await_outcomes([awaited(name, now + 10.0, world=world)], now)
            assert (found is None) == (expected is None)
        elif what == "report" and state is not None:
            (appended,) = store.append_observations([outcome(name, world=world)])
            assert appended.settled == (state == "awaited")
            assert appended.conflict == (state == "assumed")
            if state in ("awaited", "not_taken"):
                states[name] = "reported"
                log.append(name)
        elif what == "release" and state in ("awaited", "not_taken"):
            assert store.release_outcomes("policy", world, [name], now) == (state == "awaited")
            states[name] = "not_taken"
        elif what == "assume":
            (taken,) = store.assume_outcomes([harm(name, world)], now)
            assert (taken is not None) == (name in overdue())
            if taken is not None:
                states[name] = "assumed"
                log.append(name)
        late = overdue()
        open_ = [one for one in states if states[one] == "awaited"]
        assumed = sum(one == "assumed" for one in states.values())
        told = store.awaited(now, "policy", world)
        assert [(o.awaited, o.overdue, o.assumed) for o in told] == (
            [(len(open_) - len(late), len(late), assumed)] if open_ or assumed else []
        )
        first = store.first_assumed("policy", world, 1)
        assert first == next((i for i, one in enumerate(log, 1) if states[one] == "assumed"), None)
    assert [o.observation_id for o in store.observations("policy", world)] == log
