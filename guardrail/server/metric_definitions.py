"""Every metric of the service, defined in one place; `docs/metrics.md` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


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
