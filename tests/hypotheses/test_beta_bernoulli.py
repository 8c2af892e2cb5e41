import numpy as np
import pytest

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.beta_bernoulli import BetaBernoulliFamily
from guardrail.policy.schema import BetaBernoulli, BetaPrior
from guardrail.policy.schema_base import CategoryCount

HARM = BooleanHarm(True)


def spec(categories):
    category = None if categories is None else "action.tool"
    prior = BetaPrior(a=1.0, b=2.0)
    return BetaBernoulli(family="beta-bernoulli", category=category, categories=categories, prior=prior)


def unknown(family, category):
    with pytest.raises(InvalidInput) as caught:
        family.encode((), category)
    return caught.value


def test_named_categories_keep_their_order():
    family = BetaBernoulliFamily.from_spec(spec(("read", "write", "delete")), HARM, ())
    assert [family.encode((), name)[0] for name in ("read", "write", "delete")] == [0.0, 1.0, 2.0]
    assert family.hypothesis_name(np.array([2.0])) == "rate[delete]"
    assert family.size == 3


def test_counted_categories_are_numbers_from_zero():
    family = BetaBernoulliFamily.from_spec(spec(CategoryCount(count=5)), HARM, ())
    assert family.encode((), 4).tolist() == [4.0]
    assert family.hypothesis_name(np.array([4.0])) == "rate[4]"
    for wrong in (5, -1, "0", True, None, 10**30):
        assert unknown(family, wrong).reason == "UNKNOWN_CATEGORY"


def test_a_single_rate_needs_no_category():
    family = BetaBernoulliFamily.from_spec(spec(None), HARM, ())
    assert family.encode((), None).tolist() == [0.0]
    assert family.hypothesis_name(np.array([0.0])) == "rate"
    assert unknown(family, "x").reason == "UNKNOWN_CATEGORY"


def test_a_number_and_its_text_are_different_categories():
    family = BetaBernoulliFamily((1, "1"), 1, 1, HARM)
    assert family.encode((), 1)[0] != family.encode((), "1")[0]
    assert unknown(family, True).reason == "UNKNOWN_CATEGORY"


def test_unknown_categories_are_shown_in_short():
    family = BetaBernoulliFamily(("a", "b"), 1, 1, HARM)
    error = unknown(family, "x" * 100_000)
    assert len(str(error)) < 150
    assert unknown(family, None).reason == "UNKNOWN_CATEGORY"


@pytest.mark.parametrize(
    ("categories", "a", "b", "harm"),
    [
        ((), 1, 1, HARM),
        (("a", "a"), 1, 1, HARM),
        (0, 1, 1, HARM),
        (("a",), 0, 1, HARM),
        (("a",), 1, float("inf"), HARM),
        (("a",), float("nan"), 1, HARM),
        (("a",), 1, 1, IntervalHarm(0.0, 1.0, True)),
    ],
)
def test_classes_that_make_no_sense_are_refused(categories, a, b, harm):
    with pytest.raises(ValueError):
        BetaBernoulliFamily(categories, a, b, harm)


def test_assumptions_say_what_is_shared():
    assert "one category" in BetaBernoulliFamily(("a", "b"), 1, 1, HARM).assumptions[0]
    assert "one fixed rate" in BetaBernoulliFamily(None, 1, 1, HARM).assumptions[0]
