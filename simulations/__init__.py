"""Agents in simulated environments, checked by the guardrail."""
