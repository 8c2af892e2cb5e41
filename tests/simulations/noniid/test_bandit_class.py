import itertools

import jax
import numpy as np
import pytest
from scipy.stats import norm

from simulations.noniid.bandit_class import BanditClass


@pytest.fixture(params=[(3, 3), (4, 2), (1, 5)])
def case(request):
    dim, levels = request.param
    bandits = BanditClass(dim, levels, 0.8, 2.0)
    hypotheses = np.array(list(itertools.product(range(levels), repeat=dim)))
    random = np.random.default_rng(dim)
    features = random.integers(levels, size=(6, dim))
    return bandits, hypotheses, features, features @ hypotheses.T, random


def test_reductions_by_level_are_those_over_all_hypotheses(case):
    bandits, hypotheses, features, levels, random = case
    mass, values = random.dirichlet(np.ones(len(hypotheses))), random.normal(size=len(hypotheses))
    members = random.random(len(hypotheses)) < 0.3
    members[0] = True
    with jax.enable_x64(True):
        halves = bandits.halves(jax.numpy.asarray(features, float))
        sums, largest = bandits.mass_by_level(mass, halves), bandits.largest_by_level(values, halves)
        highest, mean = bandits.largest_level(members, halves), bandits.mean_weights(mass)
        sums, largest, highest, mean = map(np.asarray, (sums, largest, highest, mean))
    assert mean == pytest.approx(mass @ hypotheses)
    for arm, of_arm in enumerate(levels):
        assert highest[arm] == of_arm[members].max()
        for level in range(bandits.level_count):
            chosen = of_arm == level
            assert sums[arm, level] == pytest.approx(mass[chosen].sum(), abs=1e-15)
            assert largest[arm, level] == values[chosen].max(initial=-np.inf)


def test_no_member_has_no_level(case):
    bandits, hypotheses, features, _, _ = case
    with jax.enable_x64(True):
        halves = bandits.halves(jax.numpy.asarray(features, float))
        assert (np.asarray(bandits.largest_level(np.zeros(len(hypotheses), bool), halves)) == -np.inf).all()


def test_harm_of_a_level_is_the_normal_tail_and_never_below_it(case):
    bandits = case[0]
    with jax.enable_x64(True):
        harm = np.asarray(bandits.harm_of_level())
    exact = norm.sf(2.0, loc=np.arange(bandits.level_count), scale=0.8)
    assert harm == pytest.approx(exact, rel=1e-11)
    assert (harm >= exact).all()
