"""Coverage of one class too large to enumerate, by simulation under fixed seeds.

Each test may fail by chance with probability at most 1e-5 were its seed drawn afresh: it rejects only if
an exact binomial test against the promised delta has a p-value below that.
"""

import functools

import jax
import numpy as np
import pytest
from failure_budget import FAILURE_BUDGET
from scipy.stats import binomtest

from guardrail import bounds

H, CATEGORIES, STEPS, EPISODES = 64, 3, 40, 2000
DELTA = 0.1


@functools.cache
def simulate(seed):
    """(log_prior[H], log_posterior[E, T, H], truth[E]); the truth is drawn uniformly, whatever its prior.

    The agent chooses the category by what it saw last, so that the data are not i.i.d.
    """
    random = np.random.default_rng(seed)
    rates = random.beta(0.8, 0.8, (H, CATEGORIES)).clip(0.02, 0.98)
    log_prior = np.log(random.dirichlet(np.full(H, 0.3)) + 1e-6)
    log_prior -= np.logaddexp.reduce(log_prior)
    truth = random.integers(H, size=EPISODES)
    log_joint = np.empty((EPISODES, STEPS + 1, H))
    log_joint[:, 0] = log_prior
    category = np.zeros(EPISODES, int)
    for step in range(STEPS):
        outcome = random.random(EPISODES) < rates[truth, category]
        likelihood = np.where(outcome[:, None], rates[:, category].T, 1 - rates[:, category].T)
        log_joint[:, step + 1] = log_joint[:, step] + np.log(likelihood)
        category = np.where(outcome, (category + 1) % CATEGORIES, category)
    return log_prior, log_joint - np.logaddexp.reduce(log_joint, axis=2, keepdims=True), truth


@functools.cache
def left_out(kind):
    """Number of episodes in which some moment's set leaves the truth out."""
    log_prior, log_posterior, truth = simulate(20250804)

    def ratio(rows, h):
        return jax.vmap(lambda row: bounds.ratio_set(row, log_prior, DELTA)[h])(rows)

    def plausible(ties):
        def members(rows, h):
            alpha = DELTA * jax.numpy.exp(jax.numpy.asarray(log_prior)[h])
            return jax.vmap(lambda row: bounds.plausible_set(row, alpha, ties)[h])(rows)

        return members

    def without_prior(rows, h):
        return jax.vmap(lambda row: bounds.plausible_set(row, DELTA)[h])(rows)

    member = {
        "ratio": ratio,
        "plausible, all ties": plausible("all"),
        "plausible, ordered ties": plausible("ordered"),
        "alpha without the prior mass": without_prior,
    }[kind]
    with jax.enable_x64(True):
        inside = jax.jit(jax.vmap(member))(log_posterior, truth)
    return int((~np.asarray(inside).all(axis=1)).sum())


@pytest.mark.parametrize("kind", ["ratio", "plausible, all ties", "plausible, ordered ties"])
def test_the_truth_is_left_out_in_at_most_delta_of_the_episodes(kind):
    assert left_out(kind) > 0, "the simulation never tests the set"
    assert binomtest(left_out(kind), EPISODES, DELTA, alternative="greater").pvalue > FAILURE_BUDGET


def test_the_same_test_finds_an_unsound_level_out():
    assert binomtest(left_out("alpha without the prior mass"), EPISODES, DELTA, alternative="greater").pvalue < 1e-12
