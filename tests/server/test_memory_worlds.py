"""Worlds with memory answer at the current revision only, whatever comes in while a bound is computed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import pytest

from guardrail.client.integrations.gymnasium import GuardrailWrapper, ServiceChecker
from guardrail.domain import Decision, ReasonCode
from guardrail.guard import Guard
from guardrail.policy import load_policy
from guardrail.replay import replay
from guardrail.server.service import ATTEMPTS
from guardrail.server.world import World
from guardrail.store import open_store

ROOT = Path(__file__).resolve().parents[2]
POLICY = """
schema: guardrail/v1
name: wear
description: A machine that wears out.
hypotheses:
  family: hidden-markov
  table:
    - {name: slow, initial: [1, 0], transitions: [[0.98, 0.02], [0, 1]], rates: [0.01, 0.5]}
    - {name: fast, initial: [1, 0], transitions: [[0.8, 0.2], [0, 1]], rates: [0.01, 0.5]}
outcome: {name: fault, type: bool}
harm: outcome.fault
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.15}
"""


@pytest.fixture
def policy_folder(policy_folder):
    (policy_folder / "wear").mkdir()
    (policy_folder / "wear" / "policy.yaml").write_text(POLICY)
    return policy_folder


@pytest.fixture
def expected(policy_folder):
    """The bound after so many faults, from the guard in process."""
    guard = Guard(load_policy(policy_folder / "wear" / "policy.yaml"))
    bounds = []
    for _ in range(4):
        bounds.append(guard.check({}, {}).harm_bound)
        guard.observe({}, {}, True)
    assert len(set(bounds)) == 4
    return bounds


class Race:
    """Reports a fault, and waits until the log holds it, while the kernel computes each of the first `times` bounds."""

    def __init__(self, monkeypatch, service, times, policy="wear", action=None, before=0):
        self.calls = 0
        real = World._bound

        def bound(world, posterior, checks):
            if checks and world.judge.policy.name == policy:
                self.calls += 1
                if self.calls <= times:
                    self.report(service, policy, action or {}, before + self.calls)
            return real(world, posterior, checks)

        monkeypatch.setattr(World, "_bound", bound)

    @staticmethod
    def report(service, policy, action, number):
        """On the kernel's thread: the report is committed, but no posterior can take it up."""

        async def committed():
            registry = service.parts["registry"]
            loaded = registry.policy(policy)
            while (registry.find_world(loaded, "w") or loaded.prior).committed < number:  # noqa: ASYNC110
                await asyncio.sleep(0)

        def send():
            with service.client() as client:
                client.report(policy=policy, world="w", context={}, action=action, outcome=True)

        threading.Thread(target=send, daemon=True).start()
        asyncio.run_coroutine_threadsafe(committed(), service.loop).result(30)


@pytest.fixture
def parts(monkeypatch):
    """The registry of the service of this test."""
    from guardrail.server import registry

    made = {}
    real = registry.Registry.__init__

    def init(found, *arguments, **options):
        real(found, *arguments, **options)
        made["registry"] = found

    monkeypatch.setattr(registry.Registry, "__init__", init)
    return made


@pytest.fixture
def service(parts, start_service):
    service = start_service()
    service.parts = parts
    return service


def check(client, policy="wear", action=None):
    return client.check(policy=policy, world="w", context={}, action=action or {})


@pytest.mark.parametrize("before", [0, 1])
def test_an_outcome_that_comes_in_while_the_kernel_runs_counts(service, client, expected, monkeypatch, before):
    """With and without observations before: the first one makes the world."""
    for _ in range(before):
        client.report(policy="wear", world="w", context={}, action={}, outcome=True)
    race = Race(monkeypatch, service, 1, before=before)
    verdict = check(client)
    assert race.calls == 2
    assert verdict.posterior_revision == before + 1
    assert verdict.harm_bound == expected[before + 1]


def test_a_world_without_memory_may_answer_from_the_older_posterior(service, client, monkeypatch):
    race = Race(monkeypatch, service, 1, policy="coin", action={"kind": "low"})
    assert check(client, "coin", {"kind": "low"}).posterior_revision == 0
    assert race.calls == 1


def test_outcomes_that_never_cease_reject(service, client, monkeypatch):
    race = Race(monkeypatch, service, ATTEMPTS)
    verdict = check(client)
    assert race.calls == ATTEMPTS
    assert verdict.decision is Decision.REJECT
    assert verdict.harm_bound == 1.0
    assert [reason.code for reason in verdict.reasons] == [ReasonCode.STALE_POSTERIOR]
    # Every report is taken up in the end, and what was decided replays, the stale rejection included.
    monkeypatch.undo()
    client.report(policy="wear", world="w", context={}, action={}, outcome=False)
    assert check(client).posterior_revision == ATTEMPTS + 1
    service.stop()
    with contextlib.closing(open_store(str(service.settings.store), read_only=True)) as store:
        found = list(replay(store))
    assert len(found) == 2
    assert [one.differences for one in found] == [(), ()]


def test_a_check_that_needs_no_bound_is_never_stale(service, client, monkeypatch):
    monkeypatch.setattr(World, "committed", property(lambda world: -1))
    verdict = client.check(policy="wear", world="w", context={"unknown": 1.0}, action={})
    assert [reason.code for reason in verdict.reasons] == [ReasonCode.UNKNOWN_FIELD]


def test_the_guard_in_process_takes_up_no_outcome_while_it_computes_a_bound(policy_folder, monkeypatch):
    for name, held in (("wear", True), ("coin", False)):
        guard = Guard(load_policy(policy_folder / name / "policy.yaml"))
        seen, real = [], guard._judge.bounds

        def bounds(state, prepared, deadline, guard=guard, seen=seen, real=real):
            seen.append(guard._lock.locked())
            return real(state, prepared, deadline)

        monkeypatch.setattr(guard._judge, "bounds", bounds)
        guard.check({}, {} if name == "wear" else {"kind": "low"})
        assert seen == [held]


def test_many_agents_never_get_a_bound_of_the_past(service, expected):
    """Checks and reports at random: every verdict's bound is that of its own revision."""
    with service.client() as client, ThreadPoolExecutor(6) as pool:
        reports = [
            pool.submit(client.report, policy="wear", world="w", context={}, action={}, outcome=True) for _ in range(3)
        ]
        verdicts = [f.result(60) for f in [pool.submit(check, client) for _ in range(30)]]
        for report in reports:
            report.result(60)
        verdicts.append(check(client))
    assert verdicts[-1].posterior_revision == 3
    for verdict in verdicts:
        assert verdict.reasons[0].code == ReasonCode.STALE_POSTERIOR or (
            verdict.harm_bound == expected[verdict.posterior_revision]
        )


def test_a_gymnasium_environment_is_guarded_through_the_service(policy_folder, start_service):
    shutil.copytree(ROOT / "policies" / "frozen-lake", policy_folder / "frozen-lake")
    service = start_service()
    with service.client() as client:
        checker = ServiceChecker(client, policy="frozen-lake", world="pond")
        env = GuardrailWrapper(gymnasium.make("FrozenLake-v1"), checker)
        env.reset(seed=3)
        steps, alone = 0, Guard.from_file(ROOT / "policies" / "frozen-lake" / "policy.yaml")
        shadow = GuardrailWrapper(gymnasium.make("FrozenLake-v1"), alone)
        shadow.reset(seed=3)
        for move in (1, 2, 1, 1, 2, 2, 1, 2) * 3:
            seen, expected = env.step(move), shadow.step(move)
            assert seen == expected
            steps += not seen[4]["guardrail"]["ended"]
            if seen[2] or seen[3]:
                env.reset()
                shadow.reset()
        assert client.world(policy="frozen-lake", world="pond").posterior.revision == steps == alone.revision
