"""Replicas of one process over one log in memory: no gRPC, so that a test decides what comes first."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest
from replica_policies import COIN, WEAR

from guardrail.guard import Judge
from guardrail.policy import parse_policy
from guardrail.rebuild import restore
from guardrail.server.awaiting import Awaiting
from guardrail.server.following import Following
from guardrail.server.kernel import KernelThread
from guardrail.server.metrics import Metrics
from guardrail.server.registry import Registry
from guardrail.server.reporting import Report
from guardrail.server.service import Service
from guardrail.server.settings import ServerSettings
from guardrail.server.watchers import Watchers
from guardrail.server.writer import Writer


@pytest.fixture(scope="session")
def coin():
    return Judge(parse_policy(COIN))


@pytest.fixture(scope="session")
def wear():
    return Judge(parse_policy(WEAR))


class Replica:
    """A service's inside over a shared log."""

    def __init__(self, store, settings, judges):
        self.store, self.judges = store, judges
        metrics = Metrics()
        self.writer = Writer(
            store,
            metrics,
            max_waiting_reports=settings.max_waiting_reports,
            max_unwritten_decisions=settings.max_unwritten_decisions,
        )
        self.kernel = KernelThread(settings.max_check_wait_seconds)
        self.registry = Registry(settings, store, self.writer, self.kernel, metrics)
        self.catch_up = self.registry.catch_up
        self.following = Following(self.registry, store.follow())
        self.awaiting = Awaiting(self.registry, self.writer, store, metrics)
        self.service = Service(self.registry, self.writer, store, Watchers(4), self.following, metrics, self.awaiting)
        self.reported = 0

    async def load(self, *judges):
        """As `Registry.load`, with judges that are compiled already."""
        for judge in judges:
            self.registry._policies[judge.policy.name] = await self.registry._prepare(judge)
        self.registry._loaded = True

    async def report(self, outcome, policy="coin", world="w", name=None):
        self.reported += 1
        action = {"kind": "low"} if policy == "coin" else {}
        one = Report(name or f"{id(self)}-{self.reported}", {}, action, outcome)
        return (await self.service.report(policy, world, [one]))[0]

    async def check(self, policy="coin", world="w", **options):
        action = {"kind": "low"} if policy == "coin" else {}
        return (await self.service.check(policy, world, {}, [action], **options))[0]

    def world(self, policy="coin", world="w"):
        return self.registry.world(self.registry.policy(policy), world)

    async def close(self):
        await self.awaiting.close()
        await self.following.close()
        await self.registry.close()
        await asyncio.to_thread(self.kernel.close)
        await asyncio.to_thread(self.writer.close)


@contextlib.asynccontextmanager
async def replicas_of(store, *judges, count=1, follow=False, **options):
    """Replicas that have loaded the judges' policies."""
    settings = ServerSettings(**{"policies": (), "store": "unused.db", **options})
    made = [Replica(store, settings, judges) for _ in range(count)]
    try:
        for replica in made:
            await replica.load(*judges)
            if follow:
                await replica.following.start()
        yield made
    finally:
        for replica in made:
            await replica.close()


@pytest.fixture
def replicas():
    return replicas_of


async def same_as_the_log(replica, store, judge, world="w"):
    """True if a replica's posterior is, bit for bit, the fold of the present log."""
    state, revision = await asyncio.to_thread(restore, judge, store, world)
    present = replica.world(judge.policy.name, world)
    await present.settled()
    found, _, arrays = await present.dump()
    expected = judge.oracle.dump(state)
    return found == revision and all(np.array_equal(arrays[n], expected[n], equal_nan=True) for n in expected)


@pytest.fixture
def level():
    return same_as_the_log


@pytest.fixture
def until():
    """Wait for a condition, at most half a minute."""

    async def wait(condition, seconds=30.0):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the loop's own turns are what is waited for
                await asyncio.sleep(0)

    return wait
