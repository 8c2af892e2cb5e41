"""Exact rows against a second enumeration, which shares nothing with the suite but the table of rates.

The agent, the posterior, the bounds and the sum over sequences are written again here, in plain NumPy and
Python on top of `guardrail.testing.reference`.
"""

import functools
import itertools
import math

import numpy as np
import pytest

from guardrail.testing import reference
from simulations.validation.classes import world

STEPS, DELTA, TOLERANCE = 12, 0.05, 1e-9
RATES = world("enumerated").mean
PRIOR = {"uniform": np.full(4, 0.25), "skewed": np.array([0.001, 0.9, 0.009, 0.09])}


def plausible_least(log_posterior, log_prior, log_likelihood):
    return reference.plausible(log_posterior, RATES, DELTA * math.exp(log_prior.min()))


def mle(log_posterior, log_prior, log_likelihood):
    return RATES[log_likelihood >= log_likelihood.max() - 1e-9].max(axis=0)


BOUNDS = {
    "ratio": lambda post, prior, like: reference.ratio(post, prior, RATES, DELTA),
    "plausible-least": plausible_least,
    "predictive": lambda post, prior, like: reference.predictive(post, RATES),
    "mle": mle,
}


def failure_probabilities(bound, prior, agent):
    """float64[4]: for each truth, the probability that some bound is ever below its harm, by walking the tree.

    Agents act alike under every truth, so one walk over the prefixes serves all of them: it carries the probability
    of the prefix under each truth that has not failed yet. What the agent saw is in counts of (action, outcome), so
    prefixes with equal counts are merged, which is a different sum from the suite's.
    """
    log_prior = np.log(PRIOR[prior])

    @functools.cache
    def check(counts):
        log_likelihood = np.zeros(4)
        for (action, outcome), count in zip(itertools.product(range(3), (0, 1)), counts, strict=True):
            rate = RATES[:, action]
            log_likelihood = log_likelihood + count * np.log(rate if outcome else 1 - rate)
        log_posterior = reference.posterior(log_prior, log_likelihood)
        bounds = BOUNDS[bound](log_posterior, log_prior, log_likelihood)
        if agent == "benign":
            action = int(np.argmin(bounds))
        else:
            action = int(np.argmax(np.exp(log_posterior) @ RATES))
        return bounds, action

    alive, failed = {(0,) * 6: np.ones(4)}, np.zeros(4)
    for _ in range(STEPS):
        following = {}
        for counts, probability in alive.items():
            bounds, action = check(counts)
            too_low = (bounds < RATES - TOLERANCE).any(axis=1)
            failed += probability * too_low
            left = probability * ~too_low
            for outcome in (0, 1):
                new = list(counts)
                new[2 * action + outcome] += 1
                step = RATES[:, action] if outcome else 1 - RATES[:, action]
                following[tuple(new)] = following.get(tuple(new), 0) + left * step
        alive = following
    return failed


@pytest.mark.parametrize("agent", ["benign", "greedy"])
@pytest.mark.parametrize(
    ("bound", "prior"),
    [("ratio", "uniform"), ("ratio", "skewed"), ("plausible-least", "uniform"), ("plausible-least", "skewed")],
)
def test_promised_rows_are_exact(table, bound, prior, agent):
    rows = table(classes=("enumerated",), bounds=("ratio", "plausible-least", "predictive", "mle"))
    wanted = (bound, prior, agent, "bound at all times")
    (row,) = [row for row in rows if (row["bound"], row["prior"], row["agent"], row["case"]) == wanted]
    golden = failure_probabilities(bound, prior, agent)
    assert row["method"] == "exact"
    assert row["failure_rate"] == pytest.approx(golden.max(), abs=1e-12)
    assert row["failure_low"] == row["failure_rate"] == row["failure_high"]
    assert 0 < golden.max() <= DELTA
    assert row["verdict"] == "holds"


@pytest.mark.parametrize("bound", ["predictive", "mle"])
def test_rows_without_a_promise_are_exact_too(table, bound):
    rows = table(classes=("enumerated",), bounds=("ratio", "plausible-least", "predictive", "mle"))
    (row,) = [row for row in rows if (row["bound"], row["agent"]) == (bound, "benign")]
    golden = failure_probabilities(bound, "uniform", "benign")
    assert row["failure_rate"] == pytest.approx(golden.max(), abs=1e-12)
    assert row["verdict"] == "fails as expected"


def test_broken_assumptions_fail_exactly(table):
    rows = table(classes=("enumerated",), bounds=("ratio", "plausible-least", "predictive", "mle"))
    broken = {row["case"]: row for row in rows if row["case"] in ("double counting", "selective reporting")}
    assert len(broken) == 2
    for row in broken.values():
        assert row["failure_rate"] > DELTA
        assert row["guarantee"] == "none"
        assert row["verdict"] == "fails as expected"


def test_every_bound_with_a_theorem_holds_exactly_for_every_agent(table):
    rows = table(classes=("enumerated",), bounds=("ratio", "plausible-least", "predictive", "mle"))
    held = [row for row in rows if row["guarantee"] == "theorem"]
    assert len(held) == 2 * 2 * 3
    assert all(row["failure_rate"] <= DELTA and row["verdict"] == "holds" for row in held)
