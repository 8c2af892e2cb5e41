"""Walkers in the grid worlds of Gymnasium, with and without a guardrail."""
