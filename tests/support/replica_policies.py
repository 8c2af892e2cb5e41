"""A policy without memory and one with, small enough to be compiled at once."""

COIN = """
schema: guardrail/v1
name: coin
description: Three coins; an action picks how it is thrown.
action: {kind: string}
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
decision: {reject_above: 0.4}
"""
WEAR = """
schema: guardrail/v1
name: wear
description: A machine that wears out.
hypotheses:
  family: hidden-markov
  table:
    - {name: slow, initial: [1, 0], transitions: [[0.98, 0.02], [0, 1]], rates: [0.01, 0.5]}
    - {name: fast, initial: [1, 0], transitions: [[0.8, 0.2], [0, 1]], rates: [0.01, 0.5]}
outcome: {name: fault, type: bool}
harm: outcome.fault
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.15}
"""
