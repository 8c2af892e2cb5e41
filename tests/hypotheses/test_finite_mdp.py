"""Harm of a finite Markov decision process against all paths, exact fractions, and Gymnasium's own worlds."""

import itertools
import math
from fractions import Fraction

import gymnasium
import jax
import numpy as np
import pytest
from failure_budget import FAILURE_BUDGET
from scipy.stats import binomtest

from guardrail.domain import BooleanHarm, IntegerHarm
from guardrail.errors import InvalidInput
from guardrail.hypotheses.finite_mdp import FiniteMdpFamily
from guardrail.policy.memory_schema import FiniteMdp

NAMES = ("action", "state")
UNSAFE = IntegerHarm(frozenset({3}), 4)
KERNEL = (
    (1, {0: 0.5, 2: 0.25, 3: 0.25}),
    ({0: 0.125, 3: 0.875}, 2),
    (0, {1: 0.5, 2: 0.5}),
    (3, 0),
)
OTHER = ((0, 1), (1, {2: 0.75, 3: 0.25}), ({2: 0.5, 3: 0.5}, 0), (3, 3))


def family(harm=UNSAFE, **fields):
    spec = FiniteMdp.model_validate({"family": "finite-mdp", **fields})
    return FiniteMdpFamily.from_spec(spec, harm, NAMES)


def table(*kernels, **fields):
    rows = tuple({"name": f"k{place}", "kernel": kernel} for place, kernel in enumerate(kernels))
    return family(table=rows, **fields)


def harms(model, states, moves):
    """float64[S, K, H]."""
    rows = [[model.encode((float(a), float(s)), None) for a in range(moves)] for s in range(states)]
    with jax.enable_x64(True):
        return np.array([[np.asarray(model.harm_score(model.arrays, row)) for row in line] for line in rows])


def chances(entry):
    if not isinstance(entry, dict):
        return {entry: Fraction(1)}
    return {state: Fraction(mass) for state, mass in entry.items()}


def harm_of_all_paths(kernel, policy, horizon, unsafe, terminal, state, move):
    """Exact: every path of `horizon` steps, weighed by its probability."""
    moves = range(len(kernel[0]))
    total = Fraction(0)
    for actions in itertools.product(moves, repeat=horizon - 1) if policy == "uniform" else [None]:
        for path in itertools.product(range(len(kernel)), repeat=horizon):
            at, weight, over = state, Fraction(1), state in unsafe
            bad = over
            for t, after in enumerate(path):
                if over:  # the episode has ended: count one continuation only
                    weight *= after == 0
                    continue
                action = move if t == 0 else (policy[at] if actions is None else actions[t - 1])
                weight *= chances(kernel[at][action]).get(after, 0)
                at, bad = after, bad or after in unsafe
                over = bad or after in terminal
            total += weight * bad
    return total / (len(moves) ** (horizon - 1) if policy == "uniform" else 1)


@pytest.mark.parametrize("horizon", [1, 2, 4])
@pytest.mark.parametrize("policy", ["uniform", (0, 1, 1, 0), (1, 0, 0, 1)])
@pytest.mark.parametrize("terminal", [(), (2,)])
def test_harm_is_that_of_all_paths_and_never_below(horizon, policy, terminal):
    given = {} if horizon == 1 else {"default_policy": policy}
    found = harms(table(KERNEL, OTHER, horizon=horizon, terminal=terminal, **given), 4, 2)
    for (h, kernel), state, move in itertools.product(enumerate((KERNEL, OTHER)), range(4), range(2)):
        exact = harm_of_all_paths(kernel, policy, horizon, {3}, set(terminal), state, move)
        assert Fraction(float(found[state, move, h])) >= exact
        assert found[state, move, h] == pytest.approx(float(exact), rel=1e-11, abs=0)


def test_long_horizons_stay_above_the_exact_harm():
    third = Fraction(1, 3)
    kernel = (({0: 1 / 3, 1: 1 / 3, 3: 1 / 3},), (2,), ({0: 0.999, 3: 0.001},), (3,))
    found = harms(table(kernel, horizon=1000, default_policy="uniform"), 4, 1)
    exact_kernel = [{0: third, 1: third, 3: third}, {2: Fraction(1)}, {0: Fraction(0.999), 3: Fraction(0.001)}]
    total = sum(exact_kernel[2].values())
    exact_kernel[2] = {state: mass / total for state, mass in exact_kernel[2].items()}
    value = [Fraction(0), Fraction(0), Fraction(0), Fraction(1)]
    for _ in range(1000):
        after = [sum(p * value[s] for s, p in row.items()) for row in exact_kernel]
        # Rounded down to 300 bits, so that the fractions stay short: still at most the exact harm.
        value = [Fraction(int(v * 2**300), 2**300) for v in after] + [Fraction(1)]
    for state in range(3):
        assert Fraction(float(found[state, 0, 0])) >= value[state]
        assert found[state, 0, 0] == pytest.approx(float(value[state]), rel=1e-9)


def test_a_harm_too_small_for_a_double_is_not_reported_as_none():
    chain = ({0: 1.0, 1: 1e-200}, {0: 1.0, 2: 1e-200}, 2)
    model = family(
        IntegerHarm(frozenset({2}), 3),
        table=({"name": "k", "kernel": tuple((entry,) for entry in chain)},),
        horizon=3,
        default_policy="uniform",
    )
    assert 0.0 < harms(model, 3, 1)[0, 0, 0] < 1e-200


def test_likelihoods_are_the_kernels_probabilities():
    model = table(KERNEL, OTHER, horizon=1)
    with jax.enable_x64(True):
        for state, move, after in itertools.product(range(4), range(2), range(4)):
            row = model.encode((float(move), float(state)), None)
            found = np.exp(np.asarray(model.log_likelihood(model.arrays, row, float(after))))
            expected = [float(chances(kernel[state][move]).get(after, 0)) for kernel in (KERNEL, OTHER)]
            assert found == pytest.approx(expected, rel=1e-12, abs=0)
        row = model.encode((0.0, 0.0), None)
        for bad in (-1.0, 4.0, 0.5, np.nan):
            assert np.isnan(model.log_likelihood(model.arrays, row, bad)).all()
        assert np.isnan(model.log_likelihood(model.arrays, np.array([99.0]), 0.0)).all()
        assert np.isnan(model.harm_score(model.arrays, np.array([99.0]))).all()


def test_a_mixture_is_every_combination_of_its_weights():
    kernels = {"stay": ((0,), (1,)), "swap": ((1,), (0,)), "one": ((1,), (1,))}
    model = family(
        IntegerHarm(frozenset({1}), 2),
        horizon=1,
        mixture={
            "kernels": kernels,
            "rest": "stay",
            "weights": {
                "swap": {"lower": 0.0, "upper": 1.0, "points": 11},
                "one": {"lower": 0.0, "upper": 0.5, "points": 6},
            },
        },
    )
    assert model.size == sum(1 for one in range(6) for swap in range(11) if one + swap <= 10)
    found = harms(model, 2, 1)[0, 0]
    for index in range(model.size):
        name, weights = model.describe(index)
        assert math.fsum(weights.values()) == pytest.approx(1.0, abs=1e-15)
        assert found[index] == pytest.approx(weights["swap"] + weights["one"], abs=1e-12)
        assert f"swap {weights['swap']:.4g}" in name
    assert model.log_prior() == pytest.approx(-np.log(model.size))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"table": ({"name": "a", "kernel": ((0,), (1,))},)}, "4 states"),
        ({"table": ({"name": "a", "kernel": ((0,), (1, 0), (0,), (0,))},)}, "one entry for each action"),
        ({"table": ({"name": "a", "kernel": ((9,), (1,), (0,), (0,))},)}, "state 9 does not exist"),
    ],
)
def test_inconsistent_classes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        family(horizon=1, **fields)


def test_misfits():
    spec = FiniteMdp.model_validate({"family": "finite-mdp", "horizon": 1, "table": ({"name": "a", "kernel": KERNEL},)})
    with pytest.raises(ValueError, match="harm must be a set of states"):
        FiniteMdpFamily.from_spec(spec, BooleanHarm(True), NAMES)
    with pytest.raises(ValueError, match="needs the features action and state"):
        FiniteMdpFamily.from_spec(spec, UNSAFE, ("state",))
    model = table(KERNEL, horizon=1)
    for features in ((2.0, 0.0), (0.0, 4.0), (-1.0, 0.0), (0.5, 0.0)):
        with pytest.raises(InvalidInput) as caught:
            model.encode(features, None)
        assert caught.value.reason == "UNKNOWN_CATEGORY"


def test_the_default_policy_is_part_of_what_is_promised():
    assert "all equally likely" in table(KERNEL, horizon=5, default_policy="uniform").assumptions[2]
    assert "the listed actions" in table(KERNEL, horizon=5, default_policy=(0, 0, 0, 0)).assumptions[2]
    assert "nothing about later steps" in table(KERNEL, horizon=1).assumptions[2]


# ---------------------------------------------------------------- Gymnasium's own transition tables

FALL = 48
WORLDS = {
    "FrozenLake": (lambda: gymnasium.make("FrozenLake-v1", is_slippery=True), 16, {5, 7, 11, 12}, (15,)),
    "CliffWalking": (lambda: gymnasium.make("CliffWalking-v1", is_slippery=True), 49, {FALL}, (47,)),
}


def gym_kernel(make, states):
    """Gymnasium's P as a kernel; a reward of -100 is a fall, state 48."""
    env = make().unwrapped
    rows = []
    for state in range(states):
        if state == FALL:
            rows.append((FALL,) * 4)
            continue
        row = []
        for move in range(4):
            entry = {}
            for mass, after, reward, _ in env.P[state][move]:
                target = FALL if reward == -100 else int(after)
                entry[target] = entry.get(target, 0.0) + float(mass)
            row.append(entry)
        rows.append(tuple(row))
    return tuple(rows)


@pytest.mark.parametrize("name", WORLDS)
def test_rollouts_of_gymnasium_fall_as_often_as_the_harm_says(name):
    make, states, unsafe, terminal = WORLDS[name]
    random, horizon, runs = np.random.default_rng(3), 6, 4_000
    policy = tuple(int(a) for a in random.integers(0, 4, states))
    kernel = gym_kernel(make, states)
    model = family(
        IntegerHarm(frozenset(unsafe), states),
        table=({"name": "gym", "kernel": kernel},),
        horizon=horizon,
        default_policy=policy,
        terminal=terminal,
    )
    found = harms(model, states, 4)[:, :, 0]
    env = make().unwrapped
    env.reset(seed=4)
    pairs = [(s, a) for s in (14, 10, 6, 24, 36) if s < states - 1 for a in range(4)]
    for state, move in pairs:
        falls = 0
        for _ in range(runs // len(pairs) * 4):
            env.s, action = state, move
            for _ in range(horizon):
                after, reward, ended, _, _ = env.step(action)
                if after in unsafe or reward == -100:
                    falls += 1
                    break
                if ended:
                    break
                action = policy[after]
        count = runs // len(pairs) * 4
        harm = min(float(found[state, move]), 1.0)
        assert binomtest(falls, count, harm).pvalue > FAILURE_BUDGET / 40, (state, move, falls / count, harm)
    assert 0.1 < found[36 if states > 36 else 14].max() <= 1.0
