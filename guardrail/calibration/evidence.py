"""Is harm more frequent than its bounds allow? An e-process against the promise of harm bounds.

    H0:  P(harm at outcome t | everything before it) <= b_t   for all t,

with b_t fixed before the outcome h_t, however it was chosen. For odds r > 1 the bet
lambda_t = (r - 1) / (1 + (r - 1) b_t), which lies in (0, 1 / b_t), multiplies a stake by

    1 + lambda_t (h_t - b_t)  =  r^h_t / (1 + (r - 1) b_t).

Under H0 no bet gains on average, so each stake is a non-negative supermartingale that starts at 1 (Howard, Ramdas,
McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative supermartingales", Probability Surveys 17, 2020: the
sub-Bernoulli case; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024,
for bets of any such size). So is the mean of several stakes with odds fixed in advance (the method of mixtures,
Robbins 1970; "diversified" betting in section 5 of Waudby-Smith and Ramdas), and by Ville's inequality

    P( the mean of the stakes ever reaches 1 / alpha )  <=  alpha.

Against a truth whose odds of harm are r times the bound's, the stake of r grows at the best rate there is, the
relative entropy of the truth to the bound; the mixture lags behind by at most log(number of stakes).

If a bound itself holds with probability 1 - delta only, an alarm without cause has probability at most
alpha + delta: on the event that it holds, the argument above goes through.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from guardrail.calibration._numbers import EPSILON, Vector, indicators, level, log_mean_exp, probabilities, sums

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
"""By how much each stake supposes the odds of harm to exceed the bound's. Fixed before all data."""

_LOG_ODDS = np.log(ODDS)
_ROUNDING = 4.0 * EPSILON * (1.0 + float(_LOG_ODDS.max()))
"""Most by which rounding moves one term of a stake's logarithm."""


class Evidence(NamedTuple):
    """What outcomes say against their bounds.

    Attributes:
        outcomes: how many were taken up.
        log_stakes: float64[J], log of each stake.
        rounding: nats by which rounding may have moved a log stake.
        peak: the largest log e-value so far; 0 at the start.
    """

    outcomes: int
    log_stakes: npt.NDArray[np.float64]
    rounding: float
    peak: float


def init() -> Evidence:
    """No evidence: every stake is 1."""
    return Evidence(0, np.zeros(len(ODDS)), 0.0, 0.0)


def update(state: Evidence, bounds: ArrayLike, harms: ArrayLike) -> tuple[Evidence, Vector]:
    """Take up N outcomes in the order in which they came.

    Args:
        state: the state before; unchanged.
        bounds: float[N] in [0, 1], each fixed before its outcome. Nothing is bet on a bound of 1: it promises nothing.
        harms: N zeros and ones: whether the outcome was harm.

    Returns:
        The state after, and float64[N]: the log e-value after each outcome, in nats, rounded down.

    :raises ValueError: if a bound is NaN or outside [0, 1], an outcome neither 0 nor 1, or their numbers differ.
    """
    levels = probabilities("bounds", bounds)
    happened = indicators("harms", harms, len(levels))
    if not len(levels):
        return state, np.empty(0)
    terms = happened[:, None] * _LOG_ODDS - np.log1p(np.expm1(_LOG_ODDS) * levels[:, None])
    terms[levels == 1.0] = 0.0
    stakes = sums(state.log_stakes, terms)
    rounding = sums(state.rounding, _ROUNDING + EPSILON * np.abs(stakes).max(axis=1))
    values = log_mean_exp(stakes)
    values -= rounding + 8.0 * EPSILON * (1.0 + np.abs(stakes).max(axis=1))
    after = Evidence(
        state.outcomes + len(levels), stakes[-1], float(rounding[-1]), max(state.peak, float(values.max()))
    )
    return after, values


def threshold(alpha: float) -> float:
    """The log e-value at which there is an alarm: log(1 / alpha), in nats.

    :raises ValueError: if alpha is not in (0, 1).
    """
    return -math.log(level(alpha))


def is_alarm(state: Evidence, alpha: float) -> bool:
    """True if the e-value has ever reached 1 / alpha; under H0 that has probability at most alpha.

    :raises ValueError: if alpha is not in (0, 1).
    """
    return state.peak >= threshold(alpha)
