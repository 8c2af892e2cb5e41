"""Gauges that are read from the service's parts whenever metrics are asked for."""

from __future__ import annotations

import functools
import time

from guardrail.server.admission import Door
from guardrail.server.following import Following
from guardrail.server.metrics import WORLD_STATES, Metrics
from guardrail.server.registry import Registry
from guardrail.server.watchers import Watchers
from guardrail.server.writer import Writer


def read_gauges(
    metrics: Metrics, door: Door, registry: Registry, writer: Writer, watchers: Watchers, following: Following
) -> None:
    """Let metrics read lengths and states. The functions run on another thread and only look."""
    metrics.read("guardrail_checks_in_flight", lambda: door.inside)
    metrics.read("guardrail_waiting_checks", registry.waiting_checks)
    metrics.read("guardrail_waiting_reports", lambda: writer.waiting_reports)
    metrics.read("guardrail_unwritten_decisions", lambda: writer.unwritten_decisions)
    metrics.read("guardrail_decision_log_failing", lambda: float(writer.log_failure is not None))
    metrics.read("guardrail_watchers", lambda: watchers.count)
    metrics.read("guardrail_policies_stale_since_seconds", lambda: registry.notices.stale_since or 0.0)
    metrics.read("guardrail_posterior_behind_since_seconds", lambda: _since_epoch(following.behind_since))
    for state in WORLD_STATES:
        metrics.read("guardrail_worlds", functools.partial(registry.worlds_in, state), state)


def _since_epoch(since: float | None) -> float:
    """A time of the monotonic clock in seconds since the epoch; 0 if there is none."""
    return 0.0 if since is None else time.time() - (time.monotonic() - since)
