"""Groups of commits: what spoils one of them spoils no other."""

import asyncio
import threading

from guardrail.errors import StoreCorrupt
from guardrail.server.metrics import Metrics
from guardrail.server.writer import Writer
from guardrail.store.base import Appended
from guardrail.testing.store_contract import observation


class OneDamagedWorld:
    """A store in which the log of one world has lost records; the first transaction waits until it may go on."""

    def __init__(self):
        self.go_on, self.written = threading.Event(), []

    def head(self, policy, world):
        return None

    def append_observations(self, batch):
        assert self.go_on.wait(30)
        if any(one.world == "damaged" for one in batch):
            raise StoreCorrupt("the log of world 'damaged' should hold 2 observations and ends with 1")
        self.written += batch
        return [Appended(len(self.written), False, False)] * len(batch)


def test_reports_on_a_damaged_world_leave_those_that_share_their_group_alone():
    async def story():
        store = OneDamagedWorld()
        writer = Writer(store, Metrics(), max_waiting_reports=100, max_unwritten_decisions=100)
        try:
            names = ("first", "whole", "damaged", "whole", "damaged", "other")
            commits = [
                writer.append([observation(str(place), "{}", "p", name)], lambda results: None)
                for place, name in enumerate(names)
            ]
            store.go_on.set()
            answers = dict(zip(range(len(names)), await asyncio.gather(*commits, return_exceptions=True), strict=True))
        finally:
            await asyncio.to_thread(writer.close)
        failed = {place for place, answer in answers.items() if isinstance(answer, StoreCorrupt)}
        assert failed == {place for place, name in enumerate(names) if name == "damaged"}
        assert [one.world for one in store.written] == ["first", "whole", "whole", "other"]
        assert writer.waiting_reports == 0

    asyncio.run(asyncio.wait_for(story(), 60))
