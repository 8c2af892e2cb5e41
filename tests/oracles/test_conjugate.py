import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaln, xlog1py, xlogy

from guardrail.domain import NO_GUARANTEE, BooleanHarm, GuaranteeKind, IntervalHarm, ReasonCode
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.beta_bernoulli import BetaBernoulliFamily
from guardrail.hypotheses.gaussian_linear import GaussianLinearFamily
from guardrail.oracles import conjugate
from guardrail.oracles.base import MAX_BATCH
from guardrail.policy.schema import IidBound, PlausibleBound, PredictiveBound, RatioBound

DELTA = 0.05
PREDICTIVE = PredictiveBound(kind="predictive")
ABOVE = IntervalHarm(2.0, math.inf, True)


def ratio(delta=DELTA, running=False):
    return RatioBound(kind="ratio", delta=delta, running=running)


def beta(categories=3, a=1.0, b=2.0, harmful=True, bound=None):
    family = BetaBernoulliFamily(categories, a, b, BooleanHarm(harmful))
    return conjugate.build(family, bound or ratio())


def gauss(box=None, harm=ABOVE, bound=None, d=2, noise_sd=0.5):
    names = [f"x{i}" for i in range(d)]
    return conjugate.build(GaussianLinearFamily(names, noise_sd, 0.0, 1.0, box, harm), bound or ratio())


ORACLES = {
    "beta": beta,
    "beta-running": lambda: beta(bound=ratio(running=True)),
    "beta-predictive": lambda: beta(bound=PREDICTIVE),
    "gauss": gauss,
    "gauss-box": lambda: gauss(box=(-2.0, 2.0)),
    "gauss-two-sided": lambda: gauss(box=(-2.0, 2.0), harm=IntervalHarm(-1.0, 2.0, False)),
    "gauss-predictive": lambda: gauss(bound=PREDICTIVE),
}
every_oracle = pytest.mark.parametrize("name", ORACLES)


def history(name, n, seed=0):
    rng = np.random.default_rng(seed)
    if name.startswith("beta"):
        return rng.integers(0, 3, size=(n, 1)).astype(float), (rng.random(n) < 0.3).astype(float)
    rows = rng.normal(size=(n, 2))
    return rows, rows @ [0.5, -1.0] + 0.5 * rng.normal(size=n)


def ask(oracle, rows, outcomes, *queries):
    rows = np.asarray(rows, float).reshape(-1, oracle.row_length)
    state = oracle.observe(oracle.init(), rows, np.asarray(outcomes, float))
    return oracle.bound(state, np.asarray(queries, float).reshape(-1, oracle.row_length))


# ---------------------------------------------------------------- values


def test_rate_bound_agrees_with_an_enumerated_grid_of_the_same_prior():
    a, b, theta = 1.0, 2.0, np.linspace(0, 1, 100_001)[1:-1]
    log_prior = xlogy(a - 1, theta) + xlog1py(b - 1, -theta)
    log_prior -= np.log(np.exp(log_prior).sum())
    oracle = beta(None, a, b)
    for s, f in ((0, 0), (0, 7), (5, 0), (3, 4), (40, 400)):
        log_posterior = log_prior + s * np.log(theta) + f * np.log1p(-theta)
        log_posterior -= np.logaddexp.reduce(log_posterior)
        grid_bound = theta[log_posterior >= np.log(DELTA) + log_prior].max()
        (bound,) = ask(oracle, np.zeros(s + f), [1.0] * s + [0.0] * f, [0.0])
        assert bound.value == pytest.approx(grid_bound, abs=2e-5)
        assert bound.predictive == pytest.approx((a + s) / (a + b + s + f))
        assert bound.predictive == pytest.approx(np.exp(log_posterior) @ theta, abs=1e-4)


def test_harm_may_be_the_outcome_that_is_false():
    rows, outcomes = np.zeros(9), [1, 1, 0, 1, 1, 1, 1, 0, 1]
    (mirrored,) = ask(beta(None, 2.0, 1.0), rows, [1 - y for y in outcomes], [0.0])
    (bound,) = ask(beta(None, 1.0, 2.0, harmful=False), rows, outcomes, [0.0])
    assert bound.value == pytest.approx(mirrored.value, abs=1e-12)
    assert bound.predictive == pytest.approx(mirrored.predictive, abs=1e-12)
    assert bound.cautious.parameters["rate"] == pytest.approx(1 - bound.value)


def test_delta_is_shared_evenly_among_categories():
    rows, outcomes = np.zeros(8), [0.0] * 8
    (shared,) = ask(beta(4, bound=ratio(0.2)), rows, outcomes, [0.0])
    (single,) = ask(beta(None, bound=ratio(0.05)), rows, outcomes, [0.0])
    assert shared.value == pytest.approx(single.value, rel=1e-12)


def test_categories_do_not_touch_each_other():
    oracle = beta(3)
    before = ask(oracle, [], [], 0, 1, 2)
    after = ask(oracle, [1.0] * 20, [0.0] * 20, 0, 1, 2)
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert after[1].value < before[1].value == 1.0


def test_cautious_rate_tells_what_it_rests_on():
    (bound,) = ask(beta(3), [2, 2, 2, 1], [0, 1, 0, 1], 2)
    assert bound.cautious.name == "rate[2]"
    assert bound.cautious.log_posterior is None
    assert bound.cautious.harm == bound.value == bound.cautious.parameters["rate"]
    assert (bound.cautious.parameters["successes"], bound.cautious.parameters["failures"]) == (1.0, 2.0)


def test_running_intersection_never_loosens_and_lies_inside():
    rng = np.random.default_rng(1)
    outcomes = np.concatenate([np.zeros(30), (rng.random(60) < 0.25)]).astype(float)
    running, plain = beta(None, bound=ratio(running=True)), beta(None)
    a, b, values, plains = running.init(), plain.init(), [], []
    for y in outcomes:
        a, b = running.observe(a, np.zeros((1, 1)), [y]), plain.observe(b, np.zeros((1, 1)), [y])
        values.append(running.bound(a, np.zeros((1, 1)))[0].value)
        plains.append(plain.bound(b, np.zeros((1, 1)))[0].value)
        if running.refuted(a):
            break
    values, plains = np.array(values), np.array(plains)
    assert np.all(np.diff(values[:-1]) <= 0)
    assert np.all(values[:-1] <= plains[:-1])
    assert np.any(values[:-1] < plains[:-1])
    if not running.refuted(a):
        np.testing.assert_array_equal(values, np.minimum.accumulate(plains))


def test_an_empty_running_intersection_refutes_the_class_for_good():
    oracle = beta(2, bound=ratio(running=True))
    state = oracle.observe(oracle.init(), np.zeros((400, 1)), np.zeros(400))
    assert not oracle.refuted(state)
    state = oracle.observe(state, np.zeros((400, 1)), np.ones(400))
    assert oracle.refuted(state)
    assert oracle.summary(state).refuted
    for bound in oracle.bound(state, np.array([[0.0], [1.0]])):
        assert bound.value == 1.0
        assert bound.failure.code is ReasonCode.CLASS_REFUTED
        assert bound.guarantee == NO_GUARANTEE
    assert oracle.refuted(oracle.observe(state, np.zeros((500, 1)), np.zeros(500)))
    assert oracle.refuted(oracle.load(oracle.dump(state)))


def exact_upper_harm(rows, outcomes, f, box=None, noise_sd=0.5, threshold=2.0):
    """Largest harm over a dense lattice of weights, membership from the definition."""
    axis = np.linspace(*(box or (-6, 6)), 401)
    w = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_likelihood = stats.norm(w @ rows.T, noise_sd).logpdf(outcomes).sum(axis=1)
    covariance = noise_sd**2 * np.eye(len(rows)) + rows @ rows.T
    inside = log_likelihood - stats.multivariate_normal(np.zeros(len(rows)), covariance).logpdf(outcomes) >= np.log(
        DELTA
    )
    return stats.norm(w[inside] @ f, noise_sd).sf(threshold).max()


@pytest.mark.parametrize("box", [None, (-1.0, 1.0)])
def test_gaussian_bound_is_the_largest_harm_over_a_dense_lattice(box):
    rows, outcomes = history("gauss", 6)
    for f in ([0.5, -1.0], [1.0, 0.2], [-2.0, 1.0]):
        (bound,) = ask(gauss(box=box), rows, outcomes, f)
        exact = exact_upper_harm(rows, outcomes, f, box)
        assert bound.value >= exact
        assert bound.value == pytest.approx(exact, rel=0.1)
        assert bound.cautious.name == "weights"
        mean = bound.cautious.parameters["predicted_outcome_at_bound"]
        assert bound.value == pytest.approx(stats.norm(mean, 0.5).sf(2.0), rel=1e-9)
        precision = rows.T @ rows / 0.25 + np.eye(2)
        average = f @ np.linalg.solve(precision, rows.T @ outcomes / 0.25)
        spread = np.sqrt(0.25 + f @ np.linalg.solve(precision, f))
        assert bound.cautious.parameters["posterior_mean_outcome"] == pytest.approx(average)
        assert bound.predictive == pytest.approx(stats.norm(average, spread).sf(2.0), rel=1e-9)


def test_two_sided_events_take_the_worst_mean():
    rows, outcomes = history("gauss", 30)
    f = [1.0, 0.5]
    upper, lower = (
        ask(gauss(harm=event), rows, outcomes, f)[0].cautious.parameters["predicted_outcome_at_bound"]
        for event in (ABOVE, IntervalHarm(-math.inf, 2.0, True))
    )
    means = np.linspace(lower, upper, 2001)
    for event in (IntervalHarm(-1.0, 2.0, False), IntervalHarm(-0.3, -0.1, True), IntervalHarm(5.0, 6.0, True)):
        (bound,) = ask(gauss(harm=event), rows, outcomes, f)
        inside = stats.norm(means, 0.5).cdf(event.upper) - stats.norm(means, 0.5).cdf(event.lower)
        exact = (inside if event.inside else 1 - inside).max()
        assert bound.value == pytest.approx(exact, rel=1e-5)


def test_two_sided_events_in_a_box():
    # Without data in the second direction, the box decides how far the mean may lie on either side.
    oracle = ORACLES["gauss-two-sided"]()
    rows, outcomes = np.tile([1.0, 0.0], (50, 1)), np.full(50, 0.5)
    for slope in (0.1, 0.6, -0.6):
        (bound,) = ask(oracle, rows, outcomes, [1.0, slope])
        assert bound.value >= stats.norm(0.5 + abs(slope) * 2, 0.5).sf(2.0)
        assert bound.value >= stats.norm(0.5 - abs(slope) * 2, 0.5).cdf(-1.0)
        end = bound.cautious.parameters["predicted_outcome_at_bound"]
        assert bound.value == pytest.approx(stats.norm(end, 0.5).sf(2.0) + stats.norm(end, 0.5).cdf(-1.0), rel=1e-9)


def test_unseen_directions_bound_one_without_a_box_and_less_with_one():
    rows, outcomes = np.tile([1.0, 0.0], (30, 1)), np.full(30, 0.5)
    (bound,) = ask(gauss(), rows, outcomes, [1.0, 1.0])
    assert bound.value == 1.0
    assert bound.failure is None
    assert bound.guarantee.kind is GuaranteeKind.THEOREM
    assert "predicted_outcome_at_bound" not in bound.cautious.parameters
    assert ask(gauss(), rows, outcomes, [1.0, 0.0])[0].value < 0.05
    assert ask(gauss(box=(-1.0, 1.0)), rows, outcomes, [1.0, 0.5])[0].value < 0.1


def test_weights_outside_the_box_refute_the_class():
    oracle = gauss(box=(-1.0, 1.0))
    rows = np.random.default_rng(0).normal(size=(40, 2))
    state = oracle.observe(oracle.init(), rows, rows @ [3.0, 0.0])
    assert oracle.refuted(state)
    (bound,) = oracle.bound(state, np.ones((1, 2)))
    assert (bound.value, bound.failure.code, bound.guarantee) == (1.0, ReasonCode.CLASS_REFUTED, NO_GUARANTEE)
    inside = oracle.observe(oracle.init(), rows, rows @ [0.9, 0.0])
    assert not oracle.refuted(inside)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 30))
def test_smaller_delta_gives_larger_bounds(seed, n):
    for name, make in (("beta", beta), ("gauss", gauss)):
        rows, outcomes = history(name, n, seed)
        query = history(name, 1, seed + 1)[0]
        values = [ask(make(bound=ratio(delta)), rows, outcomes, query)[0].value for delta in (0.5, 0.05, 1e-6)]
        assert values == sorted(values)


@every_oracle
def test_predictive_harm_does_not_exceed_one_and_bounds_are_probabilities(name):
    oracle = ORACLES[name]()
    rows, outcomes = history(name, 50)
    for n in (0, 1, 50):
        for bound in ask(oracle, rows[:n], outcomes[:n], *history(name, 20, 9)[0]):
            assert 0 <= bound.predictive <= 1
            assert 0 <= bound.value <= 1
            assert bound.failure is None


# ---------------------------------------------------------------- guarantee


def test_guarantees():
    theorem = beta(2, bound=ratio(0.1)).guarantee
    assert theorem.kind is GuaranteeKind.THEOREM
    assert theorem.confidence == pytest.approx(0.9)
    assert "Waudby-Smith and Ramdas 2020" in theorem.source
    said = " ".join(theorem.assumptions)
    assert "member of the hypothesis class" in said
    assert "whatever its value" in said
    assert "one fixed rate" in said
    assert "[-1, 1]" in " ".join(gauss(box=(-1.0, 1.0)).guarantee.assumptions)
    for oracle in (beta(bound=PREDICTIVE), gauss(bound=PREDICTIVE)):
        assert oracle.guarantee.kind is GuaranteeKind.NONE
        assert oracle.guarantee.confidence == 0.0
        (bound,) = oracle.bound(oracle.init(), np.ones((1, oracle.row_length)))
        assert bound.value == bound.predictive
        assert bound.cautious is None
        assert bound.guarantee == oracle.guarantee


def test_unsupported_bounds_are_refused():
    for bound in (IidBound(kind="iid"), PlausibleBound(kind="plausible", alpha=0.1)):
        for make in (beta, gauss):
            with pytest.raises(ValueError, match="ratio and predictive"):
                make(bound=bound)
    with pytest.raises(ValueError, match="running"):
        gauss(bound=ratio(running=True))
    with pytest.raises(ValueError, match="box"):
        gauss(box=(0.0, 1.0), bound=PREDICTIVE)


# ---------------------------------------------------------------- the protocol


def same(left, right):
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and left[k].tobytes() == right[k].tobytes() for k in left
    )


@every_oracle
def test_states_and_bounds_do_not_depend_on_batching(name):
    oracle = ORACLES[name]()
    rows, outcomes = history(name, 2 * MAX_BATCH + 7)
    whole = oracle.observe(oracle.init(), rows, outcomes)
    for cuts in ([1] * 20 + [50, 3], [MAX_BATCH], [MAX_BATCH + 1, 2]):
        state, start = oracle.init(), 0
        for size in [*cuts, len(rows)]:
            state = oracle.observe(state, rows[start : start + size], outcomes[start : start + size])
            start += size
        assert same(oracle.dump(state), oracle.dump(whole))
    queries = history(name, MAX_BATCH + 9, 3)[0]
    together = oracle.bound(whole, queries)
    assert together == [oracle.bound(whole, query[None])[0] for query in queries]
    assert together == oracle.bound(whole, queries[:5]) + oracle.bound(whole, queries[5:])


@every_oracle
def test_observing_leaves_the_old_state_alone(name):
    oracle = ORACLES[name]()
    rows, outcomes = history(name, 30)
    state = oracle.observe(oracle.init(), rows, outcomes)
    before, bounds = oracle.dump(state), oracle.bound(state, rows)
    oracle.observe(state, rows, outcomes)
    assert same(oracle.dump(state), before)
    assert oracle.bound(state, rows) == bounds
    assert (oracle.count(oracle.init()), oracle.count(state)) == (0, 30)


@every_oracle
def test_load_rebuilds_what_was_dumped(name):
    oracle = ORACLES[name]()
    rows, outcomes = history(name, 30)
    state = oracle.observe(oracle.init(), rows, outcomes)
    loaded = ORACLES[name]().load(oracle.dump(state))
    assert same(oracle.dump(loaded), oracle.dump(state))
    assert oracle.bound(loaded, rows) == oracle.bound(state, rows)
    assert oracle.count(loaded) == 30
    more = history(name, 5, 8)
    assert same(oracle.dump(oracle.observe(loaded, *more)), oracle.dump(oracle.observe(state, *more)))


@every_oracle
def test_damaged_snapshots_are_refused(name):
    oracle = ORACLES[name]()
    good = oracle.dump(oracle.observe(oracle.init(), *history(name, 30)))
    for key, value in good.items():
        for wrong in (value.astype(np.float32), value[None], np.where(value, 1, 2).tolist()):
            with pytest.raises(SnapshotInvalid):
                oracle.load(good | {key: wrong})
        with pytest.raises(SnapshotInvalid):
            oracle.load({k: v for k, v in good.items() if k != key})
        if value.dtype == np.float64:
            with pytest.raises(SnapshotInvalid):
                oracle.load(good | {key: np.full_like(value, np.nan)})
    with pytest.raises(SnapshotInvalid):
        oracle.load(good | {"more": np.zeros(1)})
    with pytest.raises(SnapshotInvalid):
        oracle.load(good | {"count": np.asarray(-1)})


def test_snapshots_that_contradict_themselves_are_refused():
    oracle = beta(bound=ratio(running=True))
    good = oracle.dump(oracle.observe(oracle.init(), *history("beta", 30)))
    with pytest.raises(SnapshotInvalid, match="add up"):
        oracle.load(good | {"count": np.asarray(31)})
    with pytest.raises(SnapshotInvalid, match="refutation"):
        oracle.load(good | {"refuted": np.asarray(True)})
    for column, value, match in ((0, 0.5, "whole"), (0, -1.0, "whole"), (3, 2.0, "0, 1")):
        rates = good["rates"].copy()
        rates[0, column] = value
        with pytest.raises(SnapshotInvalid, match=match):
            oracle.load(good | {"rates": rates})
    oracle = gauss()
    good = oracle.dump(oracle.observe(oracle.init(), *history("gauss", 30)))
    gram = good["gram"].copy()
    gram[0, 1] += 1
    with pytest.raises(SnapshotInvalid, match="symmetric"):
        oracle.load(good | {"gram": gram})
    with pytest.raises(SnapshotInvalid, match="no observation"):
        oracle.load(good | {"count": np.asarray(0)})


def test_a_snapshot_of_another_class_is_refused():
    with pytest.raises(SnapshotInvalid):
        beta(3).load(beta(4).dump(beta(4).init()))
    with pytest.raises(SnapshotInvalid):
        gauss().load(beta(3).dump(beta(3).init()))


BAD_ROWS = (math.nan, math.inf, -math.inf)


@every_oracle
def test_inputs_that_are_no_numbers_get_no_bound(name):
    oracle = ORACLES[name]()
    state = oracle.observe(oracle.init(), *history(name, 30))
    good = history(name, 1, 4)[0]
    for bad in BAD_ROWS:
        row = np.full((1, oracle.row_length), bad)
        first, second = oracle.bound(state, np.concatenate([row, good]))
        assert (first.value, first.predictive, first.cautious) == (1.0, None, None)
        assert first.failure.code is ReasonCode.NUMERICAL_FAILURE
        assert first.guarantee == NO_GUARANTEE
        assert second == oracle.bound(state, good)[0]


@every_oracle
def test_a_bad_observation_leaves_no_bound_ever_after(name):
    oracle = ORACLES[name]()
    rows, outcomes = history(name, 30)
    for bad_row, bad_outcome in ((math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, math.inf)):
        state = oracle.observe(oracle.init(), np.full((1, oracle.row_length), bad_row), [bad_outcome])
        state = oracle.load(oracle.dump(oracle.observe(state, rows, outcomes)))
        assert oracle.failed(state)
        assert not oracle.failed(oracle.init())
        for bound in oracle.bound(state, rows):
            assert bound.value == 1.0
            assert bound.failure is not None
            assert bound.guarantee == NO_GUARANTEE


def test_rows_and_outcomes_outside_the_class_get_no_bound():
    oracle = beta(3)
    for row in (3.0, -1.0, 0.5, 1e300):
        assert oracle.bound(oracle.init(), np.array([[row]]))[0].failure is not None
        state = oracle.observe(oracle.init(), np.array([[row]]), [1.0])
        assert oracle.bound(state, np.zeros((1, 1)))[0].failure is not None
    state = oracle.observe(oracle.init(), np.zeros((1, 1)), [0.5])
    assert oracle.bound(state, np.zeros((1, 1)))[0].value == 1.0


@pytest.mark.parametrize("box", [None, (-2.0, 2.0)])
def test_finite_numbers_that_overflow_get_no_small_bound(box):
    oracle = gauss(box=box)
    state = oracle.observe(oracle.init(), *history("gauss", 30))
    for size in (1e100, 1e160, 1e308):
        assert oracle.bound(state, np.array([[size, -size]]))[0].value == 1.0
        spoiled = oracle.observe(oracle.init(), np.array([[size, 1.0]]), [1.0])
        assert oracle.bound(spoiled, np.array([[0.0, 5.0]]))[0].value == 1.0
        spoiled = oracle.observe(oracle.init(), np.ones((1, 2)), [size])
        assert oracle.bound(spoiled, np.array([[1.0, -1.0]]))[0].value == 1.0


@every_oracle
def test_shapes_are_checked(name):
    oracle = ORACLES[name]()
    wide = np.zeros((2, oracle.row_length + 1))
    with pytest.raises(ValueError, match="rows"):
        oracle.bound(oracle.init(), wide)
    with pytest.raises(ValueError, match="rows"):
        oracle.observe(oracle.init(), wide, np.zeros(2))
    with pytest.raises(ValueError, match="outcomes"):
        oracle.observe(oracle.init(), np.zeros((2, oracle.row_length)), np.zeros(3))
    assert oracle.bound(oracle.init(), np.zeros((0, oracle.row_length))) == []
    unchanged = oracle.observe(oracle.init(), np.zeros((0, oracle.row_length)), np.zeros(0))
    assert same(oracle.dump(unchanged), oracle.dump(oracle.init()))


def test_summary():
    oracle = beta(3)
    summary = oracle.summary(oracle.observe(oracle.init(), *history("beta", 30)), top=2)
    assert (summary.revision, summary.refuted, len(summary.top)) == (30, False, 2)
    assert (summary.class_size, summary.plausible, summary.entropy) == (None, None, None)
    assert all(name.startswith("rate[") and 0 < mean < 1 for name, mean in summary.top.items())
    oracle = gauss()
    summary = oracle.summary(oracle.observe(oracle.init(), *history("gauss", 400)))
    assert summary.top["weight[x0]"] == pytest.approx(0.5, abs=0.1)
    assert summary.top["weight[x1]"] == pytest.approx(-1.0, abs=0.1)


def test_a_hundred_thousand_categories():
    oracle = conjugate.build(BetaBernoulliFamily(100_000, 0.5, 20.0, BooleanHarm(True)), ratio(running=True))
    rows = np.array([[99_999.0], [5.0], [99_999.0]])
    state = oracle.observe(oracle.init(), rows, [0.0, 1.0, 0.0])
    first, second = oracle.bound(state, rows[:2])
    assert first.predictive == pytest.approx(0.5 / 22.5)
    assert second.predictive == pytest.approx(1.5 / 21.5)
    assert list(oracle.summary(state, top=2).top) == ["rate[99999]", "rate[5]"]


def test_equal_policies_share_compiled_code():
    first = beta(3)
    first.bound(first.init(), np.zeros((1, 1)))
    before = conjugate._bound._cache_size()
    second = beta(3)
    for n in (1, 2, MAX_BATCH, 0, 3 * MAX_BATCH):
        second.bound(second.init(), np.zeros((n, 1)))
    assert conjugate._bound._cache_size() == before


def test_the_host_program_keeps_its_precision():
    oracle = gauss()
    oracle.bound(oracle.observe(oracle.init(), *history("gauss", 3)), np.ones((1, 2)))
    assert jnp.ones(1).dtype == jnp.float32


def test_evidence_of_a_beta_prior_is_the_closed_form():
    # The bound is where the posterior density equals delta times the prior density.
    (bound,) = ask(beta(None, 2.0, 3.0), np.zeros(12), [1.0] * 4 + [0.0] * 8, [0.0])
    log_ratio = stats.beta(6.0, 11.0).logpdf(bound.value) - stats.beta(2.0, 3.0).logpdf(bound.value)
    assert log_ratio == pytest.approx(np.log(DELTA), abs=1e-9)
    assert betaln(2.0, 3.0) == pytest.approx(math.log(1 / 12))


# ---------------------------------------------------------------- what a person is told


@pytest.mark.parametrize("running", [False, True])
def test_the_detail_of_rates_is_their_beta_posteriors_and_intervals(running):
    """The upper ends are the harm bounds, and the lower ones those of the opposite harm."""
    oracle, mirrored = (beta(harmful=h, bound=ratio(running=running)) for h in (True, False))
    rows, outcomes = history("beta", 40)
    for n in (0, 1, 7, 40):
        state = oracle.observe(oracle.init(), rows[:n], outcomes[:n])
        other = mirrored.observe(mirrored.init(), rows[:n], outcomes[:n])
        told = oracle.detail(state, 10).parameters
        assert [one.name for one in told] == ["rate[0]", "rate[1]", "rate[2]"]
        assert oracle.detail(state, 2).parameters == told[:2]
        ask_each = np.arange(3.0)[:, None]
        for k, one in enumerate(told):
            seen = outcomes[:n][rows[:n, 0] == k]
            exact = stats.beta(1.0 + seen.sum(), 2.0 + (1 - seen).sum())
            assert (one.mean, one.deviation) == pytest.approx((exact.mean(), exact.std()))
            assert one.plausible_high == oracle.bound(state, ask_each)[k].value
            assert 1 - one.plausible_low == pytest.approx(mirrored.bound(other, ask_each)[k].value, abs=1e-12)
            assert 0.0 <= one.plausible_low <= one.plausible_high <= 1.0


@pytest.mark.parametrize("box", [None, (-1.2, 0.4)])
def test_the_detail_of_weights_covers_the_plausible_ones(box):
    """Against a dense lattice of weights, membership from the definition: outside of none, and near all of them."""
    oracle, (rows, outcomes) = gauss(box=box), history("gauss", 12)
    state = oracle.observe(oracle.init(), rows, outcomes)
    axis = np.linspace(*(box or (-4, 4)), 601)
    w = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_likelihood = stats.norm(w @ rows.T, 0.5).logpdf(outcomes).sum(axis=1)
    evidence = stats.multivariate_normal(np.zeros(12), 0.25 * np.eye(12) + rows @ rows.T).logpdf(outcomes)
    inside = w[log_likelihood - evidence >= np.log(DELTA)]
    precision = rows.T @ rows / 0.25 + np.eye(2)
    means = np.linalg.solve(precision, rows.T @ outcomes / 0.25)
    told = oracle.detail(state, 5).parameters
    assert [one.name for one in told] == ["weight[x0]", "weight[x1]"]
    assert oracle.detail(state, 1).parameters == told[:1]
    for i, one in enumerate(told):
        assert one.mean == pytest.approx(means[i])
        assert one.deviation == pytest.approx(np.linalg.inv(precision)[i, i] ** 0.5)
        assert one.plausible_low <= inside[:, i].min()
        assert one.plausible_high >= inside[:, i].max()
        if box is None:
            assert one.plausible_low == pytest.approx(inside[:, i].min(), abs=0.03)
            assert one.plausible_high == pytest.approx(inside[:, i].max(), abs=0.03)
            # It is what a bound goes by: that of an outcome which is the weight itself.
            (bound,) = oracle.bound(state, np.eye(2)[i : i + 1])
            assert bound.cautious.parameters["predicted_outcome_at_bound"] == pytest.approx(one.plausible_high)
        else:
            assert box[0] <= one.plausible_low < one.plausible_high <= box[1]


def test_what_no_data_bounds_is_told_as_unbounded_and_in_a_box_as_the_box():
    rows, outcomes = np.array([[1.0, 0.0]] * 5), np.arange(5.0)
    for box, ends in ((None, (-math.inf, math.inf)), ((-2.0, 3.0), (-2.0, 3.0))):
        oracle = gauss(box=box)
        _, untouched = oracle.detail(oracle.observe(oracle.init(), rows, outcomes), 5).parameters
        assert (untouched.plausible_low, untouched.plausible_high) == ends
        assert (untouched.mean, untouched.deviation) == pytest.approx((0.0, 1.0))


def test_without_a_plausible_set_there_are_no_ends():
    for name in ("beta-predictive", "gauss-predictive"):
        oracle = ORACLES[name]()
        told = oracle.detail(oracle.observe(oracle.init(), *history(name, 20)), 5).parameters
        assert {(one.plausible_low, one.plausible_high) for one in told} == {(None, None)}
    refuted = beta(1, bound=ratio(running=True))
    state = refuted.observe(refuted.init(), np.zeros((700, 1)), np.r_[np.ones(200), np.zeros(500)])
    assert refuted.refuted(state)
    (one,) = refuted.detail(state, 5).parameters
    assert (one.plausible_low, one.plausible_high) == (None, None)
    boxed = gauss(box=(-0.1, 0.1))
    state = boxed.observe(boxed.init(), *history("gauss", 200))
    assert boxed.refuted(state)
    assert {one.plausible_low for one in boxed.detail(state, 5).parameters} == {None}


@every_oracle
def test_nothing_is_told_of_what_is_no_number(name):
    oracle = ORACLES[name]()
    state = oracle.observe(oracle.init(), np.full((1, oracle.row_length), math.nan), [1.0])
    assert oracle.detail(state, 5).parameters == ()
    if name.startswith("gauss"):
        huge = oracle.observe(oracle.init(), np.array([[1e160, 1.0]]), [1.0])
        assert all(math.isfinite(one.mean + one.deviation) for one in oracle.detail(huge, 5).parameters)
