"""Is harm more frequent than its bounds allow? An e-process against the promise of harm bounds.

    H0:  P(harm at outcome t | everything before it) <= b_t   for all t,

with b_t fixed before the outcome h_t, however it was chosen. For odds r > 1 the bet
lambda_t = (r - 1) / (1 + (r - 1) b_t), which lies in (0, 1 / b_t), multiplies a stake by

    1 + lambda_t (h_t - b_t)  =  r^h_t / (1 + (r - 1) b_t).

Under H0 no bet gains on average, so each stake is a non-negative supermartingale that starts at 1 (Howard, Ramdas,
McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative supermartingales", Probability Surveys 17, 2020: the
sub-Bernoulli case; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024,
for bets of any such size). So is the mean of several stakes with weights fixed in advance (the method of mixtures,
Robbins 1970; "diversified" betting in section 5 of Waudby-Smith and Ramdas), and by Ville's inequality

    P( the e-value, which is that mean, ever reaches 1 / alpha )  <=  alpha.

The mean is over several odds, and over the outcome with which betting begins: half of all is staked from the first
outcome on, and 1 / (2 t (t - 1)) is first staked on outcome t > 1 (as in the e-detectors of Shin, Ramdas and Rinaldo,
New England Journal of Statistics in Data Science 2, 2024, here with weights that sum to 1). So a long time in which
bounds were far above the truth does not use up what is needed to notice that they have become too low: the e-value
never falls below 1 / (2 t). All beginnings together take one number for each of the odds.

Against a truth whose odds of harm are r times the bound's, the stake of r grows at the best rate there is, the
relative entropy of the truth to the bound; the mean lags behind by log(2 * number of odds), and 2 log t more if
that began at outcome t.

If a bound itself holds with probability 1 - delta only, an alarm without cause has probability at most
alpha + delta: on the event that it holds, the argument above goes through.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from guardrail.calibration._numbers import EPSILON, Vector, indicators, level, log_mean_exp, probabilities

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1e3, 1e6)
"""By how much the stakes suppose the odds of harm to exceed the bound's. Fixed before all data."""

_LOG_ODDS = np.log(ODDS)
_ROUNDING = 6.0 * EPSILON * (1.0 + float(_LOG_ODDS.max()))
"""Most by which rounding moves one gain, in nats, and the beginning that is added."""


class Evidence(NamedTuple):
    """What outcomes say against their bounds.

    Attributes:
        outcomes: how many were taken up.
        bets: how many of them had a bound below 1.
        log_stakes: float64[J], log of what is staked on each of the odds, begun at any outcome so far; -inf at first.
        rounding: nats by which rounding may have moved a log stake.
        log_e_value: the present one, in nats, rounded down; 0 at the start.
        peak: the largest log e-value so far; 0 at the start.
    """

    outcomes: int
    bets: int
    log_stakes: npt.NDArray[np.float64]
    rounding: float
    log_e_value: float
    peak: float


def init() -> Evidence:
    """No evidence."""
    return Evidence(0, 0, np.full(len(ODDS), -np.inf), 0.0, 0.0, 0.0)


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
    gains = happened[:, None] * _LOG_ODDS - np.log1p(np.expm1(_LOG_ODDS) * levels[:, None])
    values = np.empty(len(levels))
    for place, (bound, gain) in enumerate(zip(levels, gains, strict=True)):
        state = _one(state, gain) if bound < 1.0 else state._replace(outcomes=state.outcomes + 1)
        values[place] = state.log_e_value
    return state, values


def _one(state: Evidence, gain: npt.NDArray[np.float64]) -> Evidence:
    bets = state.bets + 1
    begun = 0.5 if bets == 1 else 0.5 / (bets * (bets - 1.0))
    stakes = np.logaddexp(state.log_stakes, math.log(begun)) + gain
    size = float(np.abs(stakes).max())
    rounding = state.rounding + _ROUNDING + 2.0 * EPSILON * size
    # What is staked on later beginnings has neither grown nor shrunk yet.
    whole = np.logaddexp(log_mean_exp(stakes), -math.log(2.0 * bets))
    value = float(whole) - rounding - 8.0 * EPSILON * (1.0 + size)
    return Evidence(state.outcomes + 1, bets, stakes, rounding, value, max(state.peak, value))


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
