"""Forecasters from outside the class: proper, and sound as alarms, by enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from simulations.validation import forecasters

STEPS, DELTA = 12, 0.05


def sequences():
    return np.array(list(itertools.product((0.0, 1.0), repeat=STEPS)))


def scores(outcomes):
    """float64[4096, 13]: the prequential score of every sequence after each number of outcomes."""
    ones = np.cumsum(outcomes, axis=1) - outcomes
    counts = np.broadcast_to(np.arange(float(STEPS)), outcomes.shape)
    with jax.enable_x64(True):
        terms = np.asarray(forecasters.krichevsky_trofimov(jnp.asarray(counts), jnp.asarray(ones), outcomes))
    return np.concatenate([np.zeros((len(outcomes), 1)), np.cumsum(terms, axis=1)], axis=1)


def test_the_forecasts_of_all_sequences_add_up_to_one():
    assert np.exp(scores(sequences())[:, -1]).sum() == pytest.approx(1, abs=1e-12)


def test_it_is_the_mixture_over_rates_with_a_beta_prior_of_one_half():
    outcomes = np.array([[1.0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1]])
    log_beta = math.lgamma(10.5) + math.lgamma(2.5) - math.lgamma(13)  # 10 ones and 2 zeros
    assert scores(outcomes)[0, -1] == pytest.approx(log_beta - 2 * math.lgamma(0.5))


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_a_member_is_refuted_with_probability_at_most_delta(rate):
    """The truth alone makes up the class, which is the hardest case: max over the class is its own likelihood."""
    outcomes = sequences()
    likelihood = np.cumsum(np.log(np.where(outcomes == 1, rate, 1 - rate)), axis=1)
    refuted = (likelihood < scores(outcomes)[:, 1:] + math.log(DELTA)).any(axis=1)
    assert np.exp(likelihood[refuted, -1]).sum() <= DELTA


def test_another_truth_is_refuted():
    outcomes = sequences()
    likelihood = np.cumsum(np.log(np.where(outcomes == 1, 0.1, 0.9)), axis=1)
    refuted = (likelihood < scores(outcomes)[:, 1:] + math.log(DELTA)).any(axis=1)
    under_the_truth = np.exp(np.log(np.where(outcomes == 1, 0.9, 0.1)).sum(axis=1))
    assert under_the_truth[refuted].sum() > 0.99


def test_the_gaussian_forecaster_is_the_mixture_over_means():
    outcomes, noise_sd = np.array([1.3, -0.4, 2.2]), 0.7
    counts, totals = np.arange(3.0), np.concatenate([[0.0], np.cumsum(outcomes)[:-1]])
    with jax.enable_x64(True):
        terms = forecasters.gaussian(jnp.asarray(counts), jnp.asarray(totals), jnp.asarray(outcomes), noise_sd)
        total = float(terms.sum())
    joint = multivariate_normal(np.zeros(3), noise_sd**2 * np.eye(3) + forecasters.WIDE**2)
    assert total == pytest.approx(joint.logpdf(outcomes))
