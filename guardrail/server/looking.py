"""Looks at posteriors that have moved on: whether data refute a class, and how far they single out a hypothesis.

Looking takes as long as a summary for a person does, so it is done beside the checks, and a slow look seldom.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from guardrail.errors import GuardrailError
from guardrail.server.metrics import STATISTICS

if TYPE_CHECKING:
    from guardrail.server.metrics import Metrics
    from guardrail.server.registry import Registry
    from guardrail.server.world import World

log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0
"""Between two looks at the worlds that have moved on."""
SHARE: Final = 0.02
"""Of the time, at most, that is spent on looking at one world."""
SHARE_OF_ALL: Final = 0.1
"""Of the time, at most, that is spent on looking at all of them."""

Key = tuple[str, str]
"""Policy name and world id."""


class Looking:
    """Looks again and again. Call it from the event loop only.

    Args:
        registry: holds the worlds, and tells when they take up outcomes.
        metrics: show what is seen.
    """

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._moved: dict[Key, None] = {}
        self._not_before: dict[Key, float] = {}
        self._ratios: dict[Key, float] = {}
        self._shown: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        registry.listeners.append(self.advanced)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def advanced(self, world: World) -> None:
        """A world has taken up outcomes, or is another one now."""
        self._moved[world.judge.policy.name, world.world_id] = None

    def entropy(self, policy: str, statistic: str) -> float:
        """Entropy of a policy's posteriors over that of no knowledge at all. Any thread may ask.

        Args:
            policy: its name.
            statistic: one of `metrics.STATISTICS`, over the worlds that were looked at; 1 if none was.
        """
        found = [ratio for key, ratio in list(self._ratios.items()) if key[0] == policy]
        if not found:
            return 1.0
        return min(found) if statistic == "least" else math.fsum(found) / len(found)

    async def look(self) -> None:
        """Look at the worlds that have moved on since the last time, as far as it is their turn."""
        keys, self._moved = list(self._moved), {}
        for key in keys:
            if time.monotonic() < self._not_before.get(key, 0.0):
                self._moved.setdefault(key)
            else:
                await self._look_at(key)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await self.look()
            self._forget_gone()
            await asyncio.sleep(max(LOOK_SECONDS, (time.monotonic() - began) / SHARE_OF_ALL))

    async def _look_at(self, key: Key) -> None:
        loaded = self._registry.find_policy(key[0])
        world = None if loaded is None else loaded.worlds.get(key[1])
        # A program's summary would take its turn among the checks, and there is no entropy in it, nor a refutation.
        if world is None or world.failed or world.judge.policy.program is not None:
            return
        began = time.monotonic()
        try:
            summary, _ = await world.summary()
        except GuardrailError:
            return  # it says so itself, wherever it is asked
        except Exception:
            log.exception("posterior_not_looked_at", policy=key[0], world=key[1])
            return
        now = time.monotonic()
        self._not_before[key] = now + (now - began) / SHARE
        if summary.entropy is None or summary.class_size is None or summary.class_size < 2:
            self._ratios.pop(key, None)  # a class without an entropy, or impossible as a whole
            return
        self._show(key[0])
        self._ratios[key] = min(1.0, summary.entropy / math.log(summary.class_size))

    def _show(self, policy: str) -> None:
        if policy in self._shown:
            return
        self._shown.add(policy)
        for statistic in STATISTICS:
            value = partial(self.entropy, policy, statistic)
            self._metrics.read("guardrail_posterior_entropy_ratio", value, policy, statistic)

    def _forget_gone(self) -> None:
        for kept in (self._ratios, self._not_before):
            for key in list(kept):
                loaded = self._registry.find_policy(key[0])
                if loaded is None or key[1] not in loaded.worlds:
                    del kept[key]
