"""What must hold for every finite class: agreement with the reference, monotonicity, supersets, symmetry."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import bounds
from guardrail.testing import reference
from guardrail.testing.strategies import finite_states

proves = settings(derandomize=True, deadline=None, max_examples=100)
ALPHAS = st.sampled_from([0.0, 1e-4, 0.1, 0.2, 0.5, 1.0]) | st.floats(1e-300, 1.0)
DELTAS = st.sampled_from([1e-6, 0.05, 0.5, 1.0]) | st.floats(1e-6, 1.0)
TIES = st.sampled_from(["all", "ordered"])


def same(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-9, atol=1e-12)


def subset(smaller, larger):
    return not (np.asarray(smaller) & ~np.asarray(larger)).any()


@proves
@given(finite_states())
def test_predictive_and_iid_agree_with_the_reference(state):
    same(bounds.predictive(state.log_posterior, state.harm), reference.predictive(state.log_posterior, state.harm))
    same(bounds.iid(state.log_posterior, state.harm), reference.iid(state.log_posterior, state.harm))


@proves
@given(finite_states(), ALPHAS, TIES)
def test_plausible_agrees_with_the_reference(state, alpha, ties):
    actual = np.asarray(bounds.plausible_set(state.log_posterior, alpha, ties))
    assert actual.tolist() == reference.plausible_set(state.log_posterior, alpha, ties).tolist()
    same(
        bounds.plausible(state.log_posterior, state.harm, alpha, ties),
        reference.plausible(state.log_posterior, state.harm, alpha, ties),
    )


@proves
@given(finite_states(), DELTAS)
def test_ratio_and_weak_agree_with_the_reference(state, delta):
    actual = np.asarray(bounds.ratio_set(state.log_posterior, state.log_prior, delta))
    assert actual.tolist() == reference.ratio_set(state.log_posterior, state.log_prior, delta).tolist()
    for function in ("ratio", "weak"):
        arguments = (state.log_posterior, state.log_prior, state.harm, delta)
        same(getattr(bounds, function)(*arguments), getattr(reference, function)(*arguments))


@proves
@given(finite_states(), ALPHAS, ALPHAS, TIES)
def test_a_smaller_alpha_never_tightens(state, one, other, ties):
    small, large = sorted((one, other))
    assert subset(
        bounds.plausible_set(state.log_posterior, large, ties), bounds.plausible_set(state.log_posterior, small, ties)
    )
    loose = np.asarray(bounds.plausible(state.log_posterior, state.harm, small, ties))
    assert (loose >= np.asarray(bounds.plausible(state.log_posterior, state.harm, large, ties))).all()


@proves
@given(finite_states(), DELTAS, DELTAS)
def test_a_smaller_delta_never_tightens(state, one, other):
    small, large = sorted((one, other))
    arguments = (state.log_posterior, state.log_prior)
    assert subset(bounds.ratio_set(*arguments, large), bounds.ratio_set(*arguments, small))
    loose = np.asarray(bounds.ratio(*arguments, state.harm, small))
    assert (loose >= np.asarray(bounds.ratio(*arguments, state.harm, large))).all()


@proves
@given(finite_states(), DELTAS)
def test_the_ratio_set_is_never_empty_and_weak_is_never_tighter_than_ratio(state, delta):
    arguments = (state.log_posterior, state.log_prior)
    assert not bool(bounds.is_refuted(bounds.ratio_set(*arguments, delta)))
    ratio = np.asarray(bounds.ratio(*arguments, state.harm, delta))
    assert (np.asarray(bounds.weak(*arguments, state.harm, delta)) >= ratio).all()


@proves
@given(finite_states(uniform=True), DELTAS)
def test_under_a_uniform_prior_the_ratio_set_lies_in_the_plausible_set(state, delta):
    ratio_set = bounds.ratio_set(state.log_posterior, state.log_prior, delta)
    assert subset(ratio_set, bounds.plausible_set(state.log_posterior, delta / len(state.log_prior)))


@proves
@given(finite_states(), ALPHAS)
def test_all_ties_is_a_superset_of_ordered_ties(state, alpha):
    assert subset(
        bounds.plausible_set(state.log_posterior, alpha, "ordered"), bounds.plausible_set(state.log_posterior, alpha)
    )


@proves
@given(finite_states(), ALPHAS, DELTAS, st.randoms(use_true_random=False))
def test_the_order_of_the_hypotheses_does_not_matter(state, alpha, delta, random):
    order = random.sample(range(len(state.log_prior)), len(state.log_prior))
    posterior, prior, harm = state.log_posterior[order], state.log_prior[order], state.harm[order]
    same(bounds.predictive(posterior, harm), bounds.predictive(state.log_posterior, state.harm))
    same(bounds.iid(posterior, harm), bounds.iid(state.log_posterior, state.harm))
    moved = np.asarray(bounds.plausible_set(posterior, alpha))
    assert moved.tolist() == np.asarray(bounds.plausible_set(state.log_posterior, alpha))[order].tolist()
    moved = np.asarray(bounds.ratio_set(posterior, prior, delta))
    assert moved.tolist() == np.asarray(bounds.ratio_set(state.log_posterior, state.log_prior, delta))[order].tolist()


@proves
@given(finite_states(), ALPHAS, TIES, st.sampled_from([-512.0, 0.5, 1024.0]))
def test_the_plausible_set_and_iid_ignore_a_constant(state, alpha, ties, constant):
    shifted = state.log_posterior + constant
    actual = np.asarray(bounds.plausible_set(shifted, alpha, ties))
    expected = np.asarray(bounds.plausible_set(state.log_posterior, alpha, ties))
    if ties == "all":
        assert actual.tolist() == expected.tolist()
    else:
        # Adding the constant may round two posteriors to one, whose order is then the index's.
        assert actual.sum() == expected.sum()
    same(bounds.iid(shifted, state.harm), bounds.iid(state.log_posterior, state.harm))


@proves
@given(finite_states(), ALPHAS, TIES, DELTAS, st.sampled_from([0.0, 1e-9, 0.1]))
def test_slack_only_adds_members(state, alpha, ties, delta, slack):
    exact = bounds.plausible_set(state.log_posterior, alpha, ties, slack=0.0)
    assert subset(exact, bounds.plausible_set(state.log_posterior, alpha, ties, slack=slack))
    exact = bounds.ratio_set(state.log_posterior, state.log_prior, delta, slack=0.0)
    assert subset(exact, bounds.ratio_set(state.log_posterior, state.log_prior, delta, slack=slack))
