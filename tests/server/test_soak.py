"""A service that works does not grow."""

from __future__ import annotations

import statistics

import pytest

from benchmarks import soak

CHECKS, RELOADS = 8_000, 8
MOST_MIB = 4.0
"""What the service may grow by from the second quarter of the work to the last: 4,000 checks, 400 reports, 4 reloads.
Keeping every decision would be five times as much."""


@pytest.mark.slow
def test_memory_stays_where_it_is():
    samples = soak.soaked(soak.Soak(CHECKS, RELOADS))
    quarters = {
        number: statistics.median(size for turn, size in samples if 4 * (turn - 1) // CHECKS == number - 1)
        for number in (2, 4)
    }
    assert (quarters[4] - quarters[2]) / 2**20 < MOST_MIB, [(turn, round(size / 2**20, 1)) for turn, size in samples]


def test_the_slope_is_that_of_a_line_after_the_warm_up():
    assert soak.slope([(1, 9_000_000), (100, 5_000), (200, 10_000), (300, 15_000)]) == pytest.approx(50.0)
