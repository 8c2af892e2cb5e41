"""The bounds against tests/golden/finite.json, computed by independent code: to 1e-9, sets equal.

The JAX code is called twice: plainly for one class of each kind, and once for all classes and all
moments together, padded to one size with refuted hypotheses of prior 0.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from guardrail import bounds
from guardrail.testing import reference

CASES = json.loads((Path(__file__).parent / "finite.json").read_text())["cases"]
STEPS = [(case, step) for case in CASES for step in case["steps"]]
ALPHAS = list(CASES[0]["steps"][0]["plausible"])
DELTAS = list(CASES[0]["steps"][0]["ratio"])
ONE_OF_EACH_KIND = list({case["kind"]: case for case in CASES}.values())


def close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=1e-9)


def close_rows(actual, expected):
    """Compare row by row, leaving out the padded actions."""
    for row, right in zip(np.asarray(actual), expected, strict=True):
        close(row[: len(right)], right)


def same_members(mask, expected):
    assert np.flatnonzero(np.asarray(mask)).tolist() == expected["members"]
    assert int(np.asarray(mask).sum()) == expected["size"]


def log_likelihood(case, t):
    """float64[H]: log likelihood of the first t outcomes."""
    rates, outcomes = np.array(case["rates"]), np.array(case["outcomes"][:t], float)
    return outcomes.sum() * np.log(rates) + (1 - outcomes).sum() * np.log1p(-rates)


def check_against(implementation, case):
    """Check every number of a case against `implementation`, a namespace of plainly called functions."""
    log_prior, harm = np.log(case["prior"]), np.array(case["harm"])
    so_far = {delta: np.ones(len(log_prior), bool) for delta in DELTAS}
    for step in case["steps"]:
        log_posterior = np.array(step["log_posterior"])
        close(implementation.predictive(log_posterior, harm), step["posterior_predictive"])
        close(implementation.iid(log_posterior, harm), step["iid_cautious"])
        for alpha in ALPHAS:
            expected = step["plausible"][alpha]
            same_members(implementation.plausible_set(log_posterior, float(alpha)), expected)
            close(implementation.plausible(log_posterior, harm, float(alpha)), expected["bound"])
        for delta in DELTAS:
            expected = step["ratio"][delta]
            now = implementation.ratio_set(log_posterior, log_prior, float(delta))
            same_members(now, expected)
            close(implementation.ratio(log_posterior, log_prior, harm, float(delta)), expected["bound"])
            so_far[delta] = so_far[delta] & np.asarray(now)
            same_members(so_far[delta], step["ratio_running"][delta])
            close(implementation.set_bound(so_far[delta], harm), step["ratio_running"][delta]["bound"])


def test_the_file_is_what_these_tests_suppose():
    assert len(CASES) == 24
    assert {case["kind"] for case in CASES} == {"uniform", "skewed", "geometric"}
    assert {float(alpha) for alpha in ALPHAS} >= {0.0, 1.0}
    assert any(step["plausible"]["1.0"]["size"] > 1 for _, step in STEPS), "no case has a tie"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{len(case['prior'])}")
def test_the_reference_reproduces_every_number(case):
    check_against(reference, case)


@pytest.mark.parametrize("case", ONE_OF_EACH_KIND, ids=lambda case: case["kind"])
def test_plain_calls_reproduce_every_number(case):
    check_against(bounds, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{len(case['prior'])}")
def test_log_posterior_follows_from_prior_rates_and_outcomes(case):
    for step in case["steps"]:
        close(reference.posterior(np.log(case["prior"]), log_likelihood(case, step["t"])), step["log_posterior"])


@pytest.fixture(scope="module")
def padded():
    """(log_posterior[N, H], log_prior[N, H], harm[N, H, A]) of all N moments, posteriors recomputed."""
    shape = np.array([np.shape(case["harm"]) for case in CASES]).max(axis=0)

    def pad(values, fill):
        values = np.asarray(values, float)
        missing = shape[: values.ndim] - values.shape
        return np.pad(values, [(0, n) for n in missing], constant_values=fill)

    log_posterior = [reference.posterior(np.log(c["prior"]), log_likelihood(c, s["t"])) for c, s in STEPS]
    return (
        np.stack([pad(row, -np.inf) for row in log_posterior]),
        np.stack([pad(np.log(c["prior"]), -np.inf) for c, _ in STEPS]),
        np.stack([pad(c["harm"], 0.0) for c, _ in STEPS]),
    )


def test_one_batched_call_reproduces_predictive_and_iid(padded):
    log_posterior, _, harm = padded
    close_rows(jax.vmap(bounds.predictive)(log_posterior, harm), [s["posterior_predictive"] for _, s in STEPS])
    close_rows(jax.vmap(bounds.iid)(log_posterior, harm), [s["iid_cautious"] for _, s in STEPS])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_batched_call_reproduces_the_plausible_set(padded, alpha):
    log_posterior, _, harm = padded
    alphas = np.full(len(STEPS), float(alpha))
    sets = np.asarray(jax.vmap(bounds.plausible_set)(log_posterior, alphas))
    for members, (case, step) in zip(sets, STEPS, strict=True):
        same_members(members[: len(case["prior"])], step["plausible"][alpha])
    close_rows(
        jax.vmap(bounds.plausible)(log_posterior, harm, alphas), [s["plausible"][alpha]["bound"] for _, s in STEPS]
    )


@pytest.mark.parametrize("delta", DELTAS)
def test_one_batched_call_reproduces_the_ratio_set_and_its_running_intersection(padded, delta):
    log_posterior, log_prior, harm = padded
    deltas = np.full(len(STEPS), float(delta))
    sets = np.asarray(jax.vmap(bounds.ratio_set)(log_posterior, log_prior, deltas))
    so_far = sets
    for members, (case, step) in zip(sets, STEPS, strict=True):
        so_far = members if step["t"] == 0 else np.asarray(bounds.intersect(so_far, members))
        same_members(members[: len(case["prior"])], step["ratio"][delta])
        same_members(so_far[: len(case["prior"])], step["ratio_running"][delta])
    bound = jax.vmap(bounds.ratio)(log_posterior, log_prior, harm, deltas)
    close_rows(bound, [s["ratio"][delta]["bound"] for _, s in STEPS])
