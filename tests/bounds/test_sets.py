import numpy as np
import pytest

from guardrail import bounds

HARM = np.array([[0.1, 0.9], [0.4, 0.0], [0.8, 0.2]])


def test_it_is_the_largest_harm_of_the_members():
    assert np.asarray(bounds.set_bound([True, True, False], HARM)).tolist() == [0.4, 0.9]


def test_an_empty_set_bounds_every_action_by_1():
    assert np.asarray(bounds.set_bound([False] * 3, HARM)).tolist() == [1.0, 1.0]
    assert np.asarray(bounds.set_bound(np.zeros(0, bool), np.zeros((0, 2)))).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-9, 1 + 1e-9, 2.0, -2.0])
@pytest.mark.parametrize("row", [0, 2], ids=["member", "left out"])
def test_a_column_that_is_no_probability_bounds_its_action_by_1_and_no_other(bad, row):
    log_posterior = log_prior = np.log([0.5, 0.3, 0.2])
    harm = np.column_stack([HARM[:, 0], HARM[:, 0]])
    harm[row, 1] = bad
    for bound in (
        bounds.set_bound([True, True, False], harm),
        bounds.predictive(log_posterior, harm),
        bounds.iid(log_posterior, harm),
        bounds.plausible(log_posterior, harm, 0.35),
        bounds.plausible(log_posterior, harm, 0.35, "ordered"),
        bounds.ratio(log_posterior, log_prior, harm, 1.0),
        bounds.weak(log_posterior, log_prior, harm, 1.0),
    ):
        fine, failed = np.asarray(bound)
        assert failed == 1.0
        assert fine < 1.0


def test_indices_are_not_taken_for_a_mask():
    with pytest.raises(TypeError, match="members must be bool"):
        bounds.set_bound([0, 1, 1], HARM)
