"""The sets that promise nothing are what their names say: a fair comparison."""

import jax
import numpy as np

from simulations.validation import unsound


def test_a_point_estimate_is_the_best_hypothesis_and_what_ties_with_it():
    score = np.array([-3.0, -1.0, -1.0 - 1e-12, -2.0])
    with jax.enable_x64(True):
        assert unsound.best(score).tolist() == [False, True, True, False]


def test_a_credible_set_is_the_smallest_of_enough_mass():
    posterior = np.array([0.1, 0.55, 0.05, 0.3])
    with jax.enable_x64(True):
        sets = {delta: unsound.credible(np.log(posterior), delta).tolist() for delta in (0.5, 0.2, 0.12, 0.01)}
    assert sets[0.5] == [False, True, False, False]
    assert sets[0.2] == [False, True, False, True]
    assert sets[0.12] == [True, True, False, True]
    assert sets[0.01] == [True, True, True, True]
