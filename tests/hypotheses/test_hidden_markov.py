"""The forward recursion against sums over all hidden paths, and against exact fractions."""

import itertools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from scipy import stats

from guardrail.domain import BooleanHarm, IntegerHarm, IntervalHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.hidden_markov import HiddenMarkovFamily
from guardrail.policy.memory_schema import HiddenMarkov

DAMAGE, ABOVE = BooleanHarm(harmful=True), IntervalHarm(2.0, math.inf, inside=True)
TWO = {"name": "two", "initial": (0.7, 0.3), "transitions": ((0.9, 0.1), (0.2, 0.8)), "rates": (0.1, 0.6)}
THREE = {
    "name": "three",
    "initial": (0.5, 0.0, 0.5),
    "transitions": {"a": ((0.5, 0.5, 0.0), (0.1, 0.8, 0.1), (0.0, 0.0, 1.0)), "b": ((0.0, 0.5, 0.5),) * 3},
    "rates": {"a": (0.0, 0.3, 0.9), "b": (0.5, 0.25, 1.0)},
}
GAUSSIAN = {
    "name": "g",
    "initial": (0.5, 0.5),
    "transitions": ((0.9, 0.1), (0.3, 0.7)),
    "normals": ({"mean": 0.0, "sd": 1.0}, {"mean": 1.5, "sd": 0.5}),
}
ALONE = {"name": "one", "initial": (1.0,), "transitions": ((1.0,),), "rates": (0.2,)}


def family(*table, category=None, harm=DAMAGE):
    spec = HiddenMarkov.model_validate({"family": "hidden-markov", "category": category, "table": tuple(table)})
    return HiddenMarkovFamily.from_spec(spec, harm, ())


def run(family, rows, outcomes):
    """Log likelihood of each outcome given the past, float64[T, H], harms before each, and the final memory."""
    memory, found, harms = family.initial_memory(), [], []
    with jax.enable_x64(True):
        step, harm = jax.jit(family.step), jax.jit(family.harm)
        for row, outcome in zip(rows, outcomes, strict=True):
            row = np.array([float(row)])
            harms.append(np.asarray(harm(family.arrays, memory, row)))
            memory, log_likelihood, _ = step(family.arrays, memory, row, float(outcome))
            found.append(np.asarray(log_likelihood))
    return np.array(found), np.array(harms), memory


def of(values, category):
    return values[category] if isinstance(values, dict) else values


def emission(row, category, state, outcome):
    if "rates" in row:
        rate = of(row["rates"], category)[state]
        return rate if outcome else 1.0 - rate
    normal = of(row["normals"], category)[state]
    return stats.norm.pdf(outcome, normal["mean"], normal["sd"])


def path_sum(row, categories, outcomes):
    """P(outcomes), summed over every path of hidden states."""
    total, states = 0.0, range(len(row["initial"]))
    for path in itertools.product(states, repeat=len(outcomes) + 1):
        weight = row["initial"][path[0]]
        for t, outcome in enumerate(outcomes):
            weight *= of(row["transitions"], categories[t])[path[t]][path[t + 1]]
            weight *= emission(row, categories[t], path[t + 1], outcome)
        total += weight
    return total


@pytest.mark.parametrize(
    ("rows", "category", "names"),
    [((TWO, ALONE), None, (None,)), ((THREE, {**TWO, "name": "t"}), "action.kind", ("a", "b"))],
)
def test_likelihood_and_harm_are_those_of_all_paths(rows, category, names):
    model = family(*rows, category=category)
    random = np.random.default_rng(1)
    for _ in range(6):
        places = random.integers(0, len(names), 5)
        categories = [names[place] for place in places]
        outcomes = random.integers(0, 2, 5)
        found, harms, _ = run(model, places, outcomes)
        for h, row in enumerate(rows):
            for t in range(5):
                expected = path_sum(row, categories[: t + 1], outcomes[: t + 1])
                assert math.exp(found[: t + 1, h].sum()) == pytest.approx(expected, rel=1e-12)
                before = path_sum(row, categories[:t], outcomes[:t])
                if before > 0:
                    harm = path_sum(row, categories[: t + 1], [*outcomes[:t], 1]) / before
                    assert harms[t, h] == pytest.approx(harm, rel=1e-12)
                    assert harms[t, h] >= harm * (1 - 1e-15)


def test_gaussian_outcomes():
    model = family(GAUSSIAN, harm=ABOVE)
    outcomes = [0.3, 1.4, 2.6, -1.0]
    found, harms, _ = run(model, [0] * 4, outcomes)
    for t in range(4):
        assert math.exp(found[: t + 1, 0].sum()) == pytest.approx(path_sum(GAUSSIAN, [None] * 4, outcomes[: t + 1]))
    prediction = 0.5 * np.array([0.9, 0.1]) + 0.5 * np.array([0.3, 0.7])
    assert harms[0, 0] == pytest.approx(prediction @ [stats.norm.sf(2.0), stats.norm.sf(1.0)], rel=1e-9)


def test_two_thousand_steps_stay_within_the_stated_rounding():
    """Against exact rational arithmetic, renormalised at each step by the exact sum."""
    exact = {"initial": (Fraction(3, 4), Fraction(1, 4)), "rates": (Fraction(1, 8), Fraction(5, 8))}
    exact["transitions"] = ((Fraction(7, 8), Fraction(1, 8)), (Fraction(1, 4), Fraction(3, 4)))
    row = {"name": "x", **{key: np.array(value, float).tolist() for key, value in exact.items()}}
    row = {key: tuple(map(tuple, value)) if key == "transitions" else value for key, value in row.items()}
    row |= {"initial": tuple(row["initial"]), "rates": tuple(row["rates"])}
    outcomes = np.random.default_rng(2).random(2_000) < 0.3
    found, harms, memory = run(family(row), np.zeros(len(outcomes)), outcomes)
    belief, logs = list(exact["initial"]), []
    for t, outcome in enumerate(outcomes):
        predicted = [sum(belief[s] * exact["transitions"][s][n] for s in (0, 1)) for n in (0, 1)]
        harm = sum(p * r for p, r in zip(predicted, exact["rates"], strict=True))
        assert Fraction(float(harms[t, 0])) >= harm
        assert float(harms[t, 0]) == pytest.approx(float(harm), rel=1e-9)
        joint = [p * (r if outcome else 1 - r) for p, r in zip(predicted, exact["rates"], strict=True)]
        logs.append(math.log(sum(joint)))
        # Rounded to 200 bits: far below float64's error.
        belief = [Fraction(int(j / sum(joint) * 2**200), 2**200) for j in joint]
    rounding = float(memory.rounding)
    # The logarithms of the exact probabilities are themselves rounded, each by half a unit in the last place.
    assert abs(math.fsum(found[:, 0]) - math.fsum(logs)) <= rounding + 1e-16 * math.fsum(map(abs, logs))
    # Room for at least forty roundings a step, in the worst direction each; and no more than is useful.
    assert 2_000 * 40 * np.finfo(float).eps < rounding < 1e-9


def test_a_state_that_was_nearly_ruled_out_can_come_back():
    """400 outcomes of probability 1e-3 each make a belief of 1e-1200; then the other state is impossible."""
    row = {"name": "x", "initial": (0.5, 0.5), "transitions": ((1.0, 0.0), (0.0, 1.0)), "rates": (0.0, 0.999)}
    outcomes = [0] * 400 + [1]
    found, harms, _ = run(family(row), np.zeros(401), outcomes)
    expected = math.log(0.5) + 400 * math.log1p(-0.999) + math.log(0.999)
    assert found.sum() == pytest.approx(expected, rel=1e-12)
    assert 0.0 < harms[-1, 0] < 1e-200


def test_an_impossible_outcome_leaves_numbers():
    row = {"name": "x", "initial": (1.0,), "transitions": ((1.0,),), "rates": (0.0,)}
    found, harms, memory = run(family(row, TWO), [0, 0, 0], [1, 0, 1])
    assert found[0, 0] == found[2, 0] == -np.inf
    assert np.isfinite(found[:, 1]).all()
    assert (harms[:, 0] == 0.0).all()
    assert not np.isnan(np.asarray(memory.log_belief)).any()


def test_bad_outcomes_leave_the_memory():
    model = family(TWO)
    with jax.enable_x64(True):
        memory = model.initial_memory()
        for row, outcome in ((0.0, np.nan), (0.0, 0.5), (7.0, 1.0)):
            after, log_likelihood, _ = model.step(model.arrays, memory, np.array([row]), outcome)
            assert np.isnan(log_likelihood).all()
            assert np.asarray(after.log_belief).tobytes() == np.asarray(memory.log_belief).tobytes()
        assert np.isnan(model.harm(model.arrays, memory, np.array([7.0]))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": (0.5, 0.4)}, "must sum to 1"),
        ({"transitions": ((0.9, 0.2), (0.2, 0.8))}, "must sum to 1"),
        ({"transitions": ((1.0,),)}, "2 x 2 transition"),
        ({"rates": (0.1,)}, "rates for each of its 2"),
        ({"rates": None}, "exactly one of rates and normals"),
        ({"rates": {"a": (0.1, 0.2)}}, "what the category is"),
    ],
)
def test_inconsistent_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        family({**TWO, **change})


def test_other_misfits():
    with pytest.raises(ValueError, match="harm"):
        family(TWO, harm=ABOVE)
    with pytest.raises(ValueError, match="harm"):
        family(TWO, harm=IntegerHarm(frozenset({1}), 2))
    with pytest.raises(InvalidInput) as caught:
        family(THREE, category="action.kind").encode((), "c")
    assert caught.value.reason == "UNKNOWN_CATEGORY"
    assert family(TWO).describe(0) == ("two", {"hidden states": 2.0})
