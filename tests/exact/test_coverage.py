"""Coverage, proved by enumeration: the probability that some moment leaves the truth out, exactly.

Every one of the 4,096 sequences of 12 outcomes is weighed by its probability under the truth, for
every choice of the truth, so there is no sampling error. The posterior of every prefix is computed
in one batched call.
"""

import functools
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from guardrail import bounds

STEPS = 12
DELTAS = (0.05, 0.2, 0.5)
ROUNDING = 1e-12


@dataclass(frozen=True)
class BernoulliClass:
    """Four hypotheses: rates[h][y] is the probability of a 1 after the outcome y (0 at first)."""

    name: str
    prior: tuple
    rates: tuple

    @functools.cached_property
    def log_prior(self):
        return np.log(self.prior)

    @functools.cached_property
    def log_likelihood(self):
        """float64[2**13 - 1, 4]: of every prefix; the prefixes of t outcomes start at 2**t - 1, in binary order."""
        levels, last = [np.zeros((1, 4))], np.zeros(1, int)
        for _ in range(STEPS):
            ones = np.log(np.array(self.rates))[:, last].T
            zeros = np.log1p(-np.array(self.rates))[:, last].T
            levels.append(np.stack([levels[-1] + zeros, levels[-1] + ones], axis=1).reshape(-1, 4))
            last = np.tile([0, 1], len(last))
        return np.concatenate(levels)

    @functools.cached_property
    def log_posterior(self):
        joint = self.log_prior + self.log_likelihood
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def sequence_probability(self, truth):
        """float64[4096]: probability of every full sequence under the truth."""
        return np.exp(self.log_likelihood[2**STEPS - 1 :, truth])

    def probability_of_any(self, event, truth):
        """Probability under the truth that `event`, bool[2**13 - 1] over the prefixes, ever happens."""
        return self.sequence_probability(truth)[along_sequences(event).any(axis=1)].sum()


def along_sequences(values):
    """[4096, 13, ...]: values[2**13 - 1, ...] over prefixes, looked up along every full sequence."""
    sequences = np.arange(2**STEPS)
    return np.stack([values[2**t - 1 + (sequences >> (STEPS - t))] for t in range(STEPS + 1)], axis=1)


IID = ((0.1, 0.1), (0.3, 0.3), (0.55, 0.55), (0.9, 0.9))
TWINS = ((0.2, 0.2), (0.6, 0.6), (0.6, 0.6), (0.2, 0.2))
MARKOV = ((0.1, 0.7), (0.5, 0.5), (0.8, 0.2), (0.3, 0.9))
UNIFORM = (0.25, 0.25, 0.25, 0.25)
SKEWED = (0.001, 0.9, 0.009, 0.09)
CLASSES = [
    BernoulliClass(f"{rates_name}-{prior_name}", prior, rates)
    for rates_name, rates in (("iid", IID), ("twins", TWINS), ("markov", MARKOV))
    for prior_name, prior in (("uniform", UNIFORM), ("skewed", SKEWED))
]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
each_delta = pytest.mark.parametrize("delta", DELTAS)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, None))
def ratio_sets(log_posterior, log_prior, delta):
    return bounds.ratio_set(log_posterior, log_prior, delta)


@functools.partial(jax.jit, static_argnames="ties")
def plausible_sets(log_posterior, alpha, ties):
    return jax.vmap(lambda row: bounds.plausible_set(row, alpha, ties))(log_posterior)


@jax.jit
@jax.vmap
def running_sets(sets):
    """bool[13, 4]: running intersections along one sequence."""

    def step(so_far, now):
        so_far = bounds.intersect(so_far, now)
        return so_far, so_far

    return jax.lax.scan(step, np.ones(4, bool), sets)[1]


@functools.cache
def ratio_sets_of(cls, delta):
    with jax.enable_x64(True):
        return np.asarray(ratio_sets(cls.log_posterior, cls.log_prior, delta))


def plausible_sets_of(cls, alpha, ties):
    with jax.enable_x64(True):
        return np.asarray(plausible_sets(cls.log_posterior, alpha, ties))


@each_class
def test_the_enumeration_is_complete(cls):
    for truth in range(4):
        assert cls.sequence_probability(truth).sum() == pytest.approx(1, abs=ROUNDING)
    # Under the prior's mixture the expected posterior of a hypothesis stays its prior, at every t.
    for t in range(STEPS + 1):
        prefixes = slice(2**t - 1, 2 ** (t + 1) - 1)
        evidence = np.exp(np.logaddexp.reduce(cls.log_prior + cls.log_likelihood[prefixes], axis=1))
        np.testing.assert_allclose(evidence @ np.exp(cls.log_posterior[prefixes]), cls.prior, atol=ROUNDING)


@each_class
@each_delta
def test_the_ratio_set_leaves_the_truth_out_at_most_delta_of_the_time(cls, delta):
    sets = ratio_sets_of(cls, delta)
    assert sets.any(axis=1).all(), "a ratio set is never empty"
    for truth in range(4):
        assert cls.probability_of_any(~sets[:, truth], truth) <= delta + ROUNDING


@each_class
@each_delta
def test_the_running_intersection_costs_nothing(cls, delta):
    sets = along_sequences(ratio_sets_of(cls, delta))
    running = np.asarray(running_sets(sets))
    np.testing.assert_array_equal(running, np.logical_and.accumulate(sets, axis=1))
    for truth in range(4):
        left_out = cls.sequence_probability(truth)[~running[:, -1, truth]].sum()
        assert left_out <= delta + ROUNDING
        assert left_out == pytest.approx(cls.probability_of_any(~ratio_sets_of(cls, delta)[:, truth], truth))


@each_class
@each_delta
@pytest.mark.parametrize("ties", ["all", "ordered"])
def test_the_plausible_set_leaves_the_truth_out_at_most_delta_of_the_time(cls, delta, ties):
    for truth in range(4):
        members = plausible_sets_of(cls, delta * cls.prior[truth], ties)
        assert cls.probability_of_any(~members[:, truth], truth) <= delta + ROUNDING


@each_class
@each_delta
def test_the_bounds_cover_the_true_harm(cls, delta):
    """The ratio and weak bounds fall below the true harm at some t with probability at most delta."""
    harm = np.array([[0.9, 0.1], [0.5, 0.2], [0.2, 0.3], [0.0, 0.8]])

    def of_one(row):
        return bounds.ratio(row, cls.log_prior, harm, delta), bounds.weak(row, cls.log_prior, harm, delta)

    with jax.enable_x64(True):
        ratio, weak = map(np.asarray, jax.vmap(of_one)(cls.log_posterior))
    for truth in range(4):
        for bound in (ratio, weak):
            assert cls.probability_of_any((bound < harm[truth]).any(axis=1), truth) <= delta + ROUNDING


class TestTheseTestsCanFail:
    """The same enumeration finds every unsound variant out, and the sound ones do leave the truth out at times."""

    def worst(self, event_of):
        """Largest probability over classes and truths that `event_of(cls, truth)` ever happens."""
        return max(cls.probability_of_any(event_of(cls, truth), truth) for cls in CLASSES for truth in range(4))

    @each_delta
    def test_the_posterior_predictive_is_no_bound(self, delta):
        harm = np.eye(4)

        def too_low(cls, truth):
            with jax.enable_x64(True):
                mean = jax.vmap(lambda row: bounds.predictive(row, harm))(cls.log_posterior)
            return np.asarray(mean)[:, truth] < harm[truth, truth] - 1e-9

        assert self.worst(too_low) > 0.99

    @each_delta
    def test_delta_on_the_wrong_side(self, delta):
        def left_out(cls, truth):
            return ~(np.log(delta) + cls.log_posterior[:, truth] >= cls.log_prior[truth])

        assert self.worst(left_out) > 0.99

    @each_delta
    def test_the_posterior_in_place_of_the_ratio(self, delta):
        assert self.worst(lambda cls, truth: cls.log_posterior[:, truth] < np.log(delta)) > delta

    @each_delta
    def test_alpha_without_the_prior_mass_of_the_truth(self, delta):
        assert self.worst(lambda cls, truth: ~plausible_sets_of(cls, delta, "all")[:, truth]) > delta

    @each_delta
    def test_a_ratio_cut_above_delta(self, delta):
        # The cut can be raised only so far before the exact frequency passes delta.
        worst = self.worst(lambda cls, truth: cls.log_posterior[:, truth] < cls.log_prior[truth] + np.log(4 * delta))
        assert worst > delta

    @each_delta
    def test_the_promise_is_used_up_to_a_good_part(self, delta):
        """Proposition 4.2 is tight in general; here too the truth is left out with a probability well above 0."""
        assert self.worst(lambda cls, truth: ~ratio_sets_of(cls, delta)[:, truth]) > delta / 3

    @each_delta
    @pytest.mark.parametrize("ties", ["all", "ordered"])
    def test_the_plausible_set_leaves_the_truth_out_at_times(self, delta, ties):
        assert self.worst(lambda cls, h: ~plausible_sets_of(cls, delta * cls.prior[h], ties)[:, h]) > 0
