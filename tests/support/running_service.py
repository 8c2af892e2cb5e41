"""A real service on a loopback port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading

import guardrail
from guardrail.server import app

POLICY = """
schema: guardrail/v1
name: coin
description: Three coins; an action picks how it is thrown.
action:
  kind: string
  size: {type: number, optional: true}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: fair, prior: 0.5, rates: {low: 0.05, high: 0.5}}
    - {name: mild, prior: 0.3, rates: {low: 0.01, high: 0.1}}
    - {name: wild, prior: 0.2, rates: {low: 0.3, high: 0.9}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.2, escalate_above: 0.06}
rules:
  - when: has(action.size) && action.size > 10.0
    decide: reject
    reason: too large
"""


_metrics = []


class KeptMetrics(app.Metrics):
    """Metrics that tests can reach."""

    def __init__(self):
        super().__init__()
        _metrics.append(self)


class Service:
    """A running service with what a test may want to reach inside."""

    def __init__(self, settings):
        self.settings = settings
        self.port = None
        self.metrics = None
        self.loop = None
        self._stop = None
        self._error = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def metric(self, name, **labels):
        """The present value of a metric; 0 for one that was never touched."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def _run(self):
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with app.running(self.settings) as port:
                self.port, self.metrics = port, _metrics[-1] if _metrics else None
                self._ready.set()
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001  (raised again by `start`)
            self._error = error
            self._ready.set()

    def start(self):
        self._thread.start()
        assert self._ready.wait(120), "the service did not start"
        if self._error is not None:
            raise self._error
        return self

    def stop(self):
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(60)
            assert not self._thread.is_alive()

    def client(self, **options):
        return guardrail.Client(f"127.0.0.1:{self.port}", **{"timeout": 20.0, **options})
