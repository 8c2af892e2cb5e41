"""The Clopper-Pearson interval."""

import pytest
from scipy.stats import binom, binomtest

from simulations.validation.intervals import clopper_pearson


@pytest.mark.parametrize(("failures", "runs"), [(0, 1), (1, 1), (0, 1000), (1000, 1000), (37, 1000), (3, 7)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_it_is_that_of_scipy(failures, runs, confidence):
    exact = binomtest(failures, runs).proportion_ci(confidence, "exact")
    assert clopper_pearson(failures, runs, confidence) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.5, 0.93])
def test_it_covers_every_probability_as_often_as_it_says(probability):
    runs, confidence = 60, 0.9
    missed = sum(
        binom.pmf(failures, runs, probability)
        for failures in range(runs + 1)
        if not (lambda low, high: low <= probability <= high)(*clopper_pearson(failures, runs, confidence))
    )
    assert missed <= 1 - confidence


@pytest.mark.parametrize(("failures", "runs", "confidence"), [(2, 1, 0.9), (-1, 5, 0.9), (0, 0, 0.9), (1, 2, 1.0)])
def test_impossible_numbers_are_refused(failures, runs, confidence):
    with pytest.raises(ValueError, match=r"needs 0 <= failures <= runs|confidence must be in"):
        clopper_pearson(failures, runs, confidence)
