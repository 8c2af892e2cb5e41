"""Counts and times what the service does, by the metrics that `metric_definitions` defines.

A service has a registry of its own, so several of them may run in one process. Label values are policy names and
words of the code, never world ids or callers: their number stays small however long the service runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from guardrail.domain import Decision, ReasonCode
from guardrail.server.metric_definitions import DEFINITIONS
from guardrail.server.reasons import REASONS

CANCELLED: Final = "CANCELLED"
DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"
_REASONS: Final = frozenset({*REASONS, CANCELLED, DEADLINE_EXCEEDED})

ReportResult = Literal["taken_up", "duplicate", "conflict", "refused"]
OutcomeEvent = Literal["awaited", "reported", "not_taken", "overdue", "assumed"]
EscalationEvent = Literal["opened", "approved", "denied", "used"]
WORLD_STATES: Final = ("serving", "refuted", "failed", "broken")
COMPARISONS: Final = ("compared", "unnamed", "unusable")
STATISTICS: Final = ("mean", "least")


class Metrics:
    """The metrics of one service. Safe to use from several threads; recording takes about a microsecond."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._metrics: dict[str, Any] = {d.name: d.make(self.registry) for d in DEFINITIONS}
        self._children: dict[tuple[str, ...], Any] = {}
        self._kernel_seconds = self._metrics["guardrail_kernel_seconds"]
        self._check_wait = self._metrics["guardrail_check_wait_seconds"]
        self._kernel_batch = self._metrics["guardrail_kernel_batch_checks"]

    def verdict(self, policy: str, found: Decision, shadow: bool) -> None:
        """Count a verdict by what the policy found; in shadow mode it was let through whatever that is."""
        self._child("guardrail_checks_total", policy, found).inc()
        if shadow:
            self._child("guardrail_shadow_accepts_total", policy, found).inc()

    def budget_refused(self, policy: str, reason: ReasonCode) -> None:
        """Count an accept that became a reject for want of harm budget."""
        self._child("guardrail_budget_refusals_total", policy, reason.value).inc()

    def no_verdict(self, reason: str) -> None:
        """Count a call that asked for verdicts and got none."""
        self._child("guardrail_checks_without_verdict_total", _bounded(reason)).inc()

    def reported(self, policy: str, result: ReportResult, count: int = 1) -> None:
        """Count reports about worlds of a loaded policy."""
        self._child("guardrail_reports_total", policy, result).inc(count)

    def escalation(self, policy: str, event: EscalationEvent, count: int = 1) -> None:
        """Count what happened to escalations of a loaded policy."""
        self._child("guardrail_escalations_total", policy, event).inc(count)

    def outcome(self, policy: str, event: OutcomeEvent, count: int = 1) -> None:
        """Count what happened to awaited outcomes of a loaded policy."""
        self._child("guardrail_outcomes_total", policy, event).inc(count)

    def owed(self, policy: str, awaited: int, overdue: int) -> None:
        """Record how many outcomes accepted actions of a policy owe."""
        self._child("guardrail_awaited_outcomes", policy).set(awaited)
        self._child("guardrail_overdue_outcomes", policy).set(overdue)

    def refused(self, reason: str) -> None:
        """Count a call that ends with a status other than OK."""
        self._child("guardrail_refusals_total", _bounded(reason)).inc()

    def authentication_failed(self, reason: str) -> None:
        """Count a call whose caller did not show who it is."""
        self._child("guardrail_authentication_failures_total", _bounded(reason)).inc()

    def answered(self, method: str, seconds: float) -> None:
        """Record how long the answer of a call took."""
        self._child("guardrail_call_seconds", method).observe(seconds)

    def kernel_call(self, seconds: float, checks: int) -> None:
        """Record a kernel call."""
        self._kernel_seconds.observe(seconds)
        if checks:
            self._kernel_batch.observe(checks)

    def waited(self, seconds: float) -> None:
        """Record how long a check waited for its turn."""
        self._check_wait.observe(seconds)

    def kernel_failed(self) -> None:
        """Count a kernel call that raised."""
        self._metrics["guardrail_kernel_failures_total"].inc()

    def decisions_written(self, count: int) -> None:
        """Count decisions that are durable now."""
        self._metrics["guardrail_decisions_written_total"].inc(count)

    def decision_write_failed(self) -> None:
        """Count an attempt to write decisions that failed."""
        self._metrics["guardrail_decision_writes_failed_total"].inc()

    def decision_log_damaged(self) -> None:
        """Count an attempt to write decisions that met damage, or a chain that does not end where it was left."""
        self._metrics["guardrail_decision_log_damaged_total"].inc()

    def report_commit_failed(self) -> None:
        """Count a commit of reports that failed."""
        self._metrics["guardrail_report_commits_failed_total"].inc()

    def reloaded(self, *, success: bool) -> None:
        """Count a reload of the policies."""
        self._child("guardrail_reloads_total", "success" if success else "failure").inc()

    def event_loop_lag(self, seconds: float) -> None:
        """Record how much too late the event loop ran a timer."""
        self._metrics["guardrail_event_loop_lag_seconds"].set(seconds)

    def health(self, service: str, *, serving: bool) -> None:
        """Record what health answers for a name."""
        self._child("guardrail_health", service).set(float(serving))

    def read(self, name: str, value: Callable[[], float], *labels: str) -> None:
        """Take a gauge's value from a function whenever it is asked for; it is called on another thread."""
        self._child(name, *labels).set_function(value)

    def _child(self, name: str, *labels: str) -> Any:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child


def _bounded(reason: str) -> str:
    return reason if reason in _REASONS else "OTHER"
