"""Is predicted harm what happens? A confidence sequence for the mean of harm minus predicted harm.

With predictions p_t fixed before the outcomes h_t in {0, 1}, and q_t = P(h_t = 1 | everything before outcome t), which
may change with t in any way, the running mean of q_t - p_t lies within

    (1/t) sum (h_s - p_s)  +-  radius_t      for all t at once, with probability at least 1 - alpha.

This is the empirical Bernstein confidence sequence of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49 (2021), Theorem 4. With g_t, a guess of h_t
that is fixed before it (p_t, moved by what the predictions were off so far, and cut to [0, 1]), it says that for every
0 <= l < 1, with psi(l) = -log(1 - l) - l,

    exp( l * sum (h_s - q_s)  -  psi(l) * sum (h_s - g_s)^2 )

is a non-negative supermartingale that starts at 1, and so is the same of -sum (h_s - q_s). The mean over several l
fixed in advance (discrete mixtures, section 3 of the same paper) reaches 2 / alpha with probability at most alpha / 2,
and the radius is where it would. Good guesses make the sum of squares small and the radius with it; bad ones widen it
and cost no validity.

The intervals of different t are about different means, so their intersection is no interval for any of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from guardrail.calibration._numbers import EPSILON, Vector, indicators, level, log_mean_exp, probabilities, sums

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_SLOPES = 0.8 * 0.5 ** np.arange(14)
"""The values of l: fit for sums of squares from about 1 to some 10⁸."""
_PSI = -np.log1p(-_SLOPES) - _SLOPES
_STEPS = 12


class Residuals(NamedTuple):
    """Sums over outcomes; as a state numbers, as the course of an update one for each outcome.

    Attributes:
        outcomes: how many were taken up.
        harms: number of harms.
        predicted: sum of predicted harm.
        squares: sum of (harm - guess)².
    """

    outcomes: npt.NDArray[np.float64] | float
    harms: npt.NDArray[np.float64] | float
    predicted: npt.NDArray[np.float64] | float
    squares: npt.NDArray[np.float64] | float


def init() -> Residuals:
    """Nothing seen."""
    return Residuals(0.0, 0.0, 0.0, 0.0)


def update(state: Residuals, predicted: ArrayLike, harms: ArrayLike) -> tuple[Residuals, Residuals]:
    """Take up N outcomes in the order in which they came.

    Args:
        state: the state before; unchanged.
        predicted: float[N] in [0, 1], each fixed before its outcome.
        harms: N zeros and ones: whether the outcome was harm.

    Returns:
        The state after, and the sums after each outcome, float64[N] each.

    :raises ValueError: if a prediction is NaN or outside [0, 1], an outcome neither 0 nor 1, or their numbers differ.
    """
    predictions = probabilities("predicted", predicted)
    happened = indicators("harms", harms, len(predictions))
    if not len(predictions):
        return state, Residuals(*(np.empty(0) for _ in state))
    ones = np.ones(len(predictions))
    totals = sums(np.array(state[:3]), np.stack([ones, happened, predictions], axis=1))
    count, harm, promised = np.concatenate([np.array([state[:3]]), totals])[:-1].T
    guesses = np.clip(predictions + (harm - promised) / (count + 1.0), 0.0, 1.0)
    squares = sums(np.array([state.squares]), ((happened - guesses) ** 2)[:, None])
    course = np.concatenate([totals, squares], axis=1)
    return Residuals(*map(float, course[-1])), Residuals(*course.T)


def radius(sums_so_far: Residuals, alpha: float) -> Vector:
    """Half the width of the confidence sequence, float64 of the shape of the sums.

    Add it to, and take it from, `(harms - predicted) / outcomes`; around `harms / outcomes` alone it covers the mean of
    the true probabilities of harm. Infinite before the first outcome; cut the interval to what is possible.

    Args:
        sums_so_far: the state, or the course of an update.
        alpha: probability in (0, 1) with which the mean may be left out at some time.

    :raises ValueError: if alpha is not in (0, 1).
    """
    target = math.log(2.0 / level(alpha))
    squares, count = np.asarray(sums_so_far.squares, np.float64), np.asarray(sums_so_far.outcomes, np.float64)
    # What rounding may have moved sums of `count` terms by.
    rounding = 2.0 * EPSILON * count * (1.0 + squares + np.asarray(sums_so_far.predicted, np.float64))
    offsets = _PSI * (squares + rounding)[..., None]
    # One value of l alone reaches the target here, so the mixture has reached it; it is convex and increasing, so
    # Newton's method comes down towards the crossing and never below it, and may stop at any step.
    reach = ((target + math.log(len(_SLOPES)) + offsets) / _SLOPES).min(axis=-1)
    for _ in range(_STEPS):
        exponents = _SLOPES * reach[..., None] - offsets
        weights = np.exp(exponents - exponents.max(axis=-1, keepdims=True))
        slope = (weights * _SLOPES).sum(axis=-1) / weights.sum(axis=-1)
        reach = reach - np.maximum(log_mean_exp(exponents) - target, 0.0) / slope
    reach = reach * (1.0 + 1e-12) + rounding
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(count > 0, reach / count, np.inf))
