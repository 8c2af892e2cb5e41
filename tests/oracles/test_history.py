"""The oracle over worlds with memory: the numbers, batches, snapshots, bad input, and what it promises."""

import itertools

import numpy as np
import pytest

from guardrail.domain import BooleanHarm, GuaranteeKind, ReasonCode
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.hidden_markov import HiddenMarkovFamily
from guardrail.oracles.build import build_oracle
from guardrail.oracles.history import HistoryOracle
from guardrail.policy.memory_schema import HiddenMarkov
from guardrail.policy.schema import IidBound, PlausibleBound, PredictiveBound, RatioBound
from guardrail.testing import reference

DAMAGE = BooleanHarm(harmful=True)
TABLE = (
    {"name": "a", "initial": (1.0, 0.0), "transitions": {"x": ((0.9, 0.1), (0.0, 1.0)), "y": ((0.5, 0.5), (0.2, 0.8))}},
    {"name": "b", "initial": (0.5, 0.5), "transitions": {"x": ((1.0, 0.0), (0.3, 0.7)), "y": ((0.1, 0.9), (0.9, 0.1))}},
    {"name": "c", "initial": (1.0,), "transitions": {"x": ((1.0,),), "y": ((1.0,),)}},
)
RATES = ((0.05, 0.6), (0.2, 0.9), (0.3,))
PRIOR = (0.5, 0.3, 0.2)
SPEC = HiddenMarkov.model_validate(
    {
        "family": "hidden-markov",
        "category": "action.kind",
        "table": tuple(
            {**row, "rates": rates, "prior": prior} for row, rates, prior in zip(TABLE, RATES, PRIOR, strict=True)
        ),
    }
)
BOUNDS = [
    RatioBound(kind="ratio", delta=0.3),
    RatioBound(kind="ratio", delta=0.3, running=True),
    PlausibleBound(kind="plausible", alpha=0.1),
    PlausibleBound(kind="plausible", alpha=0.1, running=True),
    IidBound(kind="iid"),
    PredictiveBound(kind="predictive"),
]
each_bound = pytest.mark.parametrize("spec", BOUNDS, ids=lambda s: f"{s.kind}{' running' * getattr(s, 'running', 0)}")


def oracle(spec=BOUNDS[1]):
    return HistoryOracle(HiddenMarkovFamily(SPEC, DAMAGE), spec)


def stream(count, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 2, (count, 1)).astype(float), (random.random(count) < 0.35).astype(float)


class SlowFilter:
    """Beliefs and log likelihoods in plain NumPy."""

    def __init__(self):
        self.beliefs = [np.array(row["initial"]) for row in TABLE]
        self.log_likelihood = np.zeros(3)

    def predicted(self, kind):
        return [belief @ np.array(row["transitions"][kind]) for belief, row in zip(self.beliefs, TABLE, strict=True)]

    def harm(self, kind):
        return np.array([p @ np.array(rates) for p, rates in zip(self.predicted(kind), RATES, strict=True)])

    def observe(self, kind, outcome):
        for h, (p, rates) in enumerate(zip(self.predicted(kind), RATES, strict=True)):
            joint = p * (np.array(rates) if outcome else 1 - np.array(rates))
            self.log_likelihood[h] += np.log(joint.sum())
            self.beliefs[h] = joint / joint.sum()


@each_bound
def test_bounds_are_those_of_the_reference(spec):
    found_by, slow, so_far = oracle(spec), SlowFilter(), np.ones(3, bool)
    rows, outcomes = stream(60)
    state, log_prior = found_by.init(), np.log(PRIOR)
    actions = np.array([[0.0], [1.0]])
    changed = set()
    for t in range(len(rows) + 1):
        log_posterior = reference.posterior(log_prior, slow.log_likelihood)
        harm = np.stack([slow.harm("x"), slow.harm("y")], axis=1)
        if spec.kind in ("iid", "predictive"):
            expected = getattr(reference, spec.kind)(log_posterior, harm)
        else:
            now = (
                reference.ratio_set(log_posterior, log_prior, spec.delta)
                if spec.kind == "ratio"
                else reference.plausible_set(log_posterior, spec.alpha)
            )
            so_far = now & so_far if spec.running else now
            expected = reference.set_bound(so_far, harm)
        found = found_by.bound(state, actions)
        np.testing.assert_allclose([b.value for b in found], expected, rtol=1e-9)
        np.testing.assert_allclose([b.predictive for b in found], reference.predictive(log_posterior, harm), rtol=1e-9)
        changed.add(round(float(expected[0]), 6))
        if t < len(rows):
            state = found_by.observe(state, rows[t : t + 1], outcomes[t : t + 1])
            slow.observe("xy"[int(rows[t, 0])], outcomes[t])
    assert len(changed) > 10, "the bound hardly depends on the history"


def same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("cuts", [(0, 200), (0, 1, 2, 100, 200), (0, 64, 128, 200), (0, 63, 65, 200)])
def test_batches_do_not_matter(cuts):
    found_by, (rows, outcomes) = oracle(), stream(200)
    whole = found_by.observe(found_by.init(), rows, outcomes)
    state = found_by.init()
    for start, stop in itertools.pairwise(cuts):
        state = found_by.observe(state, rows[start:stop], outcomes[start:stop])
    same(found_by.dump(state), found_by.dump(whole))
    many = np.tile([[0.0], [1.0]], (70, 1))
    alone = [found_by.bound(state, row[None])[0] for row in many[:2]]
    assert found_by.bound(state, many) == alone * 70


def test_a_snapshot_restores_the_state_exactly():
    found_by, (rows, outcomes) = oracle(), stream(80)
    middle = found_by.observe(found_by.init(), rows[:50], outcomes[:50])
    restored = found_by.load(found_by.dump(middle))
    same(
        found_by.dump(found_by.observe(restored, rows[50:], outcomes[50:])),
        found_by.dump(found_by.observe(middle, rows[50:], outcomes[50:])),
    )
    assert found_by.count(restored) == 50
    assert found_by.bound(restored, rows[:3]) == found_by.bound(middle, rows[:3])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_belief", None),
        ("log_belief", np.zeros((3, 2))),
        ("log_belief", np.full((3, 2), np.nan)),
        ("log_belief", np.zeros((2, 2))),
        ("belief_rounding", np.float64(-1.0)),
        ("belief_rounding", np.float64(np.nan)),
        ("belief_rounding", np.float32(0.0)),
        ("log_weight", np.zeros(7)),
        ("count", np.int64(-1)),
    ],
)
def test_a_damaged_snapshot_is_refused(name, value):
    found_by = oracle()
    arrays = found_by.dump(found_by.init())
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.asarray(value)
    with pytest.raises(SnapshotInvalid):
        found_by.load(arrays)


@pytest.mark.parametrize(("row", "outcome"), [(0.0, np.nan), (np.nan, 1.0), (0.0, 0.5), (5.0, 1.0), (0.0, np.inf)])
def test_what_is_not_a_number_rejects_everything_from_then_on(row, outcome):
    found_by, (rows, outcomes) = oracle(), stream(10)
    state = found_by.observe(found_by.init(), np.array([[row]]), np.array([outcome]))
    state = found_by.observe(state, rows, outcomes)
    assert found_by.failed(state)
    (bound,) = found_by.bound(state, rows[:1])
    assert (bound.value, bound.failure.code) == (1.0, ReasonCode.NUMERICAL_FAILURE)


def test_an_input_that_is_not_a_number_is_rejected_alone():
    found_by = oracle()
    good, bad, unknown = found_by.bound(found_by.init(), np.array([[0.0], [np.nan], [2.0]]))
    assert good.failure is None
    assert bad.failure.code == unknown.failure.code == ReasonCode.NUMERICAL_FAILURE
    assert bad.value == unknown.value == 1.0


def test_a_class_without_an_explanation_is_refuted():
    row = {"name": "never", "initial": (1.0,), "transitions": ((1.0,),), "rates": (0.0,)}
    spec = HiddenMarkov.model_validate(
        {"family": "hidden-markov", "table": (row, {**row, "name": "no", "rates": (1e-9,)})}
    )
    found_by = HistoryOracle(HiddenMarkovFamily(spec, DAMAGE), RatioBound(kind="ratio", delta=0.1, running=True))
    sure = found_by.observe(found_by.init(), np.zeros((40, 1)), np.zeros(40))
    assert not found_by.refuted(sure)
    both = HiddenMarkov.model_validate({"family": "hidden-markov", "table": (row, {**row, "name": "also"})})
    found_by = HistoryOracle(HiddenMarkovFamily(both, DAMAGE), RatioBound(kind="ratio", delta=0.1))
    state = found_by.observe(found_by.init(), np.zeros((1, 1)), np.ones(1))
    assert found_by.refuted(state)
    assert found_by.summary(state).refuted
    assert found_by.bound(state, np.zeros((1, 1)))[0].failure.code == ReasonCode.CLASS_REFUTED


def test_what_it_promises_and_what_it_needs():
    found_by = build_oracle(SPEC, BOUNDS[0], DAMAGE, ())
    assert isinstance(found_by, HistoryOracle)
    assert found_by.needs_current is True
    assert found_by.guarantee.kind is GuaranteeKind.THEOREM
    assert any("before the next check" in assumption for assumption in found_by.guarantee.assumptions)
    summary = found_by.summary(found_by.init())
    assert summary.class_size == summary.plausible == 3
    assert summary.top == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
    with pytest.raises(ValueError, match=r"float64\[A, 1\]"):
        found_by.bound(found_by.init(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="as many outcomes"):
        found_by.observe(found_by.init(), np.zeros((2, 1)), np.zeros(1))


@each_bound
def test_the_detail_is_the_posterior_and_the_set_that_bounds_rest_on(spec):
    told_by, slow, so_far = oracle(spec), SlowFilter(), np.ones(3, bool)
    rows, outcomes = stream(30)
    state, log_prior = told_by.init(), np.log(PRIOR)
    for t in range(len(rows) + 1):
        log_posterior = reference.posterior(log_prior, slow.log_likelihood)
        if spec.kind == "ratio":
            now = reference.ratio_set(log_posterior, log_prior, spec.delta)
        elif spec.kind == "plausible":
            now = reference.plausible_set(log_posterior, spec.alpha)
        else:
            now = None
        so_far = now & so_far if now is not None and spec.running else now
        told = {one.name: one for one in told_by.detail(state, 9).hypotheses}
        for place, name in enumerate("abc"):
            assert told[name].log_posterior == pytest.approx(log_posterior[place], abs=1e-9)
            assert told[name].plausible == (None if now is None else so_far[place])
        if t < len(rows):
            state = told_by.observe(state, rows[t : t + 1], outcomes[t : t + 1])
            slow.observe("xy"[int(rows[t, 0])], outcomes[t])
