"""Whatever order commits, reads and notifications come in, a posterior is the fold of the log."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from shared_log import SharedLog, observation

from guardrail.domain import ReasonCode
from guardrail.errors import ReportConflict, RevisionNotReached, StoreError, WorldUnavailable

OUTCOMES = st.booleans()
STEPS = st.one_of(
    st.tuples(st.just("own"), OUTCOMES),
    st.tuples(st.just("again"), OUTCOMES),  # the last report once more: a duplicate, or a conflict
    st.tuples(st.just("foreign"), st.lists(OUTCOMES, min_size=1, max_size=3)),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("told"), st.integers(1, 2)),  # of a change, once or twice, whenever it was
    st.tuples(st.just("look"), st.none()),  # at all worlds, as after a lost feed
    st.tuples(st.just("check"), st.integers(0, 3)),  # with so many observations more than there are here
)
EVENTS = st.lists(st.one_of(st.just(()), st.lists(OUTCOMES, max_size=2), st.just("reset")), max_size=12)
"""What happens around a read of the log, one after the other: foreign commits, a reset, or nothing."""


class Story:
    """One random interleaving on one replica; foreign commits come in the middle of its reads too."""

    def __init__(self, log, replica, events, confirmed_late):
        self.log, self.replica, self.events = log, replica, list(events)
        self.foreign, self.confirmed_late = 0, list(confirmed_late)
        self.loop = asyncio.get_running_loop()
        log.before = log.after = self.disturb
        log.confirm = self.delay

    def write(self, outcomes):
        batch = [
            observation(self.foreign + place, one, name=f"f{self.foreign + place}")
            for place, one in enumerate(outcomes)
        ]
        self.foreign += len(batch)
        self.log.write(batch, tell=False)

    def disturb(self, method):
        event = self.events.pop() if self.events else ()
        if event == "reset":
            self.log.reset(tell=False)
        elif event:
            self.write(event)

    def delay(self, batch):
        """A commit that the replica reads in the log before it is told that the commit was its own."""
        if self.confirmed_late and self.confirmed_late.pop():
            asyncio.run_coroutine_threadsafe(self.replica.catch_up.run("coin", "w"), self.loop).result(30)

    async def step(self, kind, what):
        replica = self.replica
        if kind == "own":
            answer = await replica.report(what)
            world = replica.world()
            # Later checks rest on it, unless the log was closed meanwhile.
            closed = self.log.generations["coin", "w"] > answer.generation
            assert closed or (world.generation == answer.generation and world.revision >= answer.sequence)
        elif kind == "again" and replica.reported:
            with contextlib.suppress(ReportConflict):
                await replica.report(what, name=f"{id(replica)}-{replica.reported}")
        elif kind == "foreign":
            self.write(what)
        elif kind == "reset":
            self.log.reset(tell=False)
        elif kind == "told":
            await asyncio.gather(*(replica.catch_up.run("coin", "w") for _ in range(what)))
        elif kind == "look":
            await replica.catch_up.run_all("coin")
        elif kind == "check":
            wanted = replica.world().committed + what
            try:
                assert (await replica.check(min_revision=wanted)).posterior_revision >= wanted
            except RevisionNotReached:
                assert what > 0


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=14), events=EVENTS, confirmed_late=st.lists(st.booleans(), max_size=6))
def test_any_interleaving_of_commits_and_reads_gives_the_fold_of_the_log(
    coin, replicas, level, steps, events, confirmed_late
):
    async def tell():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            story = Story(log, replica, events, confirmed_late)
            for kind, what in steps:
                await story.step(kind, what)
            log.before = log.after = lambda method: None
            await replica.catch_up.run("coin", "w")
            assert replica.world().generation in (0, log.generations.get(("coin", "w"), 1))
            assert await level(replica, log, coin)

    asyncio.run(tell())


def run(story):
    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_report_here_after_reports_elsewhere_counts_them_all(coin, replicas, level):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, count=2) as (one, other):
            for number in range(5):
                await one.report(number % 2 == 0)
            answer = await other.report(True)
            assert answer.sequence == 6
            assert other.world().revision == 6
            assert await level(other, log, coin)
            assert one.world().revision == 5  # nobody told it yet
            assert (await one.check(min_revision=6)).posterior_revision == 6
            assert await level(one, log, coin)

    run(story)


def test_what_a_session_promises_rests_on_the_whole_log(coin, replicas, monkeypatch):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, count=2) as (one, other):
            await one.report(True)
            seen = []

            async def view(policy, world, session, bounds):
                seen.append(other.world().revision)

            monkeypatch.setattr(other.service._budgets, "view", view)
            assert other.world().revision == 0  # nobody told it yet
            await other.service.session("coin", "w", "s")
            assert seen == [1]

    run(story)


def test_checks_that_want_the_same_read_share_it(coin, replicas):
    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            log.write([observation(n) for n in range(3)])
            verdicts = await asyncio.gather(*(replica.check(min_revision=3) for _ in range(20)))
            assert [v.posterior_revision for v in verdicts] == [3] * 20
            assert log.reads.count(("observations", "w", 0)) == 1
            await replica.check(min_revision=3)
            assert log.reads.count(("observations", "w", 0)) == 1  # what is here already is not read again

    run(story)


def test_a_revision_is_counted_in_the_log_that_a_reset_elsewhere_began(coin, replicas):
    """The old log is long enough, and is not what the report that answered 1 went into."""

    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            for _ in range(3):
                await replica.report(True)
            log.reset(tell=False)
            log.write([observation(9)], tell=False)
            assert (await replica.check(min_revision=1)).posterior_revision == 1
            assert replica.world().generation == 2
            with pytest.raises(RevisionNotReached):
                await replica.check(min_revision=3)

    run(story)


def test_a_read_that_began_before_the_question_does_not_answer_it(coin, replicas):
    """A check that joins a read under way could miss what was committed just before it asked."""

    async def story():
        log, begun, go_on = SharedLog(), threading.Event(), threading.Event()
        async with replicas(log, coin) as (replica,):
            log.write([observation(1)])

            def hold(method):
                log.after = lambda method: None
                begun.set()
                assert go_on.wait(30)

            log.after = hold  # the first read has its answer, and is held
            early = asyncio.create_task(replica.check(min_revision=1))
            await asyncio.to_thread(begun.wait, 30)
            log.write([observation(2)])
            late = asyncio.create_task(replica.check(min_revision=2))
            await asyncio.sleep(0)
            go_on.set()
            assert (await early).posterior_revision >= 1
            assert (await late).posterior_revision == 2

    run(story)


def test_more_than_the_log_holds_is_an_error_that_names_both_numbers(coin, replicas):
    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            log.write([observation(n) for n in range(2)])
            with pytest.raises(RevisionNotReached, match=r"holds 2 observations.* at least 3") as caught:
                await replica.check(min_revision=3)
            assert caught.value.reason == "REVISION_NOT_REACHED"
            assert (await replica.check(min_revision=2)).posterior_revision == 2
            log.failing.add("head")  # whether the log was reset elsewhere cannot be known any more
            for wanted in (2, 3):
                with pytest.raises(StoreError):
                    await replica.check(min_revision=wanted)
            assert (await replica.check()).posterior_revision == 2

    run(story)


def test_a_log_that_got_shorter_or_went_on_otherwise_makes_a_world_start_again_from_it(coin, replicas, level):
    """As after a database was restored from a backup, or a standby took over that lacked the last commits."""

    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            for _ in range(4):
                await replica.report(True)
            lost, key = replica.world(), ("coin", "w")
            del log.logs[key][2:]
            await replica.catch_up.run_all("coin")
            assert lost.failed
            assert replica.world().revision == 2
            assert await level(replica, log, coin)
            del log.logs[key][1:]
            log.write([observation(n, False, name=f"x{n}") for n in range(3)])  # as long as before, and longer
            await replica.report(False)
            assert replica.world().revision == 5
            assert await level(replica, log, coin)

    run(story)


def test_a_reset_while_the_log_is_read_leaves_nothing_of_the_old_log_behind(coin, replicas, level):
    """The next log is longer than the old one already when the read of the old one is answered."""

    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            await replica.report(True)
            log.write([observation(2, True)], tell=False)

            def reset(method):
                if method == "observations":
                    log.before = lambda method: None
                    log.reset(tell=False)
                    log.write([observation(n, False, name=f"next-{n}") for n in range(5)], tell=False)

            log.before = reset
            await replica.catch_up.run("coin", "w")
            assert (replica.world().generation, replica.world().committed) == (2, 5)
            assert await level(replica, log, coin)

    run(story)


def test_what_others_reported_and_this_revision_cannot_take_up_makes_the_world_unavailable(coin, replicas, level):
    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            await replica.report(True)
            log.write([observation(9, True, action={"kind": "sideways"})])
            await replica.catch_up.run("coin", "w")
            with pytest.raises(WorldUnavailable, match=r"observation 2 \(o9\) does not fit policy coin"):
                await replica.check()
            with pytest.raises(WorldUnavailable):
                await replica.report(True)
            assert (await replica.check(world="another")).posterior_revision == 0
            log.reset()
            await replica.catch_up.run("coin", "w")
            assert (await replica.check()).posterior_revision == 0
            assert (await replica.report(True)).sequence == 1
            assert await level(replica, log, coin)

    run(story)


def test_a_world_with_memory_answers_from_the_end_of_the_log_whatever_comes_in_when(wear, replicas):
    """Outcomes elsewhere, between any two reads: a bound that was computed before one never leaves the service."""

    async def story():
        for times in range(6):
            log, written = SharedLog(), []
            async with replicas(log, wear, follow=True) as (replica,):

                def disturb(method, log=log, written=written, times=times):
                    if method == "head" and len(written) < times:
                        written.append(observation(len(written), True, "wear", action={}))
                        log.write(written[-1:], tell=False)

                log.before = disturb
                verdict = await replica.check("wear")
                if verdict.reasons[0].code is ReasonCode.STALE_POSTERIOR:
                    assert times >= 4
                    continue
                assert verdict.posterior_revision == len(log.outcomes("wear")) == len(written)
                assert times == 0 or written

    run(story)


def test_a_world_with_memory_is_not_answered_from_a_log_that_was_reset(wear, replicas):
    """As many observations as before, but others: only the generation tells."""

    async def story():
        log = SharedLog()
        async with replicas(log, wear, follow=True) as (replica,):
            await replica.report(True, "wear")
            before = await replica.check("wear")

            def reset(method):
                if method == "head":
                    log.before = lambda method: None
                    log.reset("wear", tell=False)
                    log.write([observation(1, False, "wear", action={})], tell=False)

            log.before = reset
            after = await replica.check("wear")
            assert (before.posterior_revision, after.posterior_revision) == (1, 1)
            assert before.harm_bound != after.harm_bound

    run(story)


def test_a_world_with_memory_has_no_verdict_without_the_log(wear, replicas):
    async def story():
        log = SharedLog()
        async with replicas(log, wear, follow=True) as (replica,):
            log.failing.add("head")
            with pytest.raises(StoreError):
                await replica.check("wear")
            log.failing.clear()
            assert (await replica.check("wear")).posterior_revision == 0

    run(story)
