import asyncio

import pytest

from guardrail.errors import LimitExceeded
from guardrail.server.security.grants import Caller
from guardrail.server.security.quota import WorldQuota
from guardrail.store.base import WorldRecord


class Worlds:
    """As much of a store as a quota asks."""

    def __init__(self):
        self.makers = {}

    def head(self, policy, world):
        return WorldRecord(policy, world, 1) if (policy, world) in self.makers else None

    def worlds_created_by(self, caller):
        return sum(maker == caller for maker in self.makers.values())

    def report(self, caller, world, after=None):
        async def take_up():
            if after is not None:
                await after.wait()
            self.makers.setdefault(("p", world), caller.name)
            return world

        return take_up


@pytest.fixture
def worlds():
    return Worlds()


ANN, BOB = (Caller(name, (), None, 2) for name in ("ann", "bob"))


def test_each_caller_makes_as_many_as_it_may(worlds):
    quota = WorldQuota(worlds)

    async def run():
        for world in ("1", "2", "1", "2"):
            assert await quota.make(ANN, "p", world, worlds.report(ANN, world)) == world
        with pytest.raises(LimitExceeded) as caught:
            await quota.make(ANN, "p", "3", worlds.report(ANN, "3"))
        assert caught.value.reason == "WORLD_QUOTA"
        await quota.make(BOB, "p", "3", worlds.report(BOB, "3"))
        await quota.make(ANN, "p", "3", worlds.report(ANN, "3"))

    asyncio.run(run())
    assert worlds.makers == {("p", "1"): "ann", ("p", "2"): "ann", ("p", "3"): "bob"}


def test_none_slips_by_while_another_is_made(worlds):
    quota = WorldQuota(worlds)

    async def run():
        makes = (quota.make(ANN, "p", str(n), worlds.report(ANN, str(n))) for n in range(10))
        return await asyncio.gather(*makes, return_exceptions=True)

    answers = asyncio.run(run())
    assert sum(isinstance(answer, LimitExceeded) for answer in answers) == 8
    assert len(worlds.makers) == 2


def test_a_report_whose_caller_is_gone_is_made_and_counted(worlds):
    quota = WorldQuota(worlds)

    async def run():
        may_end = asyncio.Event()
        begun = [asyncio.create_task(quota.make(ANN, "p", n, worlds.report(ANN, n, may_end))) for n in ("1", "2")]
        await asyncio.sleep(0)
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        third = asyncio.create_task(quota.make(ANN, "p", "3", worlds.report(ANN, "3")))
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(LimitExceeded):
            await third

    asyncio.run(run())
    assert sorted(worlds.makers) == [("p", "1"), ("p", "2")]


def test_a_failure_frees_the_way(worlds):
    quota = WorldQuota(worlds)

    async def broken():
        raise OSError

    async def run():
        with pytest.raises(OSError):
            await quota.make(ANN, "p", "1", broken)
        await quota.make(ANN, "p", "1", worlds.report(ANN, "1"))

    asyncio.run(run())
    assert not quota._locks
