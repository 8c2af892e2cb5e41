"""What others write arrives by itself; a lost feed is noticed, said, and made good."""

from __future__ import annotations

import asyncio
import threading

import pytest
from replica_policies import COIN
from shared_log import SharedLog, observation

from guardrail.domain import ReasonCode
from guardrail.errors import StoreCorrupt, StoreError, WorldUnavailable
from guardrail.server import following
from guardrail.store.base import Changes


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(following, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(following, "LONGEST_PAUSE_SECONDS", 0.01)


def run(story):
    asyncio.run(asyncio.wait_for(story(), 60))


def test_what_one_replica_takes_up_the_others_do(coin, wear, replicas, level, until):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, wear, count=3, follow=True) as three:
            for place, replica in enumerate(three):
                await replica.report(place == 1)
                await replica.report(True, world=f"new-{place}")
            for replica in three:
                await until(lambda replica=replica: replica.world().revision == 3)
                await until(lambda replica=replica: all(replica.world(world=f"new-{n}").revision for n in range(3)))
                assert await level(replica, log, coin)
            log.write([observation(1, policy="unknown")])  # a policy that is not loaded here
            log.write([observation(77)])
            for replica in three:
                await until(lambda replica=replica: replica.world().revision == 4)
            bounds = {(await replica.check()).harm_bound for replica in three}
            assert len(bounds) == 1

    run(story)


def test_worlds_that_others_made_while_this_one_started_are_there(coin, replicas, level):
    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (replica,):
            log.write([observation(n) for n in range(4)])
            await replica.following.start()
            assert replica.world().revision == 4
            assert await level(replica, log, coin)

    run(story)


@pytest.mark.parametrize("missed", ["reports", "a reset"])
def test_a_lost_feed_is_said_in_verdicts_and_made_good(coin, replicas, level, until, missed):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, follow=True) as (replica,):
            await replica.report(True)
            assert (await replica.check()).notices == ()
            assert replica.following.behind_since is None
            log.failing |= {"next"}
            log.feeds[0].changes.put(StoreError("the connection is lost"))
            await until(lambda: replica.following.behind_since is not None)
            since = replica.following.behind_since
            if missed == "reports":
                log.write([observation(n) for n in range(2)], tell=False)
            else:
                log.reset(tell=False)
            verdict = await replica.check()
            assert [notice.code for notice in verdict.notices] == [ReasonCode.POSTERIOR_BEHIND]
            assert verdict.posterior_revision == 1
            assert replica.following.behind_since == since  # not: since the last attempt
            log.failing.clear()
            await until(lambda: replica.following.behind_since is None)
            assert (await replica.check()).notices == ()
            assert replica.world().revision == (3 if missed == "reports" else 0)
            assert await level(replica, log, coin)

    run(story)


def test_a_feed_that_may_have_missed_something_has_all_worlds_looked_at(coin, replicas, level, until):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, follow=True) as (replica,):
            log.write([observation(1)], tell=False)
            log.feeds[0].changes.put(Changes(frozenset(), True))
            await until(lambda: replica.world().revision == 1)
            assert replica.following.behind_since is None

    run(story)


def test_a_log_that_cannot_be_read_leaves_the_replica_behind_until_it_can(coin, replicas, until):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, follow=True) as (replica,):
            log.failing |= {"head", "worlds"}
            log.write([observation(1)])
            await until(lambda: replica.following.behind_since is not None)
            assert replica.world().revision == 0
            log.failing.clear()  # nobody tells of the change again
            await until(lambda: replica.following.behind_since is None)
            assert replica.world().revision == 1

    run(story)


def test_a_feed_that_says_nothing_any_more_counts_as_lost(coin, replicas, until, monkeypatch):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, follow=True) as (replica,):
            monkeypatch.setattr(following, "SILENCE_SECONDS", 0.2)
            monkeypatch.setattr(following, "WAIT_SECONDS", 3.0)
            await until(lambda: replica.following.behind_since is not None)

    run(story)


def test_one_world_that_cannot_be_caught_up_holds_up_no_other(coin, replicas, until, monkeypatch):
    async def story():
        log = SharedLog()
        async with replicas(log, coin, follow=True) as (replica,):
            real = replica.catch_up._step

            async def step(key, head):
                if key[1] == "cursed":
                    raise RuntimeError("out of memory")
                return await real(key, head)

            monkeypatch.setattr(replica.catch_up, "_step", step)
            log.write([observation(1, world="cursed"), observation(1, world="fine")])
            await until(lambda: replica.world(world="fine").revision == 1)
            assert replica.following.behind_since is None

    run(story)


def test_a_store_that_nobody_else_writes_to_is_not_followed(coin, replicas, monkeypatch):
    async def story():
        log = SharedLog()
        log.follow = lambda: None
        async with replicas(log, coin, follow=True) as (replica,):
            assert not replica.following.shared
            assert replica.following.behind_since is None

    run(story)


def test_what_others_report_while_policies_are_loaded_again_is_taken_up(coin, replicas, level, until, tmp_path):
    """The reload has read the log by then, and the worlds that are told of it go with the old policy."""
    file = tmp_path / "policy.yaml"
    file.write_text(COIN)

    async def story():
        log = SharedLog()
        async with replicas(log, follow=True, policies=(file,)) as (replica,):
            await replica.registry.load()
            await replica.report(True)
            old, taken_up = replica.world(), threading.Event()
            file.write_text(COIN.replace("delta: 0.05", "delta: 0.04"))

            def report(method):
                if method == "observations":
                    log.after = lambda method: None
                    log.write([observation(n, world=world) for n, world in enumerate(["w", "w", "new"])])
                    assert taken_up.wait(30)  # by the old policy's world, which was told

            log.after = report
            waiting = asyncio.create_task(until(lambda: old.revision == 3))
            waiting.add_done_callback(lambda _: taken_up.set())
            assert await replica.registry.load() == ["coin"]
            await until(lambda: (replica.world().revision, replica.world(world="new").revision) == (3, 1))
            assert (await replica.check()).guarantee.confidence == pytest.approx(0.96)
            assert await level(replica, log, replica.registry.policy("coin").judge)

    run(story)


def test_a_damaged_world_keeps_no_other_world_from_being_followed(coin, replicas, level, until):
    """It comes first, by name and in what is told; it alone does not answer."""

    async def story():
        log = SharedLog()
        head = log.head

        def damaged(policy, world):
            if world == "a":
                raise StoreCorrupt("the log of world 'a' should hold 2 observations and ends with 1")
            return head(policy, world)

        async with replicas(log, coin, follow=True) as (replica,):
            for world in ("a", "b"):
                await replica.report(True, world=world)
            log.head = damaged
            for world in ("a", "b"):
                log.write([observation(1, True, world=world)])
            await until(lambda: replica.world(world="b").revision == 2)
            for feed in log.feeds:
                feed.changes.put(StoreError("the connection is lost"))  # then it looks at all of them
            log.write([observation(2, True, world="b")], tell=False)
            await until(lambda: replica.world(world="b").revision == 3)
            await until(lambda: replica.following.behind_since is None)
            with pytest.raises(WorldUnavailable):
                await replica.check(world="a")
            log.head = head
            await replica.catch_up.run_all("coin")
            assert await level(replica, log, coin, world="a")

    run(story)
