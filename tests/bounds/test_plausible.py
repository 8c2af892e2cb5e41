import jax
import numpy as np
import pytest

from guardrail import bounds
from guardrail.testing import reference

ALPHAS = [0.0, 1e-4, 0.1, 0.3, 0.5, 0.9, 1.0]


def members(log_posterior, alpha, ties="all", **options):
    return np.flatnonzero(np.asarray(bounds.plausible_set(log_posterior, alpha, ties, **options))).tolist()


def test_it_is_the_longest_prefix_of_the_definition():
    log_posterior = np.log([0.1, 0.5, 0.15, 0.25])
    # In order 0.5, 0.25, 0.15, 0.1 the masses over their cumulated sums are 1, 1/3, 1/6, 1/10.
    assert members(log_posterior, 0.34) == [1]
    assert members(log_posterior, 0.33) == [1, 3]
    assert members(log_posterior, 0.16) == [1, 2, 3]
    assert members(log_posterior, 0.09) == [0, 1, 2, 3]


def test_a_mass_exactly_at_the_cut_is_in():
    assert members(np.log([0.5, 0.25, 0.15, 0.1]), 0.1) == [0, 1, 2, 3]


@pytest.mark.parametrize("alpha", [0.3, 1e-2, 1e-9, 1e-250])
def test_the_cut_under_one_dominant_hypothesis_is_alpha_over_1_minus_alpha(alpha):
    cut = np.log(alpha / (1 - alpha))
    assert members([0.0, cut + 1e-8], alpha) == [0, 1]
    assert members([0.0, cut - 1e-8], alpha) == [0]


def test_alpha_0_means_every_hypothesis_even_a_refuted_one():
    assert members([0.0, -np.inf, -2000.0], 0.0) == [0, 1, 2]
    assert members([0.0, -np.inf, -2000.0], 1e-301) == [0, 1, 2]


def test_a_refuted_hypothesis_is_in_for_no_other_alpha():
    assert members([0.0, -np.inf], 1e-299) == [0]


def test_alpha_1_means_the_hypotheses_tied_at_the_top():
    assert members([-1.0, -2.0, -1.0], 1.0) == [0, 2]
    assert members([-1.0, -2.0, -1.0], 1.0, "ordered") == [0]


def test_ties_are_cut_by_index_only_when_ordered():
    uniform = np.zeros(10)
    assert members(uniform, 0.3) == list(range(10))
    # The n-th of a tie needs 1 >= 0.3 n.
    assert members(uniform, 0.3, "ordered") == [0, 1, 2]
    assert members(uniform, 0.1, "ordered") == list(range(10))


def test_ties_up_to_rounding_are_ties():
    assert members([-1.0, -1.0 - 1e-14, -1.0 + 1e-14], 1.0) == [0, 1, 2]
    assert members([-1.0, -1.0 - 1e-9, -1.0], 1.0) == [0, 2]


def test_slack_takes_in_what_is_within_it():
    log_posterior = np.log([0.6, 0.4])
    assert members(log_posterior, 0.401) == [0]
    assert members(log_posterior, 0.401, slack=0.01) == [0, 1]
    assert members(log_posterior, 0.4, slack=0.0) == [0, 1]


@pytest.mark.parametrize("ties", ["all", "ordered"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_many_hypotheses_agree_with_the_sort(alpha, ties):
    random = np.random.default_rng(20250801)
    log_posterior = random.normal(scale=4.0, size=4096)
    log_posterior[1024:2048] = np.round(log_posterior[1024:2048], 1)  # many exact ties
    actual = np.asarray(bounds.plausible_set(log_posterior, alpha, ties))
    np.testing.assert_array_equal(actual, reference.plausible_set(log_posterior, alpha, ties))


def test_the_search_for_the_cut_ends_between_neighbouring_floats():
    """Masses one unit in the last place apart, at both ends of the range."""
    one_down = np.nextafter(0.5, 0)
    with jax.enable_x64(True):
        for alpha in ALPHAS[1:]:
            for log_posterior in ([np.log(one_down), np.log(0.5)], [0.0, -690.0, np.nextafter(-690.0, -np.inf)]):
                expected = reference.plausible_set(log_posterior, alpha)
                assert members(log_posterior, alpha) == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize("log_posterior", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("ties", ["all", "ordered"])
def test_what_is_no_posterior_leaves_nothing_out_and_bounds_by_1(log_posterior, ties):
    assert members(log_posterior, 0.5, ties) == [0, 1]
    assert np.asarray(bounds.plausible(log_posterior, [[0.1], [0.2]], 0.5, ties)).tolist() == [1.0]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan, np.inf])
def test_an_alpha_out_of_range_is_refused_or_if_traced_leaves_nothing_out(alpha):
    log_posterior, harm = np.log([0.9, 0.1]), np.array([[0.1], [0.2]])
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        bounds.plausible_set(log_posterior, alpha)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        bounds.plausible(log_posterior, harm, alpha)
    with jax.enable_x64(True):
        assert jax.jit(bounds.plausible_set)(log_posterior, alpha).all()
        assert jax.jit(bounds.plausible)(log_posterior, harm, alpha).tolist() == [1.0]


def test_unknown_ties_are_refused():
    with pytest.raises(ValueError, match="ties must be 'all' or 'ordered', got 'first'"):
        bounds.plausible_set([0.0], 0.5, "first")
