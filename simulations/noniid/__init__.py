"""The exploding bandit under guardrails: what a guardrail costs in reward and saves in explosions."""
