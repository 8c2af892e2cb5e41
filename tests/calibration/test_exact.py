"""Proved by enumeration: how often calm conditions raise an alarm, and how often an interval misses, exactly.

Every one of the 4,096 sequences of 12 outcomes is weighed by its probability, so there is no sampling error.
"""

import functools
import itertools
import math

import numpy as np
import pytest

from guardrail.calibration import evidence, residuals

STEPS = 12
ALPHAS = (0.01, 0.05, 0.2, 0.5)
ROUNDING = 1e-12
SEQUENCES = np.array(list(itertools.product((0, 1), repeat=STEPS)))


# ---------------------------------------------------------------- what is fixed before each outcome


def rarely(past):
    return 0.02


def often(past):
    return 0.5


def falling(past):
    return 0.6 / (1 + len(past))


def laplace(past):
    """Learns: what a posterior of a uniform prior predicts."""
    return (1 + sum(past)) / (2 + len(past))


def after_harm(past):
    return 0.05 if past and past[-1] else 0.4


def careless(past):
    """Shrinks with every outcome that was no harm, and knows no limit."""
    return 0.5 ** (1 + len(past) - sum(past))


def extremes(past):
    return (0.0, 1.0, 0.3)[len(past) % 3]


def chasing(past):
    """Set against the e-value itself: low bounds are risked while it is high."""
    return 0.05 if e_value_of(past) > 1.5 else 0.35


@functools.cache
def e_value_of(past):
    state = evidence.init()
    for place, harm in enumerate(past):
        state, values = evidence.update(state, chasing(past[:place]), harm)
    return math.exp(values[0]) if past else 1.0


SCHEMES = (rarely, often, falling, laplace, after_harm, careless, extremes, chasing)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.__name__)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


@functools.cache
def along(scheme):
    """float64[4096, 12]: what the scheme says before each outcome of each sequence."""
    # Sequences are in the order of binary numbers: those with the same beginning stand together.
    pasts = (itertools.product((0, 1), repeat=t) for t in range(STEPS))
    columns = [np.repeat([scheme(past) for past in level], 2 ** (STEPS - t)) for t, level in enumerate(pasts)]
    return np.stack(columns, axis=1)


def weights(truth):
    """float64[4096]: probability of each sequence; truth[s, t] is that of harm at each outcome, given those before."""
    return np.where(SEQUENCES == 1, truth, 1.0 - truth).prod(axis=1)


@functools.cache
def log_e_values(scheme):
    """float64[4096, 12]."""
    rows = zip(along(scheme), SEQUENCES, strict=True)
    return np.stack([evidence.update(evidence.init(), bounds, harms)[1] for bounds, harms in rows])


@functools.cache
def courses(scheme):
    """Running sums of every sequence, float64[4096, 12] each."""
    rows = zip(along(scheme), SEQUENCES, strict=True)
    found = [residuals.update(residuals.init(), guesses, harms)[1] for guesses, harms in rows]
    return residuals.Residuals(*map(np.stack, zip(*found, strict=True)))


@functools.cache
def radii(scheme, alpha):
    return residuals.radius(courses(scheme), alpha)


def probability_of_alarm(scheme, truth, alpha):
    return weights(truth)[(log_e_values(scheme) >= evidence.threshold(alpha)).any(axis=1)].sum()


def probability_of_miss(scheme, truth, alpha):
    course = courses(scheme)
    found = (course.harms - course.predicted) / course.outcomes
    true = np.cumsum(truth - along(scheme), axis=1) / course.outcomes
    return weights(truth)[(np.abs(found - true) > radii(scheme, alpha)).any(axis=1)].sum()


@each_scheme
def test_the_enumeration_is_complete(scheme):
    assert weights(along(scheme)).sum() == pytest.approx(1, abs=ROUNDING)


@each_scheme
@each_alpha
def test_bounds_that_hold_raise_an_alarm_with_probability_at_most_alpha(scheme, alpha):
    for share in (1.0, 0.8, 0.3):
        assert probability_of_alarm(scheme, share * along(scheme), alpha) <= alpha + ROUNDING
    # As harmful as the bounds allow at some times, harmless at others, by what happened before.
    spared = np.cumsum(SEQUENCES, axis=1) - SEQUENCES
    assert probability_of_alarm(scheme, along(scheme) * (spared % 2 == 0), alpha) <= alpha + ROUNDING


@each_scheme
def test_no_stake_gains_on_average_under_the_bounds(scheme):
    """Stronger than the frequency of alarms: the expected e-value never exceeds 1, at any time."""
    expected = weights(along(scheme)) @ np.exp(log_e_values(scheme))
    assert (expected <= 1.0 + ROUNDING).all()


@each_scheme
@each_alpha
def test_the_interval_misses_with_probability_at_most_alpha(scheme, alpha):
    guesses = along(scheme)
    truths = [guesses, np.minimum(1.0, 2.0 * guesses), 0.5 * guesses, np.full_like(guesses, 0.5), along(laplace)]
    for truth in truths:
        assert probability_of_miss(scheme, truth, alpha) <= alpha + ROUNDING


class TestTheseTestsCanFail:
    @each_alpha
    def test_bounds_that_are_too_low(self, alpha):
        truth = np.full((len(SEQUENCES), STEPS), 0.5)
        assert probability_of_alarm(rarely, truth, alpha) > 0.9

    @pytest.mark.parametrize("alpha", [0.05, 0.2])
    def test_bounds_that_are_fixed_after_the_outcome(self, alpha):
        """Shown for 1 - h in place of the bound of a fair coin: the mean is right, the order is not."""
        late = np.where(SEQUENCES == 1, 0.1, 0.9)
        values = np.stack([evidence.update(evidence.init(), b, h)[1] for b, h in zip(late, SEQUENCES, strict=True)])
        alarms = (values >= evidence.threshold(alpha)).any(axis=1)
        assert weights(np.full_like(late, 0.5))[alarms].sum() > alpha

    def test_alarms_do_happen(self):
        assert max(probability_of_alarm(scheme, along(scheme), 0.2) for scheme in SCHEMES) > 0.2 / 5

    def test_intervals_do_miss(self):
        assert max(probability_of_miss(scheme, np.full_like(along(often), 0.5), 0.5) for scheme in SCHEMES) > 0.0

    @each_scheme
    def test_an_interval_a_quarter_as_wide(self, scheme):
        course, truth = courses(scheme), np.full_like(along(often), 0.5)
        true = np.cumsum(truth - along(scheme), axis=1) / course.outcomes
        off = np.abs((course.harms - course.predicted) / course.outcomes - true) > radii(scheme, 0.2) / 4
        assert weights(truth)[off.any(axis=1)].sum() > 0.2
