import numpy as np
import pytest

from guardrail import bounds

PRIOR = np.log([0.7, 0.2, 0.1])
POSTERIOR = np.log([0.05, 0.15, 0.8])


def test_it_is_the_supremum_of_proposition_4_3_and_may_exceed_1():
    # Posterior * harm / (delta * prior): 0.05 * 0.9 / 0.035, 0.15 * 0.2 / 0.01, 0.8 * 0.1 / 0.005.
    np.testing.assert_allclose(bounds.weak(POSTERIOR, PRIOR, [[0.9], [0.2], [0.1]], 0.05), [16.0])


def test_it_falls_below_1_where_only_refuted_hypotheses_are_harmful():
    np.testing.assert_allclose(bounds.weak(np.log([0.999, 0.001]), np.log([0.5, 0.5]), [[0.0], [1.0]], 0.1), [0.02])


def test_no_harm_anywhere_is_0():
    np.testing.assert_allclose(bounds.weak([0.0, -np.inf], np.log([0.5, 0.5]), [[0.0], [0.0]], 0.1), [0.0])


def test_a_hypothesis_of_prior_0_makes_it_infinite_where_harmful():
    assert np.asarray(bounds.weak([0.0, -np.inf], [0.0, -np.inf], [[0.1, 0.1], [0.2, 0.0]], 1.0)).tolist() == [
        np.inf,
        pytest.approx(0.1),
    ]


@pytest.mark.parametrize("log_posterior", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf], [-5.0, -5.0]])
def test_what_is_no_posterior_gives_1(log_posterior):
    assert np.asarray(bounds.weak(log_posterior, np.log([0.5, 0.5]), [[0.0], [0.0]], 0.5)).tolist() == [1.0]
