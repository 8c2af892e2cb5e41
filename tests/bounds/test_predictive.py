import numpy as np
import pytest

from guardrail import bounds


def test_it_is_the_mean_of_harm_under_the_posterior():
    mean = bounds.predictive(np.log([0.5, 0.3, 0.2]), [[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(mean, [0.35, 1.0])


def test_a_refuted_hypothesis_does_not_count():
    np.testing.assert_allclose(bounds.predictive([0.0, -np.inf], [[0.25], [1.0]]), [0.25])


@pytest.mark.parametrize(
    "log_posterior",
    [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf], np.log([0.5, 0.4]), [-1000.0, -1000.0]],
    ids=["nan", "inf", "all refuted", "mass 0.9", "no mass"],
)
def test_what_is_no_posterior_gives_1(log_posterior):
    assert np.asarray(bounds.predictive(log_posterior, [[0.1, 0.0], [0.2, 0.0]])).tolist() == [1.0, 1.0]


def test_too_much_mass_never_gives_more_than_1():
    assert np.asarray(bounds.predictive([0.0, 0.0], [[0.9], [0.9]])).tolist() == [1.0]
