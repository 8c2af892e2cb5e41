"""The enumerated oracle against the slow reference, golden vectors, and itself cut in other ways."""

import itertools
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from guardrail.domain import NO_GUARANTEE, BooleanHarm, GuaranteeKind, IntervalHarm, ReasonCode
from guardrail.errors import InvalidInput, SnapshotInvalid
from guardrail.hypotheses.bernoulli_logistic import BernoulliLogisticFamily
from guardrail.hypotheses.finite_table import FiniteTableFamily
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.oracles.build import build_oracle
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.schema import (
    CoefficientGrid,
    FiniteTable,
    IidBound,
    LinearGaussianLattice,
    PlausibleBound,
    PredictiveBound,
    RatioBound,
    TableHypothesis,
)
from guardrail.testing import reference

DAMAGE, ABOVE = BooleanHarm(harmful=True), IntervalHarm(3.0, math.inf, inside=True)
RATIO, RUNNING = RatioBound(kind="ratio", delta=0.05), RatioBound(kind="ratio", delta=0.05, running=True)
PLAUSIBLE = PlausibleBound(kind="plausible", alpha=0.01)
PLAUSIBLE_RUNNING = PlausibleBound(kind="plausible", alpha=0.01, running=True)
IID, PREDICTIVE = IidBound(kind="iid"), PredictiveBound(kind="predictive")
BOUNDS = [RATIO, RUNNING, PLAUSIBLE, PLAUSIBLE_RUNNING, IID, PREDICTIVE]
SD = 0.8


def names(specs):
    return [f"{spec.kind}{' running' if getattr(spec, 'running', False) else ''}" for spec in specs]


each_bound = pytest.mark.parametrize("spec", BOUNDS, ids=names(BOUNDS))


def table(rates, prior=None, category=None, harm=DAMAGE):
    prior = [None] * len(rates) if prior is None else prior
    rows = tuple(
        TableHypothesis(name=f"h{i}", rates=value, prior=mass)
        for i, (value, mass) in enumerate(zip(rates, prior, strict=True))
    )
    return FiniteTableFamily(FiniteTable(family="finite-table", category=category, table=rows), harm)


def lattice(d=3, levels=3, prior=(0.6, 0.3, 0.1), harm=ABOVE):
    return LinearGaussianLatticeFamily(levels, SD, prior, harm, tuple(f"x{i}" for i in range(d)))


def weights(d=3, levels=3):
    return np.array(list(itertools.product(range(levels), repeat=d)), float)


def stream(d=3, n=40, seed=0):
    """Features and outcomes of a lattice of levels 0, 1, 2."""
    random = np.random.default_rng(seed)
    rows = random.random((n, d))
    return rows, rows @ random.integers(0, 3, d) + SD * random.normal(size=n)


def observed(oracle, rows, outcomes):
    return oracle.observe(oracle.init(), rows, outcomes)


def same_arrays(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].tobytes() == right[name].tobytes(), name


def failures(oracle, state, rows):
    found = oracle.bound(state, np.asarray(rows, float))
    for bound in found:
        if bound.failure is not None:
            assert (bound.value, bound.guarantee, bound.cautious) == (1.0, NO_GUARANTEE, None)
    return [bound.failure and bound.failure.code for bound in found]


# ---------------------------------------------------------------- the numbers


def expected_bounds(spec, log_posterior, log_prior, harm, so_far):
    """float64[A], and the running intersection after this moment."""
    if spec.kind == "ratio":
        now = reference.ratio_set(log_posterior, log_prior, spec.delta)
    elif spec.kind == "plausible":
        now = reference.plausible_set(log_posterior, spec.alpha)
    else:
        return getattr(reference, spec.kind)(log_posterior, harm), so_far
    members = now & so_far if spec.running else now
    return reference.set_bound(members, harm), members


@each_bound
def test_bounds_of_a_lattice_are_those_of_the_whole_harm_matrix(spec):
    oracle = EnumeratedOracle(lattice(), spec)
    rows, outcomes = stream()
    actions = np.random.default_rng(5).normal(size=(7, 3)) + 1.0
    harm = stats.norm.sf((3.0 - weights() @ actions.T) / SD)
    log_prior = np.log([math.prod((0.6, 0.3, 0.1)[int(v)] for v in w) for w in weights()])
    state, log_likelihood, so_far = oracle.init(), np.zeros(27), np.ones(27, bool)
    for t in range(len(rows) + 1):
        log_posterior = reference.posterior(log_prior, log_likelihood)
        expected, so_far = expected_bounds(spec, log_posterior, log_prior, harm, so_far)
        found = oracle.bound(state, actions)
        np.testing.assert_allclose([bound.value for bound in found], expected, rtol=1e-9)
        predictive = reference.predictive(log_posterior, harm)
        np.testing.assert_allclose([bound.predictive for bound in found], predictive, rtol=1e-9)
        for action, bound in enumerate(found):
            index = [int(v) for v in bound.cautious.parameters.values()] @ np.array([9, 3, 1])
            assert bound.cautious.harm == pytest.approx(harm[index, action], rel=1e-9)
            assert bound.cautious.log_posterior == pytest.approx(log_posterior[index], abs=1e-9)
            wanted = predictive[action] if spec.kind == "predictive" else bound.cautious.harm
            assert bound.value == pytest.approx(wanted, rel=1e-12)
            if spec.kind == "predictive":
                assert log_posterior[index] == pytest.approx(log_posterior.max(), abs=1e-12)
        if t < len(rows):
            state = oracle.observe(state, rows[t : t + 1], outcomes[t : t + 1])
            log_likelihood += stats.norm.logpdf(outcomes[t], weights() @ rows[t], SD)


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "finite.json").read_text())["cases"]
SAME_SIZE = [case for case in GOLDEN if len(case["prior"]) == 17]


@pytest.mark.parametrize(
    ("spec", "kind", "level"),
    [
        (RATIO, "ratio", "0.05"),
        (RUNNING, "ratio_running", "0.05"),
        (PLAUSIBLE, "plausible", "0.01"),
        (IID, "iid_cautious", None),
        (PREDICTIVE, "posterior_predictive", None),
    ],
)
def test_golden_vectors(spec, kind, level):
    """A category for what is observed and one for each action, whose rate is its harm."""
    assert {case["kind"] for case in SAME_SIZE} == {"uniform", "skewed", "geometric"}
    for case in SAME_SIZE:
        padded = [(*harm, *(0.5,) * (5 - len(harm))) for harm in case["harm"]]
        rates = [dict(enumerate((rate, *harm))) for rate, harm in zip(case["rates"], padded, strict=True)]
        oracle = EnumeratedOracle(table(rates, case["prior"], category="context.kind"), spec)
        actions = np.array([oracle.encode((), 1 + a) for a in range(len(case["harm"][0]))])
        state = oracle.init()
        for step in case["steps"]:
            if step["t"]:
                state = oracle.observe(
                    state, oracle.encode((), 0)[None], np.array(case["outcomes"][step["t"] - 1 : step["t"]])
                )
            expected = step[kind] if level is None else step[kind][level]["bound"]
            found = oracle.bound(state, actions)
            np.testing.assert_allclose([bound.value for bound in found], expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose(
                [bound.predictive for bound in found], step["posterior_predictive"], rtol=0, atol=1e-9
            )
            if level is not None:
                assert np.flatnonzero(np.asarray(state.members)).tolist() == step[kind][level]["members"]
            posterior = (
                np.asarray(state.posterior.log_weight) - np.asarray(state.posterior.account)[0] - state.log_total
            )
            np.testing.assert_allclose(posterior, step["log_posterior"], rtol=0, atol=1e-9)


def test_the_cautious_hypothesis_of_a_tie_is_the_first():
    oracle = EnumeratedOracle(table([0.1, 0.7, 0.7, 0.7, 0.2]), RATIO)
    assert oracle.bound(oracle.init(), [[0.0]])[0].cautious.name == "h1"
    grid = EnumeratedOracle(lattice(), RATIO)
    for action, first in (
        ((0.0, 1.0, 1.0), "(0, 2, 2)"),
        ((1.0, 0.0, 1.0), "(2, 0, 2)"),
        ((1.0, 1.0, 0.0), "(2, 2, 0)"),
    ):
        assert grid.bound(grid.init(), np.array([action]))[0].cautious.name == f"weights {first}"


def test_iid_takes_the_largest_harm_among_ties():
    # Prior times harm is 0.08 for the first two, whose harms differ.
    oracle = EnumeratedOracle(table([0.16, 0.8, 0.1], [0.5, 0.1, 0.4]), IID)
    bound = oracle.bound(oracle.init(), [[0.0]])[0]
    assert (bound.value, bound.cautious.name) == (0.8, "h1")


def test_single_precision_is_for_display_only():
    """From 2**16 hypotheses on the predictive harm is in float32, the bound is not."""
    oracle = EnumeratedOracle(lattice(8, 4, None), RATIO)
    rows, outcomes = stream(8, 30)
    state = observed(oracle, rows, outcomes)
    action = np.full(8, 0.35)
    found = oracle.bound(state, action[None])[0]
    mean = weights(8, 4) @ action
    log_likelihood = stats.norm.logpdf(outcomes[:, None], rows @ weights(8, 4).T, SD).sum(axis=0)
    log_posterior = log_likelihood - np.logaddexp.reduce(log_likelihood)
    members = log_posterior >= math.log(0.05) - 16 * math.log(2)
    assert 1 < members.sum() < 2**16
    assert found.value == pytest.approx(stats.norm.sf((3.0 - mean[members].max()) / SD), rel=1e-9)
    predictive = np.exp(log_posterior) @ stats.norm.sf((3.0 - mean) / SD)
    assert found.predictive == pytest.approx(predictive, rel=1e-4)


# ---------------------------------------------------------------- cut in other ways


@each_bound
def test_batching_changes_no_bit(spec):
    oracle = EnumeratedOracle(lattice(), spec)
    rows, outcomes = stream(n=150)
    at_once = observed(oracle, rows, outcomes)
    for size in (1, 7, 64, 65):
        state = oracle.init()
        for start in range(0, 150, size):
            state = oracle.observe(state, rows[start : start + size], outcomes[start : start + size])
        same_arrays(oracle.dump(state), oracle.dump(at_once))
        assert state.log_total == at_once.log_total
    together = oracle.bound(at_once, rows)
    assert together == [oracle.bound(at_once, row[None])[0] for row in rows]


def test_batching_changes_no_bit_in_a_large_class():
    oracle = EnumeratedOracle(lattice(8, 4, None), RATIO)
    rows, outcomes = stream(8, 20)
    at_once, one_by_one = observed(oracle, rows, outcomes), oracle.init()
    for row, outcome in zip(rows, outcomes, strict=True):
        one_by_one = oracle.observe(one_by_one, row[None], np.array([outcome]))
    same_arrays(oracle.dump(at_once), oracle.dump(one_by_one))
    assert oracle.bound(at_once, rows) == [oracle.bound(one_by_one, row[None])[0] for row in rows]


def one_by_one(spec=RATIO):
    """An oracle that multiplies likelihoods one after the other though their sums would do."""
    oracle = EnumeratedOracle(lattice(), spec)
    oracle._sums = False
    return oracle


@pytest.mark.parametrize("oracle", [EnumeratedOracle(lattice(), RATIO), one_by_one()], ids=["sums", "one by one"])
def test_the_order_of_observations_matters_no_more_than_rounding(oracle):
    rows, outcomes = stream(n=300)
    first = observed(oracle, rows, outcomes)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(300)
        other = observed(oracle, rows[order], outcomes[order])
        left, right = (np.asarray(s.posterior.log_weight) - np.asarray(s.posterior.account)[0] for s in (first, other))
        slack = float(np.asarray(first.posterior.account)[2] + np.asarray(other.posterior.account)[2])
        assert np.abs(left - right).max() <= slack < 1e-6
        assert oracle._sums or np.abs(left - right).max() > 0, "rounding has moved something"


def test_nothing_to_observe_and_nothing_to_bound():
    oracle = EnumeratedOracle(lattice(), RATIO)
    state = oracle.init()
    assert oracle.observe(state, np.zeros((0, 3)), np.zeros(0)) is state
    assert oracle.bound(state, np.zeros((0, 3))) == []


@each_bound
def test_old_states_stay_as_they_were(spec):
    oracle = EnumeratedOracle(lattice(), spec)
    rows, outcomes = stream()
    early = observed(oracle, rows[:5], outcomes[:5])
    arrays, bounds = oracle.dump(early), oracle.bound(early, rows)
    arrays = {name: array.copy() for name, array in arrays.items()}
    oracle.observe(early, rows, outcomes)
    same_arrays(oracle.dump(early), arrays)
    assert oracle.bound(early, rows) == bounds


# ---------------------------------------------------------------- membership errs toward inclusion


def long_double_ratio(rows, outcomes, prior):
    """log(posterior / prior) of every weight vector in extended precision, by an independent formula."""
    w, x, y = weights().astype(np.longdouble), rows.astype(np.longdouble), outcomes.astype(np.longdouble)
    log_likelihood = -(((y[:, None] - x @ w.T) / np.longdouble(SD)) ** 2).sum(axis=0) / 2
    log_prior = np.log(np.array([math.prod(prior[int(v)] for v in weight) for weight in weights()], np.longdouble))
    joint = log_prior + log_likelihood
    return log_likelihood - joint.max() - np.log(np.exp(joint - joint.max()).sum())


@pytest.mark.parametrize("make", [lambda spec: EnumeratedOracle(lattice(), spec), one_by_one], ids=["sums", "products"])
def test_membership_never_leaves_out_what_extended_precision_keeps(make):
    """After 10^4 observations, at the very deltas at which a hypothesis is on the edge of the set."""
    # The first weight is soon known, which makes large numbers; of the others the data says little.
    random = np.random.default_rng(3)
    rows = random.normal(size=(10_000, 3)) * [1.0, 0.02, 0.02]
    outcomes = rows @ np.array([1, 0, 1]) + SD * random.normal(size=10_000)
    prior = (0.6, 0.3, 0.1)
    assert np.finfo(np.longdouble).eps < 1e-18
    exact = long_double_ratio(rows, outcomes, prior)
    on_the_edge = np.flatnonzero((exact > math.log(1e-6)) & (exact < -1e-3))
    assert len(on_the_edge) >= 3
    saved = make(RATIO)
    state = observed(saved, rows, outcomes)
    arrays = saved.dump(state)
    log_weight, account = np.asarray(state.posterior.log_weight), np.asarray(state.posterior.account)
    exact_weight = exact + np.log([np.longdouble(math.prod(prior[int(v)] for v in w)) for w in weights()])
    moved = np.abs((log_weight - account[0]) - (exact_weight - exact_weight.max()))
    slack = account[2]
    assert abs(account[0]) < 50, "weights are kept near 0, where rounding is small"
    assert 0 < moved.max() < slack < 1e-4, "rounding has moved the weights, by less than the slack"
    for index in on_the_edge[:4]:
        delta = float(np.exp(exact[index]))
        delta = delta if np.log(np.longdouble(delta)) <= exact[index] else math.nextafter(delta, 0.0)
        state = make(RatioBound(kind="ratio", delta=delta)).load(arrays)
        members = np.asarray(state.members)
        assert members[index]
        assert members[exact >= np.log(np.longdouble(delta))].all()
        assert not members[exact < math.log(delta) - 10 * slack - 1e-9].any()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda spec: EnumeratedOracle(lattice(), spec), one_by_one], ids=["sums", "products"])
def test_a_million_observations_leave_no_member_out(make):
    """Of a set that extended precision keeps; the features are so small that the set is still large then."""
    random = np.random.default_rng(11)
    rows = random.normal(size=(1_000_000, 3)) * [1e-3, 2e-3, 5e-4]
    outcomes = rows @ np.array([1, 0, 1]) + SD * random.normal(size=1_000_000)
    exact = long_double_ratio_by_sums(rows, outcomes, (0.6, 0.3, 0.1))
    oracle = make(RATIO)
    state = observed(oracle, rows, outcomes)
    slack = float(np.asarray(state.posterior.account)[2])
    log_ratio = np.asarray(state.posterior.log_weight) - np.log(
        [math.prod((0.6, 0.3, 0.1)[int(v)] for v in w) for w in weights()]
    )
    moved = np.abs((log_ratio - log_ratio.max()) - (exact - exact.max()))
    assert moved.max() < slack < 1.0, "rounding has moved the weights by less than is forgiven"
    members = np.asarray(state.members)
    assert 3 < (exact >= math.log(0.05)).sum() < 27
    assert members[exact >= math.log(0.05)].all()
    assert not members[exact < math.log(0.05) - 10 * slack - 1e-9].any()


def long_double_ratio_by_sums(rows, outcomes, prior):
    """log(posterior / prior) in extended precision from sums of products, for logs too long for a table."""
    x, y, w = rows.astype(np.longdouble), outcomes.astype(np.longdouble), weights().astype(np.longdouble)
    log_likelihood = -(np.einsum("hi,ij,hj->h", w, x.T @ x, w) - 2 * (w @ (x.T @ y))) / (2 * np.longdouble(SD) ** 2)
    log_prior = np.log(np.array([math.prod(prior[int(v)] for v in weight) for weight in weights()], np.longdouble))
    joint = log_prior + log_likelihood
    return log_likelihood - joint.max() - np.log(np.exp(joint - joint.max()).sum())


def test_slack_grows_with_what_rounding_can_do():
    oracle = EnumeratedOracle(lattice(), RATIO)
    rows, outcomes = stream()
    small, large = observed(oracle, rows, outcomes), observed(oracle, rows, outcomes + 1e17)
    slack = [float(np.asarray(state.posterior.account)[2]) for state in (small, large)]
    assert slack[0] < 1e-9 < 1.0 < slack[1]
    # Where rounding swamps the likelihoods, every hypothesis is kept: the bound is the largest harm of all.
    assert np.asarray(large.members).all()


# ---------------------------------------------------------------- failing closed

NOT_NUMBERS = [math.nan, math.inf, -math.inf]


@each_bound
def test_an_input_that_is_no_number_fails_alone(spec):
    oracle = EnumeratedOracle(lattice(), spec)
    rows = np.ones((8, 3))
    for place, number in enumerate(NOT_NUMBERS):
        rows[2 * place, place] = number
    codes = failures(oracle, oracle.init(), rows)
    assert codes == [ReasonCode.NUMERICAL_FAILURE if i in (0, 2, 4) else None for i in range(8)]


@each_bound
@pytest.mark.parametrize("number", NOT_NUMBERS)
def test_an_outcome_that_is_no_number_is_not_forgotten(spec, number):
    oracle = EnumeratedOracle(lattice(), spec)
    rows, outcomes = stream()
    before = observed(oracle, rows[:3], outcomes[:3])
    state = oracle.observe(before, rows[:1], np.array([number]))
    assert failures(oracle, state, rows[:2]) == [ReasonCode.NUMERICAL_FAILURE] * 2
    later = oracle.observe(state, rows, outcomes)
    assert failures(oracle, later, rows[:1]) == [ReasonCode.NUMERICAL_FAILURE]
    assert failures(oracle, oracle.load(oracle.dump(later)), rows[:1]) == [ReasonCode.NUMERICAL_FAILURE]
    assert oracle.count(later) == 44
    assert oracle.failed(later)
    assert not oracle.failed(before)
    assert not oracle.refuted(later)
    same_arrays(*({"w": np.asarray(s.posterior.log_weight)} for s in (later, before)))
    assert failures(oracle, before, rows[:1]) == [None]


@pytest.mark.parametrize("number", NOT_NUMBERS)
def test_a_row_that_is_no_number_is_not_forgotten(number):
    oracle = EnumeratedOracle(lattice(), RATIO)
    state = observed(oracle, np.array([[1.0, number, 1.0]]), np.ones(1))
    assert failures(oracle, state, np.ones((1, 3))) == [ReasonCode.NUMERICAL_FAILURE]


@pytest.mark.parametrize("outcome", [0.5, -1.0, 2.0])
def test_a_boolean_outcome_that_is_neither_is_a_failure(outcome):
    oracle = EnumeratedOracle(table([0.1, 0.9]), RATIO)
    state = observed(oracle, np.zeros((1, 1)), np.array([outcome]))
    assert failures(oracle, state, [[0.0]]) == [ReasonCode.NUMERICAL_FAILURE]


@pytest.mark.parametrize("row", [-1.0, 2.0, 0.5])
def test_a_category_that_is_none_is_a_failure(row):
    oracle = EnumeratedOracle(table([0.1, 0.9]), RATIO)
    assert failures(oracle, oracle.init(), [[row], [0.0]]) == [ReasonCode.NUMERICAL_FAILURE, None]


@each_bound
@pytest.mark.parametrize("size", [1e150, 1e200, 1.7e308])
def test_numbers_too_large_to_compute_with_never_lower_a_bound(spec, size):
    oracle = EnumeratedOracle(lattice(), spec)
    for row, outcome in ((np.full(3, size), 1.0), (np.array([size, -size, size]), 1.0), (np.ones(3), size)):
        state, actions = observed(oracle, row[None], np.array([outcome])), np.array([np.ones(3), row])
        for bound, at_first in zip(oracle.bound(state, actions), oracle.bound(oracle.init(), actions), strict=True):
            assert 0 <= bound.value <= 1
            if spec.kind in ("ratio", "plausible") and outcome == size:
                # Rounding leaves nothing to tell the hypotheses apart.
                assert bound.value >= at_first.value


def test_where_likelihoods_overflow_nothing_is_left_out():
    """A square of rounding alone may be infinite, so that a weight of 0 says nothing."""
    oracle = EnumeratedOracle(lattice(), RatioBound(kind="ratio", delta=0.05, running=True))
    state = observed(oracle, np.array([[2e200, 1e200, 1.0]]), np.zeros(1))
    assert np.isneginf(np.asarray(state.posterior.log_weight)).any()
    assert np.isinf(np.asarray(state.posterior.account)[2])
    assert np.asarray(state.members).all()


# ---------------------------------------------------------------- refutation


@each_bound
def test_a_class_in_which_everything_is_impossible_is_refuted(spec):
    oracle = EnumeratedOracle(table([0.0, 0.0, 0.0]), spec)
    state = observed(oracle, np.zeros((2, 1)), np.array([0.0, 1.0]))
    assert oracle.refuted(state)
    assert failures(oracle, state, [[0.0]]) == [ReasonCode.CLASS_REFUTED]
    later = oracle.observe(state, np.zeros((5, 1)), np.zeros(5))
    assert failures(oracle, later, [[0.0], [0.0]]) == [ReasonCode.CLASS_REFUTED] * 2
    summary = oracle.summary(later)
    assert (summary.refuted, summary.entropy, dict(summary.top)) == (True, None, {})
    assert oracle.refuted(oracle.load(oracle.dump(later)))


@pytest.mark.parametrize(
    "specs",
    [
        (RatioBound(kind="ratio", delta=0.3), RatioBound(kind="ratio", delta=0.3, running=True)),
        (PlausibleBound(kind="plausible", alpha=0.3), PlausibleBound(kind="plausible", alpha=0.3, running=True)),
    ],
    ids=["ratio", "plausible"],
)
def test_an_empty_running_intersection_refutes_for_ever(specs):
    """Data of neither hypothesis: first only ones, then only zeros."""
    at_once, running = (EnumeratedOracle(table([0.05, 0.95]), spec) for spec in specs)
    ones, zeros = np.ones(5), np.zeros(20)
    for oracle in (at_once, running):
        state = observed(oracle, np.zeros((5, 1)), ones)
        assert np.asarray(state.members).tolist() == [False, True]
        state = oracle.observe(state, np.zeros((20, 1)), zeros)
        assert oracle.refuted(state) == (oracle is running)
        assert failures(oracle, state, [[0.0]]) == [ReasonCode.CLASS_REFUTED if oracle is running else None]
        state = oracle.observe(state, np.zeros((30, 1)), np.ones(30))
        assert oracle.refuted(state) == (oracle is running)
    summary = running.summary(state)
    assert (summary.plausible, summary.class_size, summary.refuted) == (0, 2, True)


def test_a_running_bound_never_loosens():
    oracle, at_once = EnumeratedOracle(lattice(), RUNNING), EnumeratedOracle(lattice(), RATIO)
    rows, outcomes = stream(n=60, seed=8)
    state, other, last, loosened = oracle.init(), at_once.init(), 1.0, False
    before = 1.0
    for row, outcome in zip(rows, outcomes, strict=True):
        state = oracle.observe(state, row[None], np.array([outcome]))
        other = at_once.observe(other, row[None], np.array([outcome]))
        now, present = (o.bound(s, np.full((1, 3), 0.6))[0].value for o, s in ((oracle, state), (at_once, other)))
        assert now <= min(last, present)
        last, loosened, before = now, loosened or present > before, present
    assert loosened, "the premise: without the intersection the bound would have loosened"


# ---------------------------------------------------------------- snapshots


@each_bound
def test_a_snapshot_is_exact(spec):
    oracle = EnumeratedOracle(lattice(), spec)
    rows, outcomes = stream()
    state = observed(oracle, rows[:20], outcomes[:20])
    loaded = oracle.load({name: array.copy() for name, array in oracle.dump(state).items()})
    same_arrays(oracle.dump(loaded), oracle.dump(state))
    assert oracle.bound(loaded, rows) == oracle.bound(state, rows)
    after = [oracle.observe(s, rows[20:], outcomes[20:]) for s in (state, loaded)]
    same_arrays(*map(oracle.dump, after))
    assert oracle.count(loaded) == 20


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a.pop("account"),
        lambda a: a.update(more=np.zeros(1)),
        lambda a: a.update(log_weight=a["log_weight"][1:]),
        lambda a: a.update(log_weight=a["log_weight"].astype(np.float32)),
        lambda a: a.update(log_weight=a["log_weight"] + 1.0),
        lambda a: a.update(log_weight=np.where(np.arange(27) == 3, np.nan, a["log_weight"])),
        lambda a: a.update(members=a["members"].astype(np.int8)),
        lambda a: a.update(count=np.int64(-1)),
        lambda a: a.update(count=np.array([3])),
        lambda a: a.update(account=a["account"] * [1, 1, np.nan, 1]),
        lambda a: a.update(account=a["account"] * [1, 1, -1, 1]),
        lambda a: a.update(account=a["account"] + [0, 0, 0, 0.5]),
    ],
)
def test_a_snapshot_that_does_not_fit_is_refused(damage):
    oracle = EnumeratedOracle(lattice(), RUNNING)
    arrays = {name: array.copy() for name, array in oracle.dump(observed(oracle, *stream())).items()}
    damage(arrays)
    with pytest.raises(SnapshotInvalid):
        oracle.load(arrays)


def test_a_snapshot_of_another_bound_is_refused():
    arrays = EnumeratedOracle(lattice(), RATIO).dump(EnumeratedOracle(lattice(), RATIO).init())
    with pytest.raises(SnapshotInvalid, match="holds"):
        EnumeratedOracle(lattice(), RUNNING).load(arrays)


# ---------------------------------------------------------------- guarantees and people


def test_guarantees():
    family = table([0.1, 0.2], [0.9, 0.1])
    promised = {
        name: EnumeratedOracle(family, spec).guarantee for name, spec in zip(names(BOUNDS), BOUNDS, strict=True)
    }
    assert (promised["ratio"].kind, promised["ratio"].confidence) == (GuaranteeKind.THEOREM, 0.95)
    assert promised["ratio running"] == promised["ratio"]
    assert promised["plausible"].kind is GuaranteeKind.THEOREM
    assert 0.9 - 1e-9 < promised["plausible"].confidence <= 0.9
    assert (promised["iid"].kind, promised["iid"].confidence) == (GuaranteeKind.ASYMPTOTIC, 0.0)
    assert (promised["predictive"].kind, promised["predictive"].confidence) == (GuaranteeKind.NONE, 0.0)
    for name in ("ratio", "plausible", "iid"):
        assert promised[name].assumptions[: len(family.assumptions)] == family.assumptions
        assert any("member of the hypothesis class" in words for words in promised[name].assumptions)
        assert any("reported" in words for words in promised[name].assumptions)
    oracle = EnumeratedOracle(family, RATIO)
    assert oracle.bound(oracle.init(), [[0.0]])[0].guarantee is oracle.guarantee


@pytest.mark.parametrize("alpha", [0.1, 0.1001, 0.9])
def test_an_alpha_that_buys_nothing_promises_nothing(alpha):
    spec = PlausibleBound(kind="plausible", alpha=alpha)
    guarantee = EnumeratedOracle(table([0.1, 0.2], [0.9, 0.1]), spec).guarantee
    assert (guarantee.kind, guarantee.confidence) == (GuaranteeKind.NONE, 0.0)
    assert "0.1" in guarantee.assumptions[0]


def test_summary():
    oracle = EnumeratedOracle(table([0.1, 0.2, 0.6], [0.5, 0.25, 0.25]), RATIO)
    summary = oracle.summary(oracle.init(), top=2)
    assert (summary.revision, summary.class_size, summary.plausible, summary.refuted) == (0, 3, 3, False)
    assert summary.entropy == pytest.approx(1.5 * math.log(2))
    assert list(summary.top.items()) == [("h0", pytest.approx(0.5)), ("h1", pytest.approx(0.25))]
    state = observed(oracle, np.zeros((40, 1)), np.ones(40))
    assert oracle.summary(state).plausible == 1
    assert next(iter(oracle.summary(state).top)) == "h2"
    assert (
        EnumeratedOracle(table([0.1, 0.2]), IID).summary(EnumeratedOracle(table([0.1, 0.2]), IID).init()).plausible
        is None
    )


def test_shapes_are_checked():
    oracle = EnumeratedOracle(lattice(), RATIO)
    with pytest.raises(ValueError, match="rows"):
        oracle.bound(oracle.init(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="outcomes"):
        oracle.observe(oracle.init(), np.zeros((2, 3)), np.zeros(1))
    with pytest.raises(InvalidInput):
        EnumeratedOracle(table([{"a": 0.1}], category="x"), RATIO).encode((), "b")


# ---------------------------------------------------------------- programs


class Counting(LinearGaussianLatticeFamily):
    """Counts how often it is traced."""

    traced = 0

    def log_likelihood(self, arrays, row, outcome):
        type(self).traced += 1
        return super().log_likelihood(arrays, row, outcome)

    def harm_score(self, arrays, row):
        type(self).traced += 1
        return super().harm_score(arrays, row)


def test_nothing_is_traced_twice():
    def run(family):
        oracle = EnumeratedOracle(family, RUNNING)
        rows, outcomes = stream(n=130)
        for n in (1, 2, 64, 130):
            state = observed(oracle, rows[:n], outcomes[:n])
            state = oracle.observe(oracle.load(oracle.dump(state)), rows[:3], outcomes[:3])
            oracle.bound(state, rows[:n])
            oracle.bound(oracle.init(), rows[:1])

    run(Counting(3, SD, None, ABOVE, ("a", "b", "c")))
    once = Counting.traced
    assert once > 0
    run(Counting(3, SD, None, ABOVE, ("a", "b", "c")))
    run(Counting(3, SD, None, ABOVE, ("other", "names", "alike")))
    assert Counting.traced == once


def test_the_host_programs_configuration_does_not_matter():
    rows, outcomes = stream()
    oracle = EnumeratedOracle(lattice(), RUNNING)
    plain = oracle.bound(observed(oracle, rows, outcomes), rows)
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        families = (
            Counting(3, SD, (0.6, 0.3, 0.1), ABOVE, ("p", "q", "r")),
            table([0.1, 0.3]),
            BernoulliLogisticFamily(
                CoefficientGrid(lower=-1.0, upper=1.0, points=3, sd=1.0),
                (CoefficientGrid(lower=-1.0, upper=1.0, points=4, sd=1.0),),
                DAMAGE,
                ("x",),
            ),
        )
        for family in families:
            strict = EnumeratedOracle(family, RUNNING)
            state = observed(strict, np.zeros((2, family.row_length)), np.ones(2))
            assert strict.bound(state, np.zeros((1, family.row_length)))[0].failure is None
        strict = EnumeratedOracle(families[0], RUNNING)
        found = strict.bound(observed(strict, rows, outcomes), rows)
    assert [bound.value for bound in found] == [bound.value for bound in plain]
    assert not jax.config.jax_enable_x64


def test_build_oracle():
    spec = LinearGaussianLattice(family="linear-gaussian-lattice", levels=3, noise_sd=SD)
    oracle = build_oracle(spec, RATIO, ABOVE, ("x", "y"))
    assert isinstance(oracle, EnumeratedOracle)
    assert oracle.row_length == 2
    assert oracle.bound(oracle.init(), oracle.encode((1.0, 1.0), None)[None])[0].value == pytest.approx(
        stats.norm.sf((3.0 - 4.0) / SD), rel=1e-9
    )


# ---------------------------------------------------------------- what a person is told


@each_bound
def test_the_detail_is_the_posterior_and_the_set_that_bounds_rest_on(spec):
    """Masses and membership are the reference's at every moment; the worst of the plausible ones is the bound."""
    oracle, rates = EnumeratedOracle(lattice(), spec), np.random.default_rng(5).normal(size=(1, 3)) + 1.0
    rows, outcomes = stream(n=25)
    log_prior = np.log([math.prod((0.6, 0.3, 0.1)[int(v)] for v in w) for w in weights()])
    state, log_likelihood, so_far, sizes = oracle.init(), np.zeros(27), np.ones(27, bool), set()
    for t in range(len(rows) + 1):
        log_posterior = reference.posterior(log_prior, log_likelihood)
        _, so_far = expected_bounds(spec, log_posterior, log_prior, np.zeros((27, 1)), so_far)
        detail = oracle.detail(state, 1_000)
        assert detail.parameters == ()
        places = [[int(v) for v in one.parameters.values()] @ np.array([9, 3, 1]) for one in detail.hypotheses]
        assert sorted(places) == list(range(27))
        masses = [one.log_posterior for one in detail.hypotheses]
        np.testing.assert_allclose(masses, log_posterior[places], rtol=0, atol=1e-9)
        assert masses == sorted(masses, reverse=True)
        plausible = [one.plausible for one in detail.hypotheses]
        assert plausible == ([None] * 27 if spec.kind in ("iid", "predictive") else so_far[places].tolist())
        assert oracle.detail(state, 4).hypotheses == detail.hypotheses[:4]
        if None not in plausible:
            worst = max(
                stats.norm.sf((3.0 - np.array(list(one.parameters.values())) @ rates[0]) / SD)
                for one in detail.hypotheses
                if one.plausible
            )
            assert oracle.bound(state, rates)[0].value == pytest.approx(worst, rel=1e-9)
            assert sum(plausible) == oracle.summary(state).plausible
            sizes.add(sum(plausible))
        if t < len(rows):
            state = oracle.observe(state, rows[t : t + 1], outcomes[t : t + 1])
            log_likelihood += stats.norm.logpdf(outcomes[t], weights() @ rows[t], SD)
    assert spec.kind in ("iid", "predictive") or len(sizes) > 3


def test_impossible_hypotheses_are_not_told_of_and_a_refuted_class_has_none_that_is_plausible():
    oracle = EnumeratedOracle(table([0.0, 0.3, 1.0]), RATIO)
    state = observed(oracle, [[0.0], [0.0]], [1.0, 0.0])
    (left,) = oracle.detail(state, 10).hypotheses
    assert (left.name, left.log_posterior, left.plausible) == ("h1", 0.0, True)
    oracle = EnumeratedOracle(table([0.1, 0.9]), RUNNING)
    state = observed(oracle, [[0.0]] * 60, [0.0] * 20 + [1.0] * 40)
    assert oracle.refuted(state)
    assert [one.plausible for one in oracle.detail(state, 10).hypotheses] == [False, False]
    impossible = EnumeratedOracle(table([0.0, 0.0]), RATIO)
    assert impossible.detail(observed(impossible, [[0.0]], [1.0]), 10).hypotheses == ()
    failed = observed(oracle, [[0.0]], [math.nan])
    assert oracle.failed(failed)
    assert oracle.detail(failed, 10).hypotheses == ()
    assert oracle.detail(oracle.init(), 0).hypotheses == ()
