import itertools

import jax
import numpy as np
import pytest
from failure_budget import FAILURE_BUDGET
from pydantic import ValidationError
from scipy.stats import binomtest, norm

from guardrail.testing import reference
from simulations.iid import engine
from simulations.iid.config import IidConfig
from simulations.iid.problems import CASES, CLASSES, build
from simulations.iid.suite import SUITE


def run(config):
    return SUITE.rows(config, [SUITE.run(config, chunk) for chunk in SUITE.chunks(config)])


def problem(*arguments):
    with jax.enable_x64(True):
        return build(*arguments)


def test_every_sequence_of_outcomes_gives_the_probabilities_that_the_runs_show():
    """All 2^9 sequences of a Bernoulli class, every bound by the NumPy reference, at every n."""
    steps, runs, separation = 9, 3000, 1.0
    rates = np.array([0.3 + 0.08 * step for step in range(-3, 4)])
    log_prior = np.full(7, -np.log(7))
    held, last = np.zeros((4, steps + 1)), np.zeros((4, steps + 2))
    for sequence in itertools.product((0, 1), repeat=steps):
        probability = 0.3 ** sum(sequence) * 0.7 ** (steps - sum(sequence))
        violated = np.full(4, -1)
        for n in range(steps + 1):
            ones = sum(sequence[:n])
            weight = log_prior + ones * np.log(rates) + (n - ones) * np.log(1 - rates)
            log_posterior = weight - np.logaddexp.reduce(weight)
            found = [
                reference.iid(log_posterior, rates[:, None])[0],
                reference.predictive(log_posterior, rates[:, None])[0],
                reference.plausible(log_posterior, rates[:, None], 0.05 / 7)[0],
                reference.ratio(log_posterior, log_prior, rates[:, None], 0.05)[0],
            ]
            holds = np.array(found) >= 0.3 - 1e-9
            held[:, n] += probability * holds
            violated = np.where(holds, violated, n)
        last[np.arange(4), violated + 1] += probability
    with jax.enable_x64(True):
        simulated = engine.simulate(
            build("bernoulli", "distinct", separation), 5, 0, runs, tuple(range(steps + 1)), 0.05
        )
    for b in range(4):
        for n in range(steps + 1):
            count = int(np.asarray(simulated.held)[:, b, n].sum())
            assert binomtest(count, runs, min(held[b, n], 1.0)).pvalue > FAILURE_BUDGET / 80, (b, n)
        for when in range(-1, steps + 1):
            count = int((np.asarray(simulated.last)[:, b] == when).sum())
            assert binomtest(count, runs, min(last[b, when + 1], 1.0)).pvalue > FAILURE_BUDGET / 80, (b, when)
    assert 0.1 < held[0].min() < 0.9, "the i.i.d. bound is never put to the test"


@pytest.mark.parametrize("case", CASES)
def test_divergences_are_those_of_the_distributions(case):
    separation = 0.7
    shift = {"outside-worse": 0.4, "outside-milder": -0.4}.get(case, 0.0)
    rates = np.array([0.3 + 0.08 * separation * step for step in range(-3, 4)])
    true = 0.3 + 0.08 * separation * shift
    expected = [true * np.log(true / r) + (1 - true) * np.log((1 - true) / (1 - r)) for r in rates]
    assert problem("bernoulli", case, separation).divergence[:7] == pytest.approx(expected)

    grid = np.linspace(-30.0, 30.0, 200_001)
    spacing = 0.8 * separation
    log_true = norm.logpdf(grid, spacing * (3 + shift))
    integrals = [
        np.sum(np.exp(log_true) * (log_true - norm.logpdf(grid, spacing * k))) * (grid[1] - grid[0]) for k in range(7)
    ]
    found = problem("gaussian", case, separation).divergence
    assert found.reshape(7, -1)[:, 0] == pytest.approx(integrals, abs=1e-9)


@pytest.mark.parametrize("name", CLASSES)
def test_observations_come_from_the_truth_and_likelihoods_are_theirs(name):
    """The mean log likelihood ratio of truth and member is the divergence, within the chance of 20,000 draws."""
    with jax.enable_x64(True):
        found = build(name, "distinct", 1.0)
        seen = jax.vmap(found.draw)(jax.random.split(jax.random.key(8), 20_000))
        logs = np.asarray(jax.jit(jax.vmap(found.log_likelihood))(seen))
    ratios = logs[:, [found.same_as_truth.argmax()]] - logs
    error = ratios.std(axis=0) / np.sqrt(20_000)
    # Beyond 5 standard errors with probability below 1e-6 for each of at most 16 members.
    assert (np.abs(ratios.mean(axis=0) - found.divergence) <= 5.0 * error + 1e-12).all()


def test_the_nearest_rival_and_the_nearest_that_can_mislead():
    found = problem("bernoulli", "distinct", 1.0)
    assert found.nearest == pytest.approx(found.divergence[4])
    assert found.nearest_less_harmful == pytest.approx(found.divergence[2])
    outside = problem("bernoulli", "outside-worse", 1.0)
    assert outside.divergence.argmin() == 3
    assert outside.harm[3, 0] < outside.true_harm[0]
    milder = problem("lattice", "outside-milder", 1.0)
    assert (milder.harm[milder.divergence.argmin()] >= milder.true_harm - 1e-9).all()


@pytest.fixture(scope="module")
def table():
    config = IidConfig(separations=(1.0,), runs=150, horizon=1000, seed=3)
    return {(row["class"], row["case"], row["bound"]): row for row in run(config)}


def test_the_cautious_bound_comes_to_hold_in_the_class_and_fails_for_good_outside_it(table):
    for name in ("bernoulli", "gaussian", "lattice"):
        inside = table[name, "distinct", "iid"]
        assert inside["ever_violated"] > 0.05
        assert inside["held_at_1000"] > 0.97
        assert inside["held_at_1000"] >= inside["held_at_10"]
        assert inside["truth_mass_at_1000"] > 0.9
        assert table[name, "outside-worse", "iid"]["held_at_1000"] < 0.5
        assert table[name, "outside-milder", "iid"]["held_at_1000"] > 0.65


def test_theorem_bounds_fail_no_more_often_than_promised_where_the_truth_is_a_member(table):
    for name, case, bound in itertools.product(CLASSES, ("distinct", "duplicate"), ("plausible", "ratio")):
        row = table[name, case, bound]
        assert row["guarantee"] == "theorem"
        failures = round(row["ever_violated"] * row["runs"])
        assert binomtest(failures, row["runs"], row["delta"], alternative="greater").pvalue > FAILURE_BUDGET


def test_a_truth_outside_the_class_is_promised_nothing(table):
    for (_, case, bound), row in table.items():
        if case.startswith("outside"):
            assert row["guarantee"] == "none"
            assert row["delta"] == (0.05 if bound in ("plausible", "ratio") else None)
        elif bound == "iid":
            assert row["guarantee"] == ("asymptotic" if case == "distinct" else "none")


def test_members_that_no_observation_tells_apart_do_not_mislead_the_cautious_bound(table):
    """Ties in the argmax take the largest harm, also of what differs only where nothing is ever seen."""
    assert table["lattice", "duplicate", "iid"]["held_at_1000"] > 0.97
    assert table["lattice", "duplicate", "iid"]["excess_at_end"] > table["lattice", "distinct", "iid"]["excess_at_end"]


@pytest.mark.slow
def test_chunks_do_not_change_the_table():
    config = IidConfig(separations=(0.5,), classes=("bernoulli", "lattice"), runs=20, horizon=30)
    for row, other in zip(run(config), run(config.model_copy(update={"chunk": 7})), strict=True):
        for name, value in row.items():
            # Compiled for another number of runs, a sum may differ in its last digit.
            expected = pytest.approx(other[name], rel=1e-12) if isinstance(value, float) else other[name]
            assert value == expected, name


def test_pictures_are_drawn_from_the_table():
    config = IidConfig(separations=(1.0, 0.5), runs=4, horizon=10, classes=("gaussian",))
    pictures = SUITE.pictures(config, run(config))
    assert list(pictures) == ["iid.png", "iid-held.png", "iid-mass.png"]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())


@pytest.mark.parametrize("case", ["duplicate", "outside-milder"])
def test_pictures_are_drawn_where_no_truth_has_a_rival(case):
    """The picture of the last violation is of distinct members only, and needs a rival that can mislead."""
    for changes in ({"cases": (case,), "separations": (1.0,)}, {"separations": (1e-9,)}):
        config = IidConfig(runs=2, horizon=10, classes=("gaussian",), **changes)
        assert SUITE.pictures(config, run(config))["iid.png"].startswith(b"\x89PNG")


def test_separations_that_are_nearly_alike_are_chunks_of_their_own():
    config = IidConfig(separations=(0.5, 0.5 + 1e-9))
    names = [chunk.name for chunk in SUITE.chunks(config)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "changes",
    [
        {"separations": (0.0,)},
        {"separations": ()},
        {"classes": ("poisson",)},
        {"runs": 0},
        {"horizon": 5},
        {"delta": 0},
    ],
)
def test_impossible_parameters_are_refused(changes):
    with pytest.raises(ValidationError):
        IidConfig(**changes)
