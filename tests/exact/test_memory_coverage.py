"""Coverage of worlds with memory, proved by enumeration: every sequence of outcomes of a few hidden Markov models.

Each of the 1,024 sequences of 10 outcomes is weighed by its probability under the truth, from a filter in plain
NumPy, for every choice of the truth; the bounds are those of the oracle itself, at every prefix.
"""

import functools

import numpy as np
import pytest

from guardrail.domain import BooleanHarm, IntegerHarm
from guardrail.hypotheses.finite_mdp import FiniteMdpFamily
from guardrail.hypotheses.hidden_markov import HiddenMarkovFamily
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.oracles.history import HistoryOracle
from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov
from guardrail.policy.schema import RatioBound

STEPS = 10
ROUNDING = 1e-12
STICKY = ((0.9, 0.1), (0.1, 0.9))
CLASSES = {
    "how fast it wears": tuple(
        {"name": f"{p:g}", "initial": (1.0, 0.0), "transitions": ((1 - p, p), (0.0, 1.0)), "rates": (0.05, 0.8)}
        for p in (0.02, 0.2, 0.5)
    ),
    "with memory or without": (
        {"name": "sticky", "initial": (0.5, 0.5), "transitions": STICKY, "rates": (0.1, 0.9)},
        {"name": "coin", "initial": (1.0,), "transitions": ((1.0,),), "rates": (0.5,)},
        {"name": "flips", "initial": (0.5, 0.5), "transitions": ((0.1, 0.9), (0.9, 0.1)), "rates": (0.1, 0.9)},
    ),
}
PRIORS = {"uniform": (1 / 3, 1 / 3, 1 / 3), "skewed": (0.01, 0.9, 0.09)}
CASES = [(name, prior, running) for name in CLASSES for prior in PRIORS for running in (False, True)]


class Enumeration:
    """Everything at every prefix; the prefixes of t outcomes start at 2**t - 1, in binary order."""

    def __init__(self, table, prior, running, delta):
        rows = tuple({**row, "prior": mass} for row, mass in zip(table, prior, strict=True))
        spec = HiddenMarkov.model_validate({"family": "hidden-markov", "table": rows})
        oracle = HistoryOracle(
            HiddenMarkovFamily(spec, BooleanHarm(True)), RatioBound(kind="ratio", delta=delta, running=running)
        )
        self.bound, self.harm, self.predictive = [], [], []
        beliefs = [np.array(row["initial"])[None] for row in table]
        log_probability = np.zeros((1, len(table)))
        states = [oracle.init()]
        for t in range(STEPS + 1):
            predicted = [b @ np.array(row["transitions"]) for b, row in zip(beliefs, table, strict=True)]
            self.harm.append(
                np.stack([p @ np.array(row["rates"]) for p, row in zip(predicted, table, strict=True)], axis=1)
            )
            found = [oracle.bound(state, np.zeros((1, 1)))[0] for state in states]
            self.bound.append(np.array([b.value for b in found]))
            self.predictive.append(np.array([b.predictive if b.predictive is not None else 1.0 for b in found]))
            if t == STEPS:
                break
            states = [
                oracle.observe(state, np.zeros((1, 1)), np.array([outcome]))
                for state in states
                for outcome in (0.0, 1.0)
            ]
            step, after = [], []
            for p, row in zip(predicted, table, strict=True):
                rates = np.array(row["rates"])
                joint = np.stack([p * (1 - rates), p * rates], axis=1).reshape(-1, len(rates))
                step.append(joint.sum(axis=1))
                after.append(joint / joint.sum(axis=1, keepdims=True))
            log_probability = np.repeat(log_probability, 2, axis=0) + np.log(np.stack(step, axis=1))
            beliefs = after
        self.probability = np.exp(log_probability)

    def probability_of_any(self, events, truth):
        """Probability under the truth that an event, bool[2**t] for each t, ever happens."""
        ever = np.zeros(2**STEPS, bool)
        for t, event in enumerate(events):
            ever |= np.repeat(event, 2 ** (STEPS - t))
        return self.probability[ever, truth].sum()

    def too_low(self, bounds, truth):
        """At which prefixes the bound is below the truth's harm, bool[2**t] for each t."""
        return [b < h[:, truth] * (1 - ROUNDING) for b, h in zip(bounds, self.harm, strict=True)]


@functools.cache
def enumeration(name, prior, running):
    return Enumeration(CLASSES[name], PRIORS[prior], running, 0.2)


@pytest.mark.parametrize(("name", "prior", "running"), CASES)
def test_the_bound_is_ever_below_the_true_harm_with_probability_at_most_delta(name, prior, running):
    found = enumeration(name, prior, running)
    np.testing.assert_allclose(found.probability.sum(axis=0), 1.0, atol=1e-12)
    for truth in range(3):
        assert found.probability_of_any(found.too_low(found.bound, truth), truth) <= 0.2 + ROUNDING


def test_this_test_can_fail():
    """The predictive harm is no bound; the theorem's promise is used; a bound one outcome too old is no bound."""
    found = [enumeration(*case) for case in CASES]

    def worst(bounds_of):
        return max(f.probability_of_any(f.too_low(bounds_of(f), truth), truth) for f in found for truth in range(3))

    assert worst(lambda f: f.predictive) > 0.9
    assert worst(lambda f: f.bound) > 0.02
    # Staleness: the bound computed before the last outcome, held against the harm after it.
    stale = worst(lambda f: [f.bound[0], *(np.repeat(before, 2) for before in f.bound[:-1])])
    assert stale > 0.2


# ---------------------------------------------------------------- a finite Markov decision process

MDP_STEPS, MDP_DELTA = 10, 0.2
SLIPS = (0.1, 0.4, 0.8)


def chain(slip):
    """Places 0 and 1 and the fall, 2: a step to the right may slip one place too far; from the fall all is over."""
    return (
        (0, {1: 1 - slip, 2: slip}),
        ({0: 1 - slip, 1: slip}, {1: slip, 2: 1 - slip}),
        (2, 2),
    )


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_harm_within_some_steps_is_covered_for_every_state_and_action_at_all_times(prior):
    """Every way that ten moves at places 0 and 1 in turn can end is weighed, for every truth."""
    rows = tuple(
        {"name": f"{slip:g}", "kernel": chain(slip), "prior": mass} for slip, mass in zip(SLIPS, prior, strict=True)
    )
    spec = FiniteMdp.model_validate({"family": "finite-mdp", "horizon": 3, "default_policy": (0, 0, 0), "table": rows})
    family = FiniteMdpFamily(spec, IntegerHarm(frozenset({2}), 3))
    oracle = EnumeratedOracle(family, RatioBound(kind="ratio", delta=MDP_DELTA, running=True))
    pairs = np.array([family.encode((float(a), float(s)), None) for s in range(2) for a in range(2)])
    harm = np.array([[true_mdp_harm(slip, s, a, 3) for s in range(2) for a in range(2)] for slip in SLIPS])
    states, log_probability, missed = [oracle.init()], np.zeros((1, 3)), [np.zeros((1, 3), bool)]
    for t in range(MDP_STEPS + 1):
        bounds = np.array([[b.value for b in oracle.bound(state, pairs)] for state in states])
        low = (bounds[:, None, :] < harm[None] * (1 - ROUNDING)).any(axis=2)
        missed[-1] |= low
        if t == MDP_STEPS:
            break
        # Alternately right from 0 (to 1 or 2) and left from 1 (to 0 or 1): the agent's plan, not the world's.
        row, ends = (pairs[1], (1.0, 2.0)) if t % 2 == 0 else (pairs[2], (0.0, 1.0))
        states = [oracle.observe(state, row[None], np.array([end])) for state in states for end in ends]
        step = np.log([[1 - slip for slip in SLIPS], list(SLIPS)])
        log_probability = (log_probability[:, None, :] + step[None]).reshape(-1, 3)
        missed.append(np.repeat(missed[-1], 2, axis=0))
    probability = np.exp(log_probability)
    np.testing.assert_allclose(probability.sum(axis=0), 1.0, atol=1e-12)
    ever = [probability[missed[-1][:, truth], truth].sum() for truth in range(3)]
    assert max(ever) <= MDP_DELTA + ROUNDING
    assert max(ever) > 0.01, "the bound is never put to the test"


def true_mdp_harm(slip, state, action, steps):
    """By recursion over what may happen; after the first step always to the left."""
    if state == 2:
        return 1.0
    if steps == 0:
        return 0.0
    entry = chain(slip)[state][action]
    chances = entry if isinstance(entry, dict) else {entry: 1.0}
    return sum(mass * true_mdp_harm(slip, after, 0, steps - 1) for after, mass in chances.items())
