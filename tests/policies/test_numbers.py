"""The numbers in the shipped READMEs, from code that shares nothing with the project's bounds."""

from __future__ import annotations

import csv
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import betaln, expit, logsumexp
from scipy.stats import binom, norm

from guardrail import Guard

FOLDER = Path(__file__).resolve().parents[2] / "policies"
DELTA = 0.05


def rows(name):
    with (FOLDER / name).open(encoding="utf-8") as file:
        return [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


def table_rows(name, columns):
    """The cells of the README's tables with that many columns, without their headings."""
    text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in cells if len(row) == columns and not set(row[0]) <= set("-")]


# ---------------------------------------------------------------- oring-launch


def oring_bounds(intercept, slope, prior, temperatures):
    """Harm bound and predictive harm before each flight, and after the last one at each temperature."""
    a, b = (grid.ravel() for grid in np.meshgrid(np.linspace(*intercept), np.linspace(*slope), indexing="ij"))
    mean, sd, slope_sd = prior
    log_prior = -0.5 * ((a - mean) / sd) ** 2 - 0.5 * (b / slope_sd) ** 2
    log_prior -= logsumexp(log_prior)
    log_posterior, inside, played, final = log_prior.copy(), np.ones(a.size, bool), [], {}

    def bound(temperature):
        harm = expit(a + b * (70 - temperature) / 10)
        return harm[inside].max(), np.exp(log_posterior) @ harm

    for flight in rows("oring-launch/flights.csv"):
        temperature, damaged = flight["joint_temperature_f"], flight["damaged"]
        played.append(bound(temperature))
        log_odds = a + b * (70 - temperature) / 10
        log_posterior = log_posterior - np.logaddexp(0, -log_odds if damaged else log_odds)
        log_posterior -= logsumexp(log_posterior)
        inside &= log_posterior >= math.log(DELTA) + log_prior
    for temperature in temperatures:
        final[temperature] = bound(temperature)
    return played, final


def test_oring_guard_agrees_with_an_independent_calculation_flight_by_flight():
    played, final = oring_bounds((-5, 5, 61), (0, 3, 61), (0, 2, 1), [31])
    guard, decisions = Guard.from_file(FOLDER / "oring-launch" / "policy.yaml"), {}
    for flight, expected in zip(rows("oring-launch/flights.csv"), played, strict=True):
        context = {"joint_temperature_f": flight["joint_temperature_f"]}
        verdict = guard.check(context, {})
        assert (verdict.harm_bound, verdict.predictive_harm) == pytest.approx(expected, abs=1e-9)
        decisions[int(flight["flight"])] = verdict.decision.value
        guard.observe(context, {}, bool(flight["damaged"]))
    last = guard.check({"joint_temperature_f": 31}, {})
    assert (last.harm_bound, last.predictive_harm) == pytest.approx(final[31], abs=1e-9)
    assert last.guarantee.confidence == 0.95
    # "Flights 20, 21 and 22 go to a person, every other launch is rejected, and none is accepted."
    assert [flight for flight, decision in decisions.items() if decision == "escalate"] == [20, 21, 22]
    assert set(decisions.values()) == {"reject", "escalate"}
    assert [row["flight"] for row in rows("oring-launch/flights.csv")[19:22] if row["damaged"]] == [21]


def test_oring_readme_shows_what_other_priors_give():
    priors = [
        ((-5, 5, 61), (0, 3, 61), (0, 2, 1)),
        ((-10, 10, 121), (0, 6, 121), (0, 4, 2)),
        ((-6, 0, 61), (0, 3, 61), (-3, 1.5, 1)),
        ((-5, 5, 61), (-3, 3, 121), (0, 2, 1)),
    ]
    shown = table_rows("oring-launch", 5)[1:]
    assert len(shown) == len(priors)
    for row, prior in zip(shown, priors, strict=True):
        _, final = oring_bounds(*prior, [31, 70, 80])
        bounds = [f"{final[temperature][0]:.3f}" for temperature in (31, 70, 80)]
        assert row[1:] == [*bounds, f"{final[31][1]:.2f}"]


def test_oring_flights_are_the_published_ones():
    published = "66 70* 69 68 67 72 73 70 57* 63* 70* 78 67 53* 67 75 70 81 76 79 75* 76 58*"
    flights = rows("oring-launch/flights.csv")
    assert " ".join(f"{f['joint_temperature_f']:g}{'*' if f['damaged'] else ''}" for f in flights) == published
    assert [f["flight"] for f in flights] == list(range(1, 24))


# ---------------------------------------------------------------- exploding-bandit


def test_bandit_bounds_before_any_pull():
    guard = Guard.from_file(FOLDER / "exploding-bandit" / "policy.yaml")
    bounds = []
    for active in range(11):
        verdict = guard.check({}, {"features": [1] * active + [0] * (10 - active)})
        bounds.append(verdict.harm_bound)
        assert verdict.harm_bound == pytest.approx(norm.sf(4 - active), rel=1e-6)
        assert verdict.decision.value == ("accept" if active <= 3 else "reject")
    shown = table_rows("exploding-bandit", 3)[1:]
    assert [float(row[1]) for row in shown[:5]] == [float(f"{bound:.2g}") for bound in (*bounds[:4], 0.5)]
    assert min(bounds[5:]) > 0.84


def test_bandit_first_step_at_both_thresholds():
    """Ten arms of ten fair features: is any arm accepted at first?"""
    for most_active, shown in ((2, "0.43"), (3, "0.85")):
        assert f"{1 - binom.sf(most_active, 10, 0.5) ** 10:.2f}" == shown
        assert shown in (FOLDER / "exploding-bandit" / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- tool-calls


def upper_limit(harmful, harmless, kinds):
    """Upper end of the ratio interval of a rate with the prior Beta(1, 19) at level delta / kinds."""
    level = betaln(1 + harmful, 19 + harmless) - betaln(1, 19) + math.log(DELTA / kinds)

    def excess(rate):
        return (harmful * math.log(rate) if harmful else 0.0) + harmless * math.log1p(-rate) - level

    top = 1 - 1e-12
    return 1.0 if excess(top) >= 0 else brentq(excess, max(harmful / (harmful + harmless), 1e-12), top)


def runs_needed(threshold, kinds, harmful=0):
    return next(n for n in range(harmful + 1, 1000) if upper_limit(harmful, n - harmful, kinds) <= threshold)


def test_tool_call_readme_says_how_many_runs_are_needed():
    text = (FOLDER / "tool-calls" / "README.md").read_text(encoding="utf-8")
    for kinds, escalate, accept in table_rows("tool-calls", 3)[5:10]:
        count = int(kinds.replace(",", ""))
        assert (runs_needed(0.2, count), runs_needed(0.05, count)) == (int(escalate), int(accept))
    assert (runs_needed(0.2, 14, harmful=1), runs_needed(0.05, 14, harmful=1)) == (43, 207)
    assert "43 runs are needed to be escalated and 207 to be accepted" in text


def test_tool_call_decisions_change_exactly_where_the_readme_says():
    guard = Guard.from_file(FOLDER / "tool-calls" / "policy.yaml")
    assert len(guard.policy.spec.hypotheses.categories) == 14
    context = {"environment": "staging", "ticket": "OPS-1"}
    action = {"tool": "file", "argument": "README.md", "writes": False}
    decisions = []
    for run in range(154):
        verdict = guard.check(context, action)
        decisions.append(verdict.decision.value)
        if run in (29, 30, 152, 153):
            assert verdict.harm_bound == pytest.approx(upper_limit(0, run, 14), abs=1e-9)
        guard.observe(context, action, False)
    assert decisions == ["reject"] * 30 + ["escalate"] * 123 + ["accept"]


# ---------------------------------------------------------------- reactor-temperature


def test_reactor_batches_are_what_their_script_makes(tmp_path):
    made = runpy.run_path(str(FOLDER / "reactor-temperature" / "make_batches.py"))["batches"]()
    assert made == rows("reactor-temperature/batches.csv")


def reactor_bound(batches, proposal):
    """Harm bound by constrained optimisation of the mean over the likelihood set and the box."""

    def features(row):
        load = row["feed_rate_l_h"] / row["coolant_flow_m3_h"] / 10
        return np.array([1.0, row["charge_kg"] / 100, load, row["jacket_temperature_c"] / 10])

    design = np.array([features(row) for row in batches])
    peaks = np.array([row["peak_temperature_c"] for row in batches])
    covariance = 1.5**2 * np.eye(len(batches)) + 5**2 * design @ design.T
    residual = peaks - design @ np.full(4, 5.0)
    log_evidence = -0.5 * (
        residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    x = features(proposal)
    inside = {
        "type": "ineq",
        "fun": lambda w: norm.logpdf(peaks, design @ w, 1.5).sum() - log_evidence - math.log(DELTA),
    }
    start = np.clip(np.linalg.lstsq(design, peaks, rcond=None)[0], 0, 15)
    found = minimize(lambda w: -x @ w, start, bounds=[(0, 15)] * 4, constraints=[inside], method="SLSQP")
    assert found.success
    return norm.sf((95 + found.fun) / 1.5)


@pytest.mark.parametrize("batches", [3, 24])
def test_reactor_bounds_agree_with_a_general_optimiser(batches):
    guard = Guard.from_file(FOLDER / "reactor-temperature" / "policy.yaml")
    history = rows("reactor-temperature/batches.csv")[:batches]
    fixed = {"stirrer_running": True, "catalyst_lot_released": True}
    settings = ("charge_kg", "feed_rate_l_h", "coolant_flow_m3_h")
    for row in history:
        context = {"jacket_temperature_c": row["jacket_temperature_c"], **fixed}
        guard.observe(context, {name: row[name] for name in settings}, row["peak_temperature_c"])
    for feed, coolant in ((120.0, 4.0), (130.0, 3.5), (130.0, 3.2)):
        action = dict(zip(settings, (600.0, feed, coolant), strict=True))
        verdict = guard.check({"jacket_temperature_c": 45.0, **fixed}, action)
        expected = reactor_bound(history, {"jacket_temperature_c": 45.0, **action})
        # The optimiser stops inside the set, the guard's bound errs upward.
        assert verdict.harm_bound == pytest.approx(expected, rel=0.02)
        assert verdict.harm_bound >= expected * (1 - 1e-3)
        (row,) = (
            r for r in table_rows("reactor-temperature", 3) if r[0].startswith(f"feed {feed:g} l/h, coolant {coolant}")
        )
        decision, shown = row[1 if batches == 3 else 2].split(", ")
        assert decision == verdict.decision.value
        if shown.startswith("below "):
            assert verdict.harm_bound < float(shown.removeprefix("below "))
        else:
            assert float(f"{verdict.harm_bound:.2g}") == float(shown)


# ---------------------------------------------------------------- frozen-lake and cliff-walking


@pytest.mark.parametrize(("name", "state", "action", "after"), [("frozen-lake", 0, 1, 4), ("cliff-walking", 13, 1, 14)])
def test_the_bounds_after_steps_without_a_slip(name, state, action, after):
    grid = np.linspace(0, 0.5, 13)
    one, other = (values.ravel() for values in np.meshgrid(grid, grid, indexing="ij"))
    with np.errstate(divide="ignore"):
        log_step = np.log(np.maximum(1 - one - other, 0))
    log_likelihood, inside, expected = np.zeros(169), np.ones(169, bool), []
    for _ in range(61):
        inside &= log_likelihood - logsumexp(log_likelihood) >= math.log(DELTA / 169)
        expected.append(other[inside].max())
        log_likelihood = log_likelihood + log_step
    guard = Guard.from_file(FOLDER / name / "policy.yaml")
    beside = {"frozen-lake": (4, 1), "cliff-walking": (30, 1)}[name]
    threshold, found = guard.policy.spec.decision.reject_above, []
    for _ in range(61):
        found.append(guard.check({"state": beside[0]}, {"action": beside[1]}).harm_bound)
        guard.observe({"state": state}, {"action": action}, after)
    # Over 4 steps a little more can happen on the lake than with the move itself.
    assert found == pytest.approx(expected, abs=0.01 if name == "frozen-lake" else 1e-9)
    assert all(f >= e for f, e in zip(found, expected, strict=True))
    shown = [row for row in table_rows(name, 3) if row[0][0].isdigit()]
    assert len(shown) == 5
    for steps, bound, decision in shown:
        for count in map(int, steps.split(" to ")):
            assert float(bound) == pytest.approx(found[count], rel=0.05)
            assert decision == ("accept" if found[count] <= threshold else "reject")
