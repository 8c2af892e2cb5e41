"""Policies with a time for reports, whose bounds are known: one hypothesis, so a bound is its rate."""

TIMED = """
schema: guardrail/v1
name: {name}
description: Known rates, and a time for reports.
context: {{who: {{type: string, optional: true}}}}
action: {{kind: string}}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {{name: only, rates: {{low: 0.125, mid: 0.25, high: 0.9}}}}
outcome: {{name: hurt, type: bool}}
harm: outcome.hurt
bound: {{kind: ratio, delta: 0.05}}
decision: {{reject_above: 0.5{more}}}
mode: {mode}
reporting: {{within: {within}, overdue: {overdue}}}
"""

LOW, MID, HIGH = {"kind": "low"}, {"kind": "mid"}, {"kind": "high"}


def timed(name, overdue="reject", mode="enforce", more="", within="10m"):
    """A policy's document."""
    return TIMED.format(name=name, overdue=overdue, mode=mode, more=more, within=within)
