"""Policies with harm budgets, whose bounds are known: one hypothesis, so a bound is its rate."""

BUDGETED = """
schema: guardrail/v1
name: {name}
description: Known rates, and a budget.
action: {{kind: string}}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {{name: only, rates: {{low: 0.125, mid: 0.25, high: 0.9}}}}
outcome: {{name: hurt, type: bool}}
harm: outcome.hurt
bound: {{kind: ratio, delta: 0.05}}
decision: {{reject_above: 0.5, {more}budget: {budget}}}
mode: {mode}
"""
SESSION = "{per: session, total: 0.5}"
WINDOW = "{per: window, window: 24h, total: 0.5}"

LOW, MID, HIGH = {"kind": "low"}, {"kind": "mid"}, {"kind": "high"}


def budgeted(name, budget, mode="enforce", more=""):
    """A policy's document."""
    return BUDGETED.format(name=name, budget=budget, mode=mode, more=more)
