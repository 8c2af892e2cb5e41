"""How often a test that samples may fail by chance, were its seed drawn afresh.

Seeds are fixed, so that a test that passes goes on passing. The budget bounds how much luck may be in it:
with at most a hundred such tests, the whole suite would fail by chance with probability at most 1e-3.
"""

FAILURE_BUDGET = 1e-5
"""Of one test; a test of many numbers divides it by how many they are."""
