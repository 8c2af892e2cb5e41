"""Every metric of the service, defined in one place; `docs/metrics.md` lists them.

A service has a registry of its own, so several of them may run in one process. Label values are policy names and
words of the code, never world ids or callers: their number stays small however long the service runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from guardrail.domain import Decision, ReasonCode
from guardrail.server.reasons import REASONS

_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

CANCELLED: Final = "CANCELLED"
DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"
_REASONS: Final = frozenset({*REASONS, CANCELLED, DEADLINE_EXCEEDED})

ReportResult = Literal["taken_up", "duplicate", "conflict", "refused"]
OutcomeEvent = Literal["awaited", "reported", "not_taken", "overdue", "assumed"]
EscalationEvent = Literal["opened", "approved", "denied", "used"]
WORLD_STATES: Final = ("serving", "refuted", "failed", "broken")
COMPARISONS: Final = ("compared", "unnamed", "unusable")
STATISTICS: Final = ("mean", "least")


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: as it is exposed; histograms are exposed with `_bucket`, `_sum` and `_count`.
        kind: counter, gauge or histogram.
        unit: of its value.
        labels: what it is told apart by.
        about: one sentence.
        buckets: upper ends, for a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()

    def make(self, registry: CollectorRegistry) -> Any:
        """The metric, in a registry."""
        if self.kind == "histogram":
            return Histogram(self.name, self.about, self.labels, registry=registry, buckets=self.buckets)
        kind = Counter if self.kind == "counter" else Gauge
        return kind(self.name, self.about, self.labels, registry=registry)


DEFINITIONS: Final = (
    Definition(
        "guardrail_checks_total",
        "counter",
        "verdicts",
        ("policy", "decision"),
        "Verdicts given, by what the policy found.",
    ),
    Definition(
        "guardrail_shadow_accepts_total",
        "counter",
        "verdicts",
        ("policy", "decision"),
        "Verdicts of policies in shadow mode: let through whatever was found.",
    ),
    Definition(
        "guardrail_budget_refusals_total",
        "counter",
        "verdicts",
        ("policy", "reason"),
        "Accepts that became rejects for want of harm budget: BUDGET_EXHAUSTED, BUDGET_CHANGED, SESSION_MISSING.",
    ),
    Definition(
        "guardrail_checks_without_verdict_total",
        "counter",
        "calls",
        ("reason",),
        "Calls of CheckAction and CheckActions that ended without a verdict; CANCELLED and DEADLINE_EXCEEDED: "
        "the caller was gone.",
    ),
    Definition(
        "guardrail_reports_total",
        "counter",
        "reports",
        ("policy", "result"),
        "Outcomes reported: taken_up, duplicate (counted before), conflict (id used with other content), or refused.",
    ),
    Definition(
        "guardrail_escalations_total",
        "counter",
        "escalations",
        ("policy", "event"),
        "Escalations that were opened here, approved, denied, or used by a check.",
    ),
    Definition(
        "guardrail_outcomes_total",
        "counter",
        "outcomes",
        ("policy", "event"),
        "Outcomes of accepted actions, where a policy sets a time for reports: awaited, reported, not_taken, overdue "
        "(as each replica sees it) or assumed (taken for harm).",
    ),
    Definition(
        "guardrail_awaited_outcomes",
        "gauge",
        "outcomes",
        ("policy",),
        "Outcomes of accepted actions that are not reported and not overdue, of all replicas.",
    ),
    Definition(
        "guardrail_overdue_outcomes",
        "gauge",
        "outcomes",
        ("policy",),
        "Outcomes of accepted actions that are overdue, of all replicas: their worlds reject or escalate.",
    ),
    Definition(
        "guardrail_refusals_total", "counter", "calls", ("reason",), "Calls that ended with a status other than OK."
    ),
    Definition(
        "guardrail_authentication_failures_total",
        "counter",
        "calls",
        ("reason",),
        "Calls whose caller did not show who it is.",
    ),
    Definition(
        "guardrail_call_seconds",
        "histogram",
        "seconds",
        ("method",),
        "Time from a request to its reply, of calls that were answered with OK.",
        _SECONDS,
    ),
    Definition(
        "guardrail_kernel_seconds",
        "histogram",
        "seconds",
        (),
        "Time of one kernel call: the observations of a world that waited, then its checks that waited.",
        _SECONDS,
    ),
    Definition(
        "guardrail_kernel_batch_checks", "histogram", "calls", (), "Checks that shared one kernel call.", _SIZES
    ),
    Definition("guardrail_kernel_failures_total", "counter", "kernel calls", (), "Kernel calls that raised."),
    Definition(
        "guardrail_check_wait_seconds",
        "histogram",
        "seconds",
        (),
        "How long a check that was taken on waited for its turn at the kernel.",
        _SECONDS,
    ),
    Definition(
        "guardrail_checks_in_flight", "gauge", "calls", (), "Checks under way, from their arrival to their answer."
    ),
    Definition("guardrail_waiting_checks", "gauge", "calls", (), "Checks that wait for a kernel call."),
    Definition("guardrail_waiting_reports", "gauge", "reports", (), "Reports that wait for their commit."),
    Definition("guardrail_unwritten_decisions", "gauge", "decisions", (), "Decisions that wait for the decision log."),
    Definition("guardrail_watchers", "gauge", "calls", (), "Callers that watch decisions."),
    Definition(
        "guardrail_worlds",
        "gauge",
        "worlds",
        ("state",),
        "Worlds that hold observations: serving; refuted (everything is rejected); failed "
        "(posterior lost, being rebuilt when reported to); broken (its log does not fit the policy).",
    ),
    Definition(
        "guardrail_calibration_alarms",
        "gauge",
        "worlds",
        ("policy",),
        "Worlds in which harm is more frequent than bounds allow, by the outcomes reported in the present log.",
    ),
    Definition(
        "guardrail_calibration_log_e_peak",
        "gauge",
        "nats",
        ("policy",),
        "The largest evidence against its bounds that one of the worlds ever gave: alarm at 4.6.",
    ),
    Definition(
        "guardrail_calibration_reports",
        "gauge",
        "reports",
        ("policy", "result"),
        "Reports in present logs: compared with what their decision promised; unnamed (their id is no decision's); "
        "unusable (they say nothing about their decision).",
    ),
    Definition(
        "guardrail_calibration_waiting_worlds",
        "gauge",
        "worlds",
        (),
        "Worlds with outcomes that are yet to be compared.",
    ),
    Definition(
        "guardrail_posterior_entropy_ratio",
        "gauge",
        "0 to 1",
        ("policy", "statistic"),
        "Entropy of posteriors over that of a uniform one: 0 if one hypothesis is left, 1 if all are equal; mean and "
        "least of the worlds of classes that can be enumerated.",
    ),
    Definition(
        "guardrail_escalations_pending",
        "gauge",
        "escalations",
        ("policy",),
        "Escalations that wait for a person, counted every 15 seconds, of all replicas; at most 1,000.",
    ),
    Definition(
        "guardrail_oldest_pending_escalation_seconds",
        "gauge",
        "seconds since the epoch",
        ("policy",),
        "When the oldest escalation that still waits was opened; 0 if none waits.",
    ),
    Definition(
        "guardrail_decision_log_failing", "gauge", "0 or 1", (), "1 while decisions cannot be written: no verdicts."
    ),
    Definition("guardrail_decisions_written_total", "counter", "decisions", (), "Decisions written to the log."),
    Definition(
        "guardrail_decision_writes_failed_total",
        "counter",
        "transactions",
        (),
        "Attempts to write decisions that failed.",
    ),
    Definition(
        "guardrail_decision_log_damaged_total",
        "counter",
        "transactions",
        (),
        "Attempts to write decisions that met a damaged database, or a chain of receipts that somebody else changed.",
    ),
    Definition(
        "guardrail_report_commits_failed_total",
        "counter",
        "transactions",
        (),
        "Commits of reports that failed; none of their reports was acknowledged.",
    ),
    Definition(
        "guardrail_reloads_total", "counter", "reloads", ("result",), "Reloads of the policies: success, failure."
    ),
    Definition(
        "guardrail_policies_stale_since_seconds",
        "gauge",
        "seconds since the epoch",
        (),
        "When a reload first failed since the last that succeeded; 0 if none has.",
    ),
    Definition(
        "guardrail_posterior_behind_since_seconds",
        "gauge",
        "seconds since the epoch",
        (),
        "Since when the log may hold outcomes that this replica does not know; 0 if it knows all.",
    ),
    Definition(
        "guardrail_event_loop_lag_seconds",
        "gauge",
        "seconds",
        (),
        "How much too late the event loop ran a timer, the last time it was tried.",
    ),
    Definition("guardrail_health", "gauge", "0 or 1", ("service",), "1 if health answers SERVING for that name."),
)


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
