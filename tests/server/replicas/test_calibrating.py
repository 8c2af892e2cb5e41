"""The misspecification watch finds what `guardrail calibration` finds in the same logs, bit for bit."""

from __future__ import annotations

import asyncio
import contextlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from shared_log import SharedLog, observation

from guardrail.calibration_log import Calibration
from guardrail.domain import ReasonCode
from guardrail.errors import LogUnusable, WorldUnavailable
from guardrail.guard import Judge
from guardrail.policy import parse_policy
from guardrail.promises import ALPHA
from guardrail.server import calibrating, outcome_watch
from guardrail.server.looking import Looking
from guardrail.server.reporting import Report

TOOLS = """
schema: guardrail/v1
name: tools
description: For a test.
action: {kind: string}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: low, prior: 0.5, rates: {low: 0.01, high: 0.05}}
    - {name: high, prior: 0.5, rates: {low: 0.03, high: 0.3}}
outcome: {name: harmful, type: bool}
harm: outcome.harmful
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.15}
"""


@pytest.fixture(scope="session")
def tools():
    return Judge(parse_policy(TOOLS))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(calibrating, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(calibrating, "RETRY_SECONDS", 0.01)


def run(story):
    asyncio.run(asyncio.wait_for(story(), 120))


@contextlib.asynccontextmanager
async def watched(replicas, log, *judges, **options):
    """Replicas whose watches run."""
    async with replicas(log, *judges, **options) as made:
        for replica in made:
            replica.service.calibrating.start()
        try:
            yield made
        finally:
            for replica in made:
                await replica.service.calibrating.close()


async def decide(replica, kind="low", policy="tools", world="w"):
    return (await replica.service.check(policy, world, {}, [{"kind": kind}]))[0].decision_id


async def tell(replica, name, outcome, kind="low", policy="tools", world="w"):
    return (await replica.service.report(policy, world, [Report(name, {}, {"kind": kind}, outcome)]))[0]


async def act(replica, outcome, kind="low", **where):
    name = await decide(replica, kind, **where)
    await tell(replica, name, outcome, kind, **where)
    return name


async def level(replica, until, policy="tools", world="w"):
    """Wait until the watch has read the log to its end."""
    await replica.catch_up.run(policy, world)
    watch = replica.service.calibrating

    def read():
        present, found = replica.world(policy, world), watch._watches.get((policy, world))
        if found is None or found.place[1] != present.judge.policy.revision:
            return present.committed == 0
        return found._taken == present.committed and found.place[3] == present.log_generation and not watch._waiting

    await until(read)
    # What was read is published by now: whoever waited for the thread before us has gone on.
    await asyncio.get_running_loop().run_in_executor(watch._thread, lambda: None)


def online(replica, policy="tools", world="w"):
    present = replica.world(policy, world)
    return replica.service.calibrating._standings.get((policy, world)), present.log_generation


def offline(log, standing):
    """The row of the command about the same promises, and its counts."""
    policy, revision, world, generation = standing.place
    found = Calibration(log, policy=policy, world=world)
    with contextlib.suppress(LogUnusable):
        for _ in found.run():
            pass
    return next(r for r in found.rows if (r.policy_revision, r.generation) == (revision, generation))


def same(standing, row):
    one, other = standing.compared, row
    np.testing.assert_array_equal(one.evidence.log_stakes, other.evidence.log_stakes)
    assert one.evidence[:2] + one.evidence[3:] == other.evidence[:2] + other.evidence[3:]
    for name in ("outcomes", "harms", "bounds", "steps", "alarm_at", "residuals"):
        assert getattr(one, name) == getattr(other, name), name


STEPS = st.one_of(
    st.tuples(st.just("act"), st.booleans()),
    st.tuples(st.just("late"), st.booleans()),  # decided by one replica now, reported by another one later
    st.tuples(st.just("other action"), st.booleans()),
    st.tuples(st.just("no decision"), st.booleans()),
    st.tuples(st.just("other world"), st.booleans()),
    st.tuples(st.just("again"), st.booleans()),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("follow"), st.none()),
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(STEPS, st.integers(0, 1)), min_size=4, max_size=24), kinds=st.lists(st.booleans()))
def test_what_replicas_find_is_what_the_command_finds_also_after_a_restart(
    tools, replicas, until, monkeypatch, steps, kinds
):
    monkeypatch.setattr(calibrating, "SECONDS_FOR_DECISIONS", 1.0)
    monkeypatch.setattr(outcome_watch, "CHUNK", 3)
    monkeypatch.setattr(outcome_watch, "PIECE", 2)
    kinds = list(kinds)

    async def story():
        log, late, told = SharedLog(), [], []
        async with watched(replicas, log, tools, count=2) as made:
            for number, ((what, outcome), which) in enumerate(steps):
                replica, other = made[which], made[1 - which]
                kind = "high" if kinds and kinds.pop() else "low"
                if what == "act":
                    told.append((await act(replica, outcome, kind), outcome, kind))
                elif what == "late":
                    late.append((await decide(replica, kind), outcome, kind, other))
                elif what == "other action":
                    await tell(replica, await decide(replica, "low"), outcome, "high")
                elif what == "no decision":
                    await tell(replica, f"n{number}", outcome)
                elif what == "other world":
                    await tell(replica, await decide(replica, world="v"), outcome)
                elif what == "again" and told:
                    await tell(replica, *told[-1])
                elif what == "reset" and log.logs.get(("tools", "w")):
                    log.reset("tools")
                else:
                    await replica.catch_up.run("tools", "w")
            for name, outcome, kind, replica in late:
                await tell(replica, name, outcome, kind)
            await until(lambda: not any(replica.writer.unwritten_decisions for replica in made))
            standings = []
            for replica in made:
                await level(replica, until)
                standings.append(online(replica)[0])
        async with watched(replicas, log, tools) as (fresh,):
            await level(fresh, until)
            standings.append(online(fresh)[0])
        for standing in standings:
            if standing is not None and standing.compared.outcomes:
                same(standing, offline(log, standing))
                assert (standing.place, standing.unnamed, standing.unusable) == (
                    standings[-1].place,
                    standings[-1].unnamed,
                    standings[-1].unusable,
                )

    run(story)


def test_a_class_that_is_wrong_raises_an_alarm_that_changes_no_decision(tools, replicas, until):
    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            before = (await one.service.check("tools", "w", {}, [{"kind": "low"}]))[0]
            for number in range(60):
                await act(one, number % 2 == 0)
                await act(one, number % 50 == 0, world="sound")
            await level(one, until)
            await level(one, until, world="sound")
            standing, _ = online(one)
            assert standing.alarm
            same(standing, offline(log, standing))
            after = (await one.service.check("tools", "w", {}, [{"kind": "low"}]))[0]
            assert [notice.code for notice in after.notices] == [ReasonCode.CALIBRATION_ALARM]
            assert "30 in 60 outcomes" in after.notices[0].message
            assert (after.decision, before.notices) == (before.decision, ())
            assert (await one.service.check("tools", "sound", {}, [{"kind": "low"}]))[0].notices == ()
            watch = one.service.calibrating
            assert (watch.alarms("tools"), watch.reports("tools", "compared")) == (1, 120)
            assert watch.peak("tools") == standing.compared.evidence.peak > calibrating.THRESHOLD
            view = await one.service.world("tools", "w")
            message = calibrating.calibration_message(view.calibration)
            assert (message.alarm, message.outcomes, message.harms) == (True, 60, 30)
            assert message.predicted < message.harm_low < 0.5 < message.harm_high
            # What a reset world promises is another thing, at once.
            log.reset("tools")
            await one.catch_up.run("tools", "w")
            assert (await one.service.check("tools", "w", {}, [{"kind": "low"}]))[0].notices == ()
            await level(one, until)
            assert watch.alarms("tools") == 0
            assert (await one.service.world("tools", "w")).calibration is None

    run(story)


def test_a_new_revision_has_evidence_of_its_own(tools, replicas, until):
    later = Judge(parse_policy(TOOLS.replace("reject_above: 0.15", "reject_above: 0.4")))

    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            for _ in range(10):
                await act(one, True)
            await level(one, until)
            assert online(one)[0].compared.outcomes == 10
            await one.load(later)
            assert one.service.calibrating.notices("tools", "w", later.policy.revision, 1) == ()
            await act(one, False)
            await level(one, until)
            standing, _ = online(one)
            assert (standing.place[1], standing.compared.outcomes) == (later.policy.revision, 1)
            assert (standing.unnamed, standing.unusable) == (0, 0)
            same(standing, offline(log, standing))

    run(story)


def test_a_decision_that_is_not_written_yet_is_waited_for_in_its_place(tools, replicas, until):
    """Another replica decided and cannot write its log; the outcomes behind wait, for order matters."""

    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools, count=2) as (one, other):
            await act(one, True)
            await level(other, until)
            log.failing.add("append_decisions")
            name = await decide(other)
            await until(lambda: other.writer.log_failure is not None)
            await tell(one, name, True)
            await tell(one, await decide(one), False)
            await until(lambda: ("tools", "w") in one.service.calibrating._later)
            assert online(one)[0].compared.outcomes == 1
            await other.catch_up.run("tools", "w")  # it has its own decision at hand, and waits for that of the other
            await until(lambda: online(other)[0].compared.outcomes == 2)
            log.failing.clear()
            await level(one, until)
            await level(other, until)
            for replica in (one, other):
                standing, _ = online(replica)
                assert (standing.compared.outcomes, standing.unnamed) == (3, 0)
                same(standing, offline(log, standing))

    run(story)


def test_a_report_that_names_no_decision_is_waited_with_for_a_time_and_counted(tools, replicas, until, monkeypatch):
    monkeypatch.setattr(calibrating, "SECONDS_FOR_DECISIONS", 0.3)

    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            await act(one, True)
            for number in range(5):
                await tell(one, f"n{number}", True)
            await act(one, False)
            await level(one, until)
            standing, _ = online(one)
            assert (standing.compared.outcomes, standing.unnamed, standing.unusable) == (2, 5, 0)
            assert one.service.calibrating.reports("tools", "unnamed") == 5

    run(story)


def test_decisions_that_are_not_at_hand_are_asked_of_the_store(tools, replicas, until, monkeypatch):
    monkeypatch.setattr(calibrating, "MAX_RECENT", 1)

    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            names = [await decide(one) for _ in range(8)]
            await until(lambda: not one.writer.unwritten_decisions)
            for name in names:
                await tell(one, name, False)
            await level(one, until)
            standing, _ = online(one)
            assert standing.compared.outcomes == 8
            assert set(log.looked_up) >= set(names[:-1])
            same(standing, offline(log, standing))

    run(story)


def test_what_is_kept_at_hand_is_bounded(tools, monkeypatch):
    from guardrail.guard import Guard
    from guardrail.store.decisions import LoggedDecision

    monkeypatch.setattr(calibrating, "MAX_RECENT_BYTES", 100)
    guard, recent = Guard(tools.policy), calibrating.RecentDecisions()
    made = [LoggedDecision(guard.check({}, {"kind": "low"}), {}, {"kind": "low"}, 0.0) for _ in range(5)]
    for one in made:
        recent.keep(one, 40)
    assert [recent.get(one.verdict.decision_id) for one in made] == [None, None, None, *made[3:]]
    recent.keep(made[0], 1000)
    assert recent.get(made[0].verdict.decision_id) is None
    recent.keep(made[1], 40)
    assert recent.get(made[1].verdict.decision_id) is made[1]


def test_a_store_that_cannot_be_read_holds_up_no_report_and_drops_none(tools, replicas, until):
    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            await act(one, True)
            await level(one, until)
            log.failing.add("observations")
            for _ in range(20):
                await act(one, False)
            await until(lambda: one.service.calibrating._failing)
            assert online(one)[0].compared.outcomes == 1
            log.failing.clear()
            await level(one, until)
            standing, _ = online(one)
            assert standing.compared.outcomes == 21
            same(standing, offline(log, standing))

    run(story)


@pytest.mark.parametrize("kept", [0, 3, 7])
def test_a_log_that_went_on_otherwise_is_read_anew(tools, replicas, until, kept):
    """A backup was put back under a running service: what it lost counts no more, and what came instead does."""

    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            for _ in range(8):
                await act(one, True)
            await level(one, until)
            names = [await decide(one) for _ in range(12)]
            await until(lambda: not one.writer.unwritten_decisions)
            log.logs["tools", "w"] = log.logs["tools", "w"][:kept]
            log.write([observation(0, policy="tools", name=name) for name in names], tell=False)
            with contextlib.suppress(WorldUnavailable):  # it is not the log that it was, and is read anew
                await one.catch_up.run("tools", "w")
            await level(one, until)
            standing, _ = online(one)
            if kept == 7:
                assert standing.compared.harms == 7
            same(standing, offline(log, standing))

    run(story)


def test_a_damaged_decision_stops_the_watch_and_nothing_else(tools, replicas, until):
    async def story():
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            name = await decide(one)
            one.service.calibrating._recent = calibrating.RecentDecisions()
            await until(lambda: not one.writer.unwritten_decisions)
            log.failing.add("decision")
            await tell(one, name, True)
            await until(lambda: one.service.calibrating._failing)
            assert await decide(one)
            log.failing.clear()
            await level(one, until)
            assert online(one)[0].compared.outcomes == 1

    run(story)


def test_a_defect_in_one_world_stops_no_other(tools, replicas, until, monkeypatch):
    standing = outcome_watch.OutcomeWatch.standing
    broken = True

    def fail(self):
        if self.place[2] == "w" and broken:
            raise ZeroDivisionError("for a test")
        return standing(self)

    monkeypatch.setattr(outcome_watch.OutcomeWatch, "standing", fail)

    async def story():
        nonlocal broken
        log = SharedLog()
        async with watched(replicas, log, tools) as (one,):
            await act(one, True)
            await until(lambda: one.service.calibrating._failing)
            await act(one, True, world="v")
            await level(one, until, world="v")
            assert online(one, world="v")[0].compared.outcomes == 1
            assert online(one)[0] is None
            broken = False
            await until(lambda: online(one)[0] is not None)
            assert online(one)[0].compared.outcomes == 1

    run(story)


# ---------------------------------------------------------------- looking at posteriors


def test_refutation_is_seen_without_a_check(coin, replicas):
    """A coin that first is mild and then is wild is none of the class."""

    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (one,):
            looking = Looking(one.registry, one.service._metrics)
            for number in range(90):
                await one.report(number >= 60)
            assert one.registry.worlds_in("refuted") == 0
            await looking.look()
            assert one.registry.worlds_in("refuted") == 1
            assert (await one.check()).reasons[0].code is ReasonCode.CLASS_REFUTED
        async with replicas(log, coin) as (fresh,):
            looking = Looking(fresh.registry, fresh.service._metrics)
            looking.advanced(fresh.world())
            await looking.look()
            assert fresh.registry.worlds_in("refuted") == 1

    run(story)


def test_concentration_is_the_entropy_over_that_of_a_uniform_posterior(coin, replicas):
    async def story():
        async with replicas(SharedLog(), coin) as (one,):
            looking = Looking(one.registry, one.service._metrics)
            assert looking.entropy("coin", "mean") == 1.0
            for _ in range(40):
                await one.report(False)
            await one.report(False, world="new")
            await looking.look()
            expected = []
            for world in ("w", "new"):
                summary, _ = await one.world(world=world).summary()
                expected.append(summary.entropy / np.log(3))
            assert expected[0] < 0.6 < expected[1] < 1.0
            registry = one.service._metrics.registry
            for statistic, value in (("least", expected[0]), ("mean", sum(expected) / 2)):
                told = registry.get_sample_value(
                    "guardrail_posterior_entropy_ratio", {"policy": "coin", "statistic": statistic}
                )
                assert told == pytest.approx(value)
            looking._not_before["coin", "w"] = float("inf")  # a look that takes long is seldom taken
            for _ in range(40):
                await one.report(True)
            await looking.look()
            assert looking.entropy("coin", "least") == pytest.approx(expected[0])
            assert ("coin", "w") in looking._moved

    run(story)


def test_a_failed_world_does_not_end_the_looks(coin, replicas):
    async def story():
        log = SharedLog()
        async with replicas(log, coin) as (one,):
            looking = Looking(one.registry, one.service._metrics)
            await one.report(False)
            await one.report(False, world="other")
            one.world().fail("for a test")
            await looking.look()
            looking._forget_gone()
            assert list(looking._ratios) == [("coin", "other")]
            one.registry._policies.clear()
            looking._forget_gone()
            assert not looking._ratios

    run(story)


def test_the_alarm_level_is_the_one_of_the_command():
    assert pytest.approx(np.log(1 / ALPHA)) == calibrating.THRESHOLD
