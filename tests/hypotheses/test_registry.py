import math

import pytest

from guardrail.domain import BooleanHarm, IntegerHarm, IntervalHarm
from guardrail.hypotheses.registry import build
from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov
from guardrail.policy.schema import (
    BernoulliLogistic,
    BetaBernoulli,
    BetaPrior,
    CoefficientGrid,
    FiniteTable,
    GaussianLinear,
    LinearGaussianLattice,
    TableHypothesis,
    WeightPrior,
)

ABOVE, DAMAGE = IntervalHarm(1.0, math.inf, inside=True), BooleanHarm(harmful=True)
UNSAFE = IntegerHarm(frozenset({1}), 2)
COIN = {"name": "a", "initial": (1.0,), "transitions": ((1.0,),), "rates": (0.5,)}
CHAIN = {"name": "a", "kernel": ((0, 1), (1, 1))}
GRID = CoefficientGrid(lower=-1.0, upper=1.0, points=3, sd=1.0)
CLASSES = [
    (FiniteTable(family="finite-table", table=(TableHypothesis(name="a", rates=0.1),)), DAMAGE, ()),
    (LinearGaussianLattice(family="linear-gaussian-lattice", levels=2, noise_sd=1.0), ABOVE, ("x",)),
    (BernoulliLogistic(family="bernoulli-logistic", intercept=GRID, coefficients={"x": GRID}), DAMAGE, ("x",)),
    (BetaBernoulli(family="beta-bernoulli", prior=BetaPrior(a=1.0, b=1.0)), DAMAGE, ()),
    (GaussianLinear(family="gaussian-linear", noise_sd=1.0, prior=WeightPrior(sd=1.0)), ABOVE, ("x",)),
    (HiddenMarkov.model_validate({"family": "hidden-markov", "table": (COIN,)}), DAMAGE, ()),
    (
        FiniteMdp.model_validate({"family": "finite-mdp", "horizon": 1, "table": (CHAIN,)}),
        UNSAFE,
        ("action", "state"),
    ),
]


@pytest.mark.parametrize(("spec", "harm", "names"), CLASSES, ids=lambda value: getattr(value, "family", ""))
def test_every_family_of_the_schema_is_built(spec, harm, names):
    family = build(spec, harm, names)
    assert family.name == spec.family
    assert family.assumptions
    assert family.encode((1.0,) * len(names), None).shape == (family.row_length,)


@pytest.mark.parametrize(("spec", "harm", "names"), CLASSES, ids=lambda value: getattr(value, "family", ""))
def test_a_harm_of_the_wrong_kind_is_refused(spec, harm, names):
    with pytest.raises(ValueError, match=r"harm|outcome"):
        build(spec, ABOVE if harm is DAMAGE else DAMAGE, names)
