import jax
import numpy as np
import pytest

from guardrail import bounds

PRIOR = np.log([0.7, 0.2, 0.1])
POSTERIOR = np.log([0.05, 0.15, 0.8])
HARM = np.array([[0.9, 0.0], [0.2, 0.4], [0.1, 0.1]])


def members(log_posterior, log_prior, delta, **options):
    return np.flatnonzero(np.asarray(bounds.ratio_set(log_posterior, log_prior, delta, **options))).tolist()


def test_it_is_the_set_of_posterior_at_least_delta_times_prior():
    # Ratios 0.0714, 0.75, 8.
    assert members(POSTERIOR, PRIOR, 0.07) == [0, 1, 2]
    assert members(POSTERIOR, PRIOR, 0.08) == [1, 2]
    assert members(POSTERIOR, PRIOR, 1.0) == [2]
    np.testing.assert_allclose(bounds.ratio(POSTERIOR, PRIOR, HARM, 0.08), [0.2, 0.4])


def test_the_prior_itself_leaves_nothing_out():
    assert members(PRIOR, PRIOR, 1.0) == [0, 1, 2]


def test_slack_takes_in_what_is_within_it():
    assert members(POSTERIOR, PRIOR, 0.072) == [1, 2]
    assert members(POSTERIOR, PRIOR, 0.072, slack=0.01) == [0, 1, 2]
    assert members(POSTERIOR, PRIOR, 0.05 / 0.7) == [0, 1, 2]


def test_a_refuted_hypothesis_is_out_whatever_the_slack():
    assert members([0.0, -np.inf], np.log([0.5, 0.5]), 1e-300, slack=1.0) == [0]


def test_a_hypothesis_of_prior_0_is_never_left_out():
    assert members([0.0, -np.inf], [0.0, -np.inf], 0.5) == [0, 1]
    assert members(np.log([0.5, 0.5]), [0.0, -np.inf], 0.5) == [0, 1]


@pytest.mark.parametrize(
    ("log_posterior", "log_prior"),
    [
        ([np.nan, 0.0], np.log([0.5, 0.5])),
        ([np.inf, 0.0], np.log([0.5, 0.5])),
        ([-np.inf, -np.inf], np.log([0.5, 0.5])),
        ([-0.01, -9.0], [np.nan, -0.1]),
        ([-0.01, -9.0], [np.inf, -0.1]),
        ([-1.0, -9.0], np.log([0.5, 0.5])),
        ([0.0, -9.0], [0.0, 0.0]),
    ],
    ids=["nan", "inf", "refuted", "nan prior", "inf prior", "posterior short of mass", "prior of mass 2"],
)
def test_what_is_no_posterior_or_prior_leaves_nothing_out_and_bounds_by_1(log_posterior, log_prior):
    assert members(log_posterior, log_prior, 0.5) == [0, 1]
    assert np.asarray(bounds.ratio(log_posterior, log_prior, [[0.1], [0.2]], 0.5)).tolist() == [1.0]


def test_a_mass_within_tolerance_is_made_up_for():
    """A posterior whose mass is a little short must not leave out what the exact one keeps."""
    uniform = np.log([0.5, 0.5])
    exact = np.log([1 - 0.05, 0.05])
    assert members(exact - 9e-7, uniform, 0.1) == [0, 1]
    assert members(exact, uniform + 9e-7, 0.1) == [0, 1]


@pytest.mark.parametrize("delta", [0.0, -0.1, 1.1, np.nan, np.inf])
def test_a_delta_out_of_range_is_refused_or_if_traced_leaves_nothing_out(delta):
    with pytest.raises(ValueError, match=r"delta must be in \(0, 1\]"):
        bounds.ratio_set(POSTERIOR, PRIOR, delta)
    with pytest.raises(ValueError, match=r"delta must be in \(0, 1\]"):
        bounds.ratio(POSTERIOR, PRIOR, HARM, delta)
    with jax.enable_x64(True):
        assert jax.jit(bounds.ratio_set)(POSTERIOR, PRIOR, delta).all()
        assert jax.jit(bounds.ratio)(POSTERIOR, PRIOR, HARM, delta).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("slack", [-1e-9, np.nan, np.inf])
def test_a_slack_out_of_range_is_refused_or_if_traced_leaves_nothing_out(slack):
    with pytest.raises(ValueError, match="slack must be in"):
        bounds.ratio_set(POSTERIOR, PRIOR, 0.5, slack=slack)
    with pytest.raises(ValueError, match="slack must be in"):
        bounds.plausible_set(POSTERIOR, 0.5, slack=slack)
    with jax.enable_x64(True):
        assert jax.jit(bounds.ratio_set)(POSTERIOR, PRIOR, 0.5, slack).all()
        assert jax.jit(lambda s: bounds.plausible_set(POSTERIOR, 0.5, slack=s))(slack).all()
