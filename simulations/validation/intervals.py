"""The exact confidence interval of a probability (Clopper and Pearson 1934)."""

from __future__ import annotations

from scipy.stats import beta


def clopper_pearson(failures: int, runs: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval that covers the probability with at least this confidence, whatever it is.

    Args:
        failures: number of failures.
        runs: number of independent runs, at least 1.
        confidence: in (0, 1).

    :raises ValueError: if the numbers are impossible.
    """
    if runs < 1 or not 0 <= failures <= runs:
        raise ValueError(f"needs 0 <= failures <= runs and runs >= 1, got {failures} of {runs}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"the confidence must be in (0, 1), got {confidence}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if failures == 0 else float(beta.ppf(tail, failures, runs - failures + 1))
    high = 1.0 if failures == runs else float(beta.ppf(1.0 - tail, failures + 1, runs - failures))
    return low, high
