import itertools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from scipy import stats

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.gaussian_harm import interval_harm
from guardrail.hypotheses.gaussian_linear import GaussianLinearFamily, largest_score
from guardrail.policy.schema import GaussianLinear, WeightBox, WeightPrior

ABOVE = IntervalHarm(2.0, math.inf, True)
BELOW = IntervalHarm(-math.inf, 2.0, True)
INSIDE = IntervalHarm(-1.0, 2.0, True)
OUTSIDE = IntervalHarm(-1.0, 2.0, False)
EVENTS = [ABOVE, BELOW, INSIDE, OUTSIDE, IntervalHarm(2.0, math.inf, False), IntervalHarm(-math.inf, 2.0, False)]


def probability(event, mean, sd):
    below, above = stats.norm(mean, sd).cdf(event.lower), stats.norm(mean, sd).sf(event.upper)
    return 1 - below - above if event.inside else below + above


def largest_harm(event, lower, upper, sd=0.7):
    with jax.enable_x64(True):
        score = largest_score(event, np.asarray(lower, float), np.asarray(upper, float))
        return float(interval_harm(event, sd, score))


@pytest.mark.parametrize("event", EVENTS)
def test_largest_harm_over_a_range_of_means_is_that_of_a_dense_grid(event):
    ends = (-6.0, -1.4, -0.9, 0.3, 0.6, 1.9, 2.3, 5.0)
    for lower, upper in itertools.combinations_with_replacement(ends, 2):
        exact = probability(event, np.linspace(lower, upper, 2001), 0.7).max()
        assert largest_harm(event, lower, upper) >= exact - 1e-15
        assert largest_harm(event, lower, upper) == pytest.approx(exact, rel=1e-6)


def test_largest_harm_over_the_real_line():
    whole = (-math.inf, math.inf)
    for event in (ABOVE, BELOW, OUTSIDE):
        assert largest_harm(event, *whole) == 1.0
    assert largest_harm(INSIDE, *whole) == pytest.approx(probability(INSIDE, 0.5, 0.7))
    assert largest_harm(IntervalHarm(-math.inf, math.inf, True), 0.0, 1.0) == 1.0
    assert largest_harm(IntervalHarm(-math.inf, math.inf, False), 0.0, 1.0) == 0.0


def test_a_range_that_is_not_a_number_has_no_harm():
    for event in EVENTS:
        assert math.isnan(largest_harm(event, math.nan, math.nan))


def family(box=None, harm=ABOVE, names=("x", "y")):
    return GaussianLinearFamily(names, 0.5, 0.0, 1.0, box, harm)


def test_from_spec():
    spec = GaussianLinear(
        family="gaussian-linear",
        noise_sd=2.0,
        prior=WeightPrior(mean=0.0, sd=3.0),
        box=WeightBox(lower=-1.0, upper=4.0),
    )
    made = GaussianLinearFamily.from_spec(spec, ABOVE, ("x", "y", "z"))
    assert made.row_length == 3
    assert made.assumptions[-1] == "all weights lie in [-1, 4]"
    assert any("standard deviation 2" in text for text in made.assumptions)


def test_encode():
    assert family().encode((1, 2.5), None).tolist() == [1.0, 2.5]
    with pytest.raises(InvalidInput):
        family().encode((1.0,), None)
    with pytest.raises(InvalidInput) as caught:
        family().encode((1.0, 2.0), "a")
    assert caught.value.reason == "UNKNOWN_CATEGORY"


@pytest.mark.parametrize(
    ("names", "noise", "mean", "sd", "box", "harm"),
    [
        ((), 1, 0, 1, None, ABOVE),
        (("x",), 0, 0, 1, None, ABOVE),
        (("x",), 1, math.nan, 1, None, ABOVE),
        (("x",), 1, 0, math.inf, None, ABOVE),
        (("x",), 1, 0, 1, (1.0, 1.0), ABOVE),
        (("x",), 1, 0, 1, (0.0, math.inf), ABOVE),
        (("x",), 1, 0, 1, None, BooleanHarm(True)),
    ],
)
def test_classes_that_make_no_sense_are_refused(names, noise, mean, sd, box, harm):
    with pytest.raises(ValueError):
        GaussianLinearFamily(names, noise, mean, sd, box, harm)


def test_rules_without_effect_are_refused():
    with pytest.raises(ValueError, match="running"):
        family().check_rule(0.05, True)
    with pytest.raises(ValueError, match="box"):
        family(box=(0.0, 1.0)).check_rule(None, False)


def test_sums_keep_the_precision_of_a_single_addition():
    # Terms of very different size: plain float64 sums would lose the small ones altogether.
    made = family(names=("x",))
    rng = np.random.default_rng(0)
    rows = np.concatenate([[1e9], rng.uniform(0.1, 1.0, size=4000), [3e8]])
    update = jax.jit(
        lambda arrays, rows: jax.lax.fori_loop(
            0, len(rows), lambda i, a: made.update(0.05, False, a, rows[i][None], 2 * rows[i]), arrays
        )
    )
    with jax.enable_x64(True):
        arrays = {key: np.asarray(value) for key, value in update(made.initial(), rows).items()}
    exact = sum(Fraction(float(x)) ** 2 for x in rows)
    total = Fraction(float(arrays["gram"][0, 0])) + Fraction(float(arrays["gram_low"][0, 0]))
    assert abs(total - exact) / exact < Fraction(2) ** -52
    cross = Fraction(float(arrays["cross"][0])) + Fraction(float(arrays["cross_low"][0]))
    assert abs(cross - 2 * exact) / exact < Fraction(2) ** -51
    plain = Fraction(float(np.cumsum(rows**2)[-1]))
    assert abs(plain - exact) / exact > 4 * abs(total - exact) / exact
