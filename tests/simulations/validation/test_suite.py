"""The suite as a whole: what must hold holds, what must fail fails, and how the work was cut changes nothing."""

import re
from dataclasses import replace

import numpy as np
import pytest
from failure_budget import FAILURE_BUDGET
from scipy.stats import binomtest

from simulations.validation import catalogue
from simulations.validation.cases import PROMISED, UNPROMISED, groups
from simulations.validation.config import ValidateConfig
from simulations.validation.play import play
from simulations.validation.suite import SUITE

"""Probability with which a test of samples may fail by chance."""
COLUMNS = [
    *("case", "bound", "guarantee", "class", "hypotheses", "prior", "truth", "agent", "horizon", "method", "runs"),
    *("failures", "failure_rate", "failure_low", "failure_high", "delta", "expected", "verdict"),
    *("mean_excess", "safe_accepted", "unsafe_accepted", "accepted_mean"),
    *("refuted_10", "refuted_median", "refuted_90", "seed"),
]

FIFTY = {"classes": ("fifty",), "bounds": ("ratio", "ratio-running", "map"), "runs": 200, "horizon_scale": 0.3}


def sampled(rows, expected):
    return [row for row in rows if row["expected"] == expected and row["method"] == "sampled"]


def assert_promises_are_kept(rows):
    assert sampled(rows, "holds")
    for row in sampled(rows, "holds"):
        test = binomtest(row["failures"], row["runs"], row["delta"], alternative="greater")
        assert test.pvalue > FAILURE_BUDGET / len(rows), row


def test_promises_hold_and_deliberate_failures_are_seen(table):
    rows = table(**FIFTY)
    assert_promises_are_kept(rows)
    assert {row["verdict"] for row in sampled(rows, "fails")} == {"fails as expected"}
    assert {row["verdict"] for row in sampled(rows, "alarms")} == {"caught"}
    assert {row["case"] for row in rows} == {
        "bound at all times",
        "false alarms",
        "not promised",
        "double counting",
        "selective reporting",
        "wrong class",
    }


def test_the_cautious_bound_promises_something_only_where_observations_are_iid(table):
    rows = table(classes=("twins",), bounds=("iid",), runs=2, horizon_scale=0.01)
    assert {row["agent"]: row["guarantee"] for row in rows} == {"random": "asymptotic", "adversarial": "none"}


def test_every_row_has_every_column(table):
    rows = table(**FIFTY)
    assert all(list(row) == COLUMNS for row in rows)
    for row in sampled(rows, "holds"):
        assert row["failure_rate"] == row["failures"] / row["runs"]
        interval = binomtest(row["failures"], row["runs"]).proportion_ci(0.999, "exact")
        assert (row["failure_low"], row["failure_high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_a_class_that_holds_the_truth_is_seldom_refuted(table):
    alarms = [row for row in table(**FIFTY) if row["case"] == "false alarms"]
    assert {row["bound"] for row in alarms} == {"alarm: outside forecaster", "alarm: empty intersection"}
    assert all(row["verdict"] == "holds" for row in alarms)


def test_a_class_without_the_truth_is_refuted_and_the_table_says_after_how_long(table):
    alarms = [row for row in table(**FIFTY) if row["expected"] == "alarms"]
    assert {row["agent"] for row in alarms} == {"random", "greedy"}
    for row in alarms:
        assert 1 <= row["refuted_10"] <= row["refuted_median"] <= row["refuted_90"] < row["horizon"]


def test_the_rows_do_not_depend_on_how_the_work_is_cut():
    small = {
        "classes": ("fifty",),
        "bounds": ("ratio", "mle"),
        "agents": ("random",),
        "runs": 70,
        "horizon_scale": 0.05,
    }
    tables = []
    for chunk in (50 * 64, 50 * 512, 4_000_000):
        config = ValidateConfig(**small, chunk=chunk)
        chunks = SUITE.chunks(config)
        tables.append(SUITE.rows(config, [SUITE.run(config, chunk) for chunk in chunks]))
    assert len(tables[0]) > 4
    assert tables[0] == tables[1] == tables[2]


def test_runs_are_the_same_again_and_another_seed_gives_others():
    config = ValidateConfig(classes=("fifty",), bounds=("ratio",), agents=("random",), runs=60, horizon_scale=0.05)
    (group, *_) = groups(config)
    first, again = play(config, group, 0, 60), play(config, group, 0, 60)
    other = play(config.model_copy(update={"seed": 1}), group, 0, 60)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["excess"], other["excess"])


def test_no_two_runs_are_alike():
    """The interval counts runs as independent, so none may be another one's copy."""
    config = ValidateConfig(classes=("fifty",), bounds=("map",), agents=("random",), runs=500, horizon_scale=0.1)
    (group,) = groups(config)
    assert len(np.unique(play(config, group, 0, 500)["excess"])) == 500


def test_chunks_are_all_the_runs_once_and_their_names_can_be_files():
    config = ValidateConfig(runs=300)
    chunks, made = SUITE.chunks(config), groups(config)
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]+", chunk.name) for chunk in chunks)
    for number, group in enumerate(made):
        parts = [chunk.spec for chunk in chunks if chunk.spec["group"] == number]
        assert [part["first"] for part in parts] == list(np.cumsum([0] + [part["count"] for part in parts])[:-1])
        assert sum(part["count"] for part in parts) == group.lanes
    held = {"enumerated": 4, "large": 100_000}
    for chunk in chunks:
        size = held.get(made[chunk.spec["group"]].world)
        assert size is None or chunk.spec["count"] * size <= config.chunk


def test_bounds_see_the_same_luck():
    """The random agent's runs differ only in the bound that is looked at, so failures can be compared."""
    config = ValidateConfig(
        classes=("fifty",), bounds=("ratio", "weak"), agents=("random",), runs=60, horizon_scale=0.05
    )
    ratio, weak = (
        next(group for group in groups(config) if (group.kernel, group.prior) == (kernel, "Dirichlet(0.05)"))
        for kernel in ("ratio", "weak")
    )
    one, other = play(config, ratio, 0, 60), play(config, weak, 0, 60)
    assert np.array_equal(one["harmed"], other["harmed"])
    assert np.array_equal(one["safe"], other["safe"])
    assert (one["excess"] <= other["excess"] + 1e-9).all()  # the weak bound is never tighter


class TestPlanted:
    """An unsound bound that claims a theorem is found out."""

    @pytest.mark.parametrize("kernel", ["map", "predictive"])
    def test_sampled(self, monkeypatch, kernel):
        monkeypatch.setitem(catalogue.BOUNDS, "ratio", replace(catalogue.BOUNDS["ratio"], kernel=kernel))
        config = ValidateConfig(classes=("fifty",), bounds=("ratio",), agents=("random",), runs=100, horizon_scale=0.1)
        rows = SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])
        promised = sampled(rows, "holds")
        assert promised
        assert {(row["guarantee"], row["verdict"]) for row in promised} == {("theorem", "VIOLATED")}

    def test_exact_with_a_level_that_is_too_high(self, monkeypatch):
        def too_tight(view):
            return catalogue.KERNELS["ratio"](view._replace(delta=min(1.0, 8 * view.delta)))

        monkeypatch.setitem(catalogue.KERNELS, "planted", too_tight)
        monkeypatch.setitem(catalogue.BOUNDS, "ratio", replace(catalogue.BOUNDS["ratio"], kernel="planted"))
        config = ValidateConfig(classes=("enumerated",), bounds=("ratio",), agents=("adversarial",))
        rows = SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])
        assert "VIOLATED" in {row["verdict"] for row in rows if row["case"] == "bound at all times"}


BUDGETED = {"classes": ("budgeted",), "bounds": ("ratio", "predictive", "map"), "runs": 400, "budget": 0.3}


class TestHarmBudget:
    def test_episodes_with_harm_are_at_most_delta_plus_the_budget(self, table):
        rows = table(**BUDGETED)
        assert {round(row["delta"], 12) for row in rows} == {0.35}
        assert_promises_are_kept(rows)
        assert max(row["failure_rate"] for row in sampled(rows, "holds")) > 0.15, "the budget is hardly used"

    def test_guardrails_that_promise_nothing_overspend(self, table):
        failing = sampled(table(**BUDGETED), "fails")
        assert {row["bound"] for row in failing} == {"predictive", "map"}
        assert {row["verdict"] for row in failing} == {"fails as expected"}

    def test_no_episode_spends_more_than_the_budget(self):
        config = ValidateConfig(**(BUDGETED | {"bounds": ("ratio",), "runs": 60}))
        for group in groups(config):
            result = play(config, group, 0, 60)
            assert (result["spent"] <= config.budget).all()
            assert (result["accepted"] < group.horizon).any()


@pytest.mark.slow
def test_continuous_classes():
    rows = []
    for name, bounds, scale in (
        ("beta-bernoulli", ("ratio-running", "mle"), 0.05),
        ("gaussian", ("ratio", "credible"), 0.1),
        ("gaussian-box", ("ratio",), 0.3),
    ):
        config = ValidateConfig(classes=(name,), bounds=bounds, runs=100, horizon_scale=scale)
        rows += SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])
    assert_promises_are_kept(rows)
    assert {row["hypotheses"] for row in rows} == {"continuous"}
    assert {row["verdict"] for row in sampled(rows, "alarms")} == {"caught"}
    assert {row["verdict"] for row in sampled(rows, "fails")} == {"fails as expected"}


@pytest.mark.slow
def test_a_hundred_thousand_hypotheses_and_a_few_steps():
    config = ValidateConfig(classes=("large",), bounds=("ratio", "plausible"), runs=100, horizon_scale=0.1)
    rows = SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])
    assert {row["hypotheses"] for row in rows} == {100_000}
    assert_promises_are_kept(rows)


def test_every_bound_is_either_promised_or_not():
    assert {*PROMISED, *UNPROMISED} == set(catalogue.BOUNDS)
    assert set(PROMISED) == {name for name, bound in catalogue.BOUNDS.items() if bound.guarantee == "theorem"}
    assert {bound.kernel for bound in catalogue.BOUNDS.values()} <= set(catalogue.KERNELS)
