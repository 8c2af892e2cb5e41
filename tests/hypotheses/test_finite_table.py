import functools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.finite_table import FiniteTableFamily
from guardrail.policy.memory_schema import NormalSpec
from guardrail.policy.schema import FiniteTable, TableHypothesis

TRUE_IS_HARM = BooleanHarm(harmful=True)
ABOVE = IntervalHarm(1.0, math.inf, inside=True)


def rates(*values, priors=None, category=None, harm=TRUE_IS_HARM):
    priors = priors or [None] * len(values)
    rows = tuple(
        TableHypothesis(name=f"h{i}", rates=value, prior=prior)
        for i, (value, prior) in enumerate(zip(values, priors, strict=True))
    )
    return FiniteTableFamily.from_spec(FiniteTable(family="finite-table", category=category, table=rows), harm, ())


def normals(*values, category=None, harm=ABOVE):
    rows = tuple(TableHypothesis(name=f"h{i}", normal=value) for i, value in enumerate(values))
    return FiniteTableFamily.from_spec(FiniteTable(family="finite-table", category=category, table=rows), harm, ())


def call(family, function, *args):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(function)(family.arrays, *(np.asarray(arg, np.float64) for arg in args)))


@functools.cache
def gaussian_kernel():
    """Likelihood and its rounding, compiled once for all examples of a property."""
    family = normals(NormalSpec(mean=0.0, sd=1.0), NormalSpec(mean=1.0, sd=1.0))

    def numbers(arrays, row, outcome):
        return family.log_likelihood(arrays, row, outcome), family.log_likelihood_rounding(arrays, row, outcome)

    return jax.jit(numbers)


BY_TOOL = ({"read": 0.1, "write": 0.5}, {"write": 0.0, "read": 1.0}, 0.25)


def test_bernoulli_likelihood_and_harm_against_torch():
    family = rates(*BY_TOOL, category="action.tool")
    for category, column in (("read", [0.1, 1.0, 0.25]), ("write", [0.5, 0.0, 0.25])):
        row = family.encode((), category)
        for outcome in (0.0, 1.0):
            distribution = torch.distributions.Bernoulli(torch.tensor(column, dtype=torch.float64))
            possible = np.array([rate != 1.0 - outcome for rate in column])
            computed = call(family, family.log_likelihood, row, outcome)
            expected = distribution.log_prob(torch.tensor(outcome, dtype=torch.float64)).numpy()
            # torch clips a probability of 0 to a tiny one; here it is 0.
            np.testing.assert_allclose(computed[possible], expected[possible], rtol=1e-14, atol=3e-16)
            assert np.isneginf(computed[~possible]).all()
        harm = call(family, lambda arrays, row: family.harm_from_score(family.harm_score(arrays, row)), row)
        assert harm.tolist() == column


@pytest.mark.parametrize("outcome", [0.5, 2.0, -1.0, math.nan])
def test_an_outcome_that_is_not_boolean_has_no_likelihood(outcome):
    family = rates(0.1, 0.9)
    assert np.isnan(call(family, family.log_likelihood, [0.0], outcome)).all()


@pytest.mark.parametrize("row", [-1.0, 2.0, 0.5, math.nan, math.inf])
def test_a_row_that_is_no_category_has_no_numbers(row):
    family = rates({"a": 0.1, "b": 0.2}, category="action.tool")
    assert np.isnan(call(family, family.log_likelihood, [row], 1.0)).all()
    assert np.isnan(call(family, family.harm_score, [row])).all()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_harm_of_the_false_outcome_is_rounded_up(values):
    family = rates(*values, harm=BooleanHarm(harmful=False))
    for rate, harm in zip(values, np.asarray(family.arrays["harm"])[0], strict=True):
        exact = 1 - Fraction(rate)
        assert exact <= Fraction(float(harm)) <= min(1, exact + Fraction(1, 2**52))


NORMALS = ({1: NormalSpec(mean=0.0, sd=1.0), 2: NormalSpec(mean=5.0, sd=0.1)}, NormalSpec(mean=-3.0, sd=2.0))


@pytest.mark.parametrize(
    ("harm", "probability"),
    [
        (ABOVE, lambda m, s: stats.norm.sf(1.0, m, s)),
        (IntervalHarm(-1.0, 2.0, inside=False), lambda m, s: stats.norm.cdf(-1, m, s) + stats.norm.sf(2, m, s)),
    ],
)
def test_gaussian_likelihood_and_harm_against_scipy_and_torch(harm, probability):
    family = normals(*NORMALS, category="context.mode", harm=harm)
    for category, mean, sd in ((1, [0.0, -3.0], [1.0, 2.0]), (2, [5.0, -3.0], [0.1, 2.0])):
        row = family.encode((), category)
        for outcome in (-4.0, 0.0, 5.1):
            computed = call(family, family.log_likelihood, row, outcome)
            np.testing.assert_allclose(computed, stats.norm.logpdf(outcome, mean, sd), rtol=1e-13, atol=1e-13)
            normal = torch.distributions.Normal(
                torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64)
            )
            np.testing.assert_allclose(
                computed, normal.log_prob(torch.tensor(outcome, dtype=torch.float64)), rtol=1e-12
            )
        np.testing.assert_allclose(call(family, family.harm_score, row), probability(np.array(mean), sd), rtol=1e-10)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.floats(-1e8, 1e8), st.floats(-1e8, 1e8), st.floats(1e-4, 1e4), st.floats(-1e8, 1e8))
def test_rounding_of_the_gaussian_likelihood_is_covered(first, second, sd, outcome):
    family = normals(NormalSpec(mean=first, sd=sd), NormalSpec(mean=second, sd=1.0))
    with jax.enable_x64(True):
        computed, allowed = map(np.asarray, gaussian_kernel()(family.arrays, np.zeros(1), np.float64(outcome)))
    for number, mean, spread in zip(computed, (first, second), (sd, 1.0), strict=True):
        half_square = ((Fraction(outcome) - Fraction(mean)) / Fraction(spread)) ** 2 / 2
        log_norm = Fraction(float(np.log(np.longdouble(spread)) + 0.5 * np.log(2 * np.longdouble(math.pi))))
        # log_norm is rounded to float64 once more than it need be, by half a unit of at most 11.
        assert abs(Fraction(float(number)) + half_square + log_norm) <= Fraction(float(allowed)) + Fraction(1, 2**49)


def test_priors():
    np.testing.assert_allclose(rates(0.1, 0.2, 0.3).log_prior(), np.full(3, -math.log(3)))
    np.testing.assert_allclose(np.exp(rates(0.1, 0.2, priors=(0.9, 0.1)).log_prior()), [0.9, 0.1], rtol=1e-15)


@pytest.mark.parametrize(
    ("priors", "message"),
    [((0.5, None), "every hypothesis or for none"), ((0.5, 0.4), "sum to 1"), ((0.7, 0.4), "sum to 1")],
)
def test_priors_that_are_none(priors, message):
    with pytest.raises(ValueError, match=message):
        rates(0.1, 0.2, priors=priors)


def test_unknown_categories_are_refused():
    family = rates({1: 0.1, "1": 0.9}, category="action.kind")
    assert family.encode((), 1).tolist() == [0.0]
    assert family.encode((), "1").tolist() == [1.0]
    for category in ("2", 2, True, None, 1.0):
        with pytest.raises(InvalidInput) as caught:
            family.encode((), category)
        assert caught.value.reason == "UNKNOWN_CATEGORY"


def test_one_category():
    family = rates(0.1, 0.9)
    assert family.encode((), None).tolist() == [0.0]
    assert family.describe(1) == ("h1", {"rate": 0.9})


def test_describe_shows_every_category():
    family = normals(*NORMALS, category="context.mode")
    assert family.describe(0) == ("h0", {"mean[1]": 0.0, "mean[2]": 5.0, "sd[1]": 1.0, "sd[2]": 0.1})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: rates({"a": 0.1}), "what the category is"),
        (lambda: rates(0.1, category="action.tool"), "names any"),
        (lambda: rates({"a": 0.1, "b": 0.2}, {"a": 0.1}, category="action.tool"), "no rates for category 'b'"),
        (lambda: rates(0.1, harm=ABOVE), "Boolean outcome"),
        (lambda: normals(NORMALS[1], harm=TRUE_IS_HARM), "numeric outcome"),
        (lambda: rates(None), "numeric"),
        (lambda: rates(0.1, None), "no rates"),
        (lambda: normals(NORMALS[1], None), "no normal"),
    ],
)
def test_tables_that_contradict_themselves(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_both_kinds_in_one_hypothesis_are_refused():
    both = TableHypothesis(name="h", rates=0.1, normal=NORMALS[1])
    for harm in (TRUE_IS_HARM, ABOVE):
        with pytest.raises(ValueError, match=r"one kind|Boolean"):
            FiniteTableFamily.from_spec(FiniteTable(family="finite-table", table=(both,)), harm, ())


def test_repeated_names_and_features_are_refused():
    row = TableHypothesis(name="h", rates=0.1)
    with pytest.raises(ValueError, match="same name"):
        FiniteTableFamily.from_spec(FiniteTable(family="finite-table", table=(row, row)), TRUE_IS_HARM, ())
    with pytest.raises(ValueError, match="no numeric features"):
        FiniteTableFamily.from_spec(FiniteTable(family="finite-table", table=(row,)), TRUE_IS_HARM, ("x",))
