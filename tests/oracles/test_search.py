"""The search by blocks: the same bounds as a look at everything, cut anywhere, on any number of devices."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guardrail.domain import BooleanHarm, IntervalHarm
from guardrail.hypotheses.bernoulli_logistic import BernoulliLogisticFamily
from guardrail.hypotheses.linear_gaussian_lattice import LinearGaussianLatticeFamily
from guardrail.oracles import blocks, enumerated
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy.schema import CoefficientGrid, IidBound, PlausibleBound, PredictiveBound, RatioBound

ROOT = Path(__file__).parents[2]
ABOVE = IntervalHarm(6.0, math.inf, inside=True)
EVENTS = [ABOVE, IntervalHarm(-math.inf, 2.0, inside=True), IntervalHarm(4.0, 5.0, inside=True)]
EVENTS.append(IntervalHarm(2.0, 8.0, inside=False))
RATIO, RUNNING = RatioBound(kind="ratio", delta=0.05), RatioBound(kind="ratio", delta=0.05, running=True)
PLAUSIBLE = PlausibleBound(kind="plausible", alpha=1e-6)
PLAUSIBLE_RUNNING = PlausibleBound(kind="plausible", alpha=1e-6, running=True)
BOUNDS = [RATIO, RUNNING, PLAUSIBLE, PLAUSIBLE_RUNNING, IidBound(kind="iid"), PredictiveBound(kind="predictive")]
DIMENSION = 6
SKEWED = (0.4, 0.3, 0.2, 0.1)


def lattice(prior=None, harm=ABOVE):
    return LinearGaussianLatticeFamily(4, 1.0, prior, harm, tuple(f"x{i}" for i in range(DIMENSION)))


def stream(n=30, seed=0):
    random = np.random.default_rng(seed)
    rows = random.random((n, DIMENSION))
    return rows, rows @ random.integers(0, 4, DIMENSION) + random.normal(size=n)


def actions(n=9):
    return np.random.default_rng(9).random((n, DIMENSION)) * 1.5


@pytest.fixture
def small_blocks(monkeypatch):
    """64 blocks of one row, 64 hypotheses each, in a class that is otherwise one block."""
    monkeypatch.setattr(blocks, "BLOCK", 64)


# ---------------------------------------------------------------- the cut


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 500))
def test_blocks_hold_every_row_once_and_are_no_larger_than_asked(rows, width, block):
    cpu = jax.local_devices(backend="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        cut = blocks.Blocks(rows * width, width, cpu)
    assert cut.count * cut.rows == rows
    assert cut.rows == 1 or cut.rows * width <= block


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="rows of 3"):
        blocks.Blocks(10, 3, jax.local_devices(backend="cpu"))
    with pytest.raises(ValueError, match="0 devices"):
        blocks.Blocks(10, 5, [])


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize(
    ("spec", "prior"),
    [(RATIO, None), (RUNNING, SKEWED), (PLAUSIBLE, SKEWED), (PLAUSIBLE_RUNNING, None), (BOUNDS[4], SKEWED)],
    ids=["ratio", "running", "plausible", "plausible-running", "iid"],
)
def test_blocks_change_nothing_but_rounding(spec, prior, monkeypatch):
    rows, outcomes = stream(3000)
    whole = EnumeratedOracle(lattice(prior), spec)
    monkeypatch.setattr(blocks, "BLOCK", 64)
    cut = EnumeratedOracle(lattice(prior), spec)
    assert (whole._blocks.count, cut._blocks.count) == (1, 64)
    states = whole.init(), cut.init()
    for n in (0, 1, 5, 3000):
        states = [o.observe(o.init(), rows[:n], outcomes[:n]) for o in (whole, cut)]
        left, right = (o.bound(s, actions()) for o, s in zip((whole, cut), states, strict=True))
        np.testing.assert_allclose([b.value for b in left], [b.value for b in right], rtol=1e-9)
        np.testing.assert_allclose([b.predictive for b in left], [b.predictive for b in right], rtol=1e-8, atol=2e-9)
        if spec.kind in ("ratio", "plausible"):
            assert (np.asarray(states[0].members) == np.asarray(states[1].members)).all()
            assert all(b.cautious.harm == b.value for b in right)
            assert not any(b.search.truncated for b in right)
            if n == 3000:
                assert min(b.search.scanned for b in right) < 0.5


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("harm", EVENTS, ids=["above", "below", "inside", "outside"])
def test_the_bound_is_the_largest_harm_of_the_set_in_extended_detail(harm):
    """Against every member's exact harm, so that no block with a more harmful one was left out."""
    oracle = EnumeratedOracle(lattice(harm=harm), RATIO)
    rows, outcomes = stream()
    weights = np.array(list(itertools.product(range(4), repeat=DIMENSION)), float)
    for n in (0, 3, 30):
        state = oracle.observe(oracle.init(), rows[:n], outcomes[:n])
        members = np.asarray(state.members)
        mean = weights[members] @ actions().T
        inside = stats.norm.cdf(harm.upper - mean) - stats.norm.cdf(harm.lower - mean)
        exact = (inside if harm.inside else 1.0 - inside).max(axis=0)
        found = [bound.value for bound in oracle.bound(state, actions())]
        assert (np.array(found) >= exact * (1 - 1e-9)).all()
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(EVENTS),
    st.lists(st.floats(-3, 3), min_size=DIMENSION, max_size=DIMENSION),
    st.sampled_from(["lattice", "logistic"]),
)
def test_no_score_of_a_row_is_above_its_ceiling(event, features, kind):
    if kind == "lattice":
        family, row = lattice(harm=event), np.array(features)
    else:
        grid = CoefficientGrid(lower=-2.0, upper=3.0, points=6, sd=1.0)
        family = BernoulliLogisticFamily(grid, (grid, grid), BooleanHarm(event.inside), ("a", "b"))
        row = np.array(features[:2])
    with jax.enable_x64(True):
        score = np.asarray(jax.jit(family.harm_score)(family.arrays, row)).reshape(-1, family.width)
        ceiling = np.asarray(jax.jit(family.harm_score_ceiling)(family.arrays, row))
    assert ceiling.shape == (family.size // family.width,)
    # The halves' products may be summed in another order; scores are raised by more than that.
    assert (ceiling >= score.max(axis=1) - 1e-14 * (1 + np.abs(score).max())).all()


# ---------------------------------------------------------------- deadlines


class Clock:
    """Stands still while it is looked at so many times, then jumps past every deadline."""

    def __init__(self, looks):
        self.left = looks

    def monotonic(self):
        self.left -= 1
        return 0.0 if self.left > 0 else 1e9


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("harm", EVENTS, ids=["above", "below", "inside", "outside"])
def test_a_truncated_search_is_never_below_the_whole_one(harm, monkeypatch):
    oracle = EnumeratedOracle(lattice(harm=harm), RATIO)
    rows, outcomes = stream(40)
    state = oracle.observe(oracle.init(), rows, outcomes)
    whole, truncated = oracle.bound(state, actions()), 0
    for looks in range(1, 24):
        monkeypatch.setattr(enumerated, "time", Clock(looks))
        for partial, full in zip(oracle.bound(state, actions(), deadline=1.0), whole, strict=True):
            assert full.value <= partial.value <= 1.0
            assert partial.guarantee == full.guarantee
            if partial.search.truncated:
                truncated += 1
                assert partial.search.scanned < 1.0
                assert partial.cautious is None or partial.cautious.harm == partial.value
            else:
                assert partial.value == full.value
                assert partial.predictive is None or partial.predictive == full.predictive
    assert truncated > 0, "at least one search was cut short"


@pytest.mark.usefixtures("small_blocks")
def test_time_enough_is_a_search_to_the_end():
    oracle = EnumeratedOracle(lattice(), RATIO)
    rows, outcomes = stream(6)
    state = oracle.observe(oracle.init(), rows, outcomes)
    assert oracle.bound(state, actions(), deadline=math.inf) == oracle.bound(state, actions())


class Counting(LinearGaussianLatticeFamily):
    """Counts how often its ceilings are traced: once for every search program."""

    traced = 0

    def harm_score_ceiling(self, arrays, row):
        type(self).traced += 1
        return super().harm_score_ceiling(arrays, row)


@pytest.mark.usefixtures("small_blocks")
def test_going_on_with_a_search_traces_nothing_again(monkeypatch):
    family = Counting(4, 1.0, None, ABOVE, tuple(f"x{i}" for i in range(DIMENSION)))
    oracle = EnumeratedOracle(family, RATIO)
    state = oracle.observe(oracle.init(), *stream(40))
    monkeypatch.setattr(enumerated, "time", Clock(1))
    oracle.bound(state, actions(1), deadline=1.0)
    once = Counting.traced
    assert once > 0
    for looks in (4, 20):
        monkeypatch.setattr(enumerated, "time", Clock(looks))
        oracle.bound(oracle.init(), actions(2), deadline=1.0)
        oracle.bound(state, actions(3), deadline=1.0)
    assert Counting.traced == once


def test_a_class_of_one_block_needs_no_clock(monkeypatch):
    oracle = EnumeratedOracle(lattice(), RATIO)
    assert oracle.unhurried
    monkeypatch.setattr(enumerated, "time", None)
    assert oracle.bound(oracle.init(), actions(), deadline=-1.0) == oracle.bound(oracle.init(), actions())


class NoCeiling(LinearGaussianLatticeFamily):
    """Knows nothing of a row without looking at it."""

    def harm_score_ceiling(self, arrays, row):
        return jax.numpy.full(self.size // self.width, jax.numpy.inf)


class NotANumber(LinearGaussianLatticeFamily):
    """Its harm is not a number for one hypothesis of the last row."""

    def harm_score(self, arrays, row):
        score = super().harm_score(arrays, row)
        last = jax.numpy.repeat(arrays["outer"].sum(axis=1) == 9.0, self.width)
        return jax.numpy.where(last, jax.numpy.nan, score)


@pytest.mark.usefixtures("small_blocks")
def test_without_ceilings_everything_is_looked_at_and_what_was_not_counts_as_harmful(monkeypatch):
    names = tuple(f"x{i}" for i in range(DIMENSION))
    family = NoCeiling(4, 1.0, None, ABOVE, names)
    family.trace_key = ("no ceiling", family.trace_key)
    oracle, plain = EnumeratedOracle(family, RATIO), EnumeratedOracle(lattice(), RATIO)
    found = oracle.bound(oracle.init(), actions())
    assert [bound.search.scanned for bound in found] == [1.0] * 9
    assert [bound.value for bound in found] == [bound.value for bound in plain.bound(plain.init(), actions())]
    monkeypatch.setattr(enumerated, "time", Clock(2))
    cut_short = oracle.bound(oracle.init(), actions(), deadline=1.0)
    assert [(bound.value, bound.search.truncated) for bound in cut_short] == [(1.0, True)] * 9


@pytest.mark.usefixtures("small_blocks")
def test_a_harm_that_is_no_number_is_no_bound():
    family = NotANumber(4, 1.0, None, ABOVE, tuple(f"x{i}" for i in range(DIMENSION)))
    family.trace_key = ("not a number", family.trace_key)
    oracle = EnumeratedOracle(family, RATIO)
    found = oracle.bound(oracle.init(), actions())
    assert all(bound.failure is not None and bound.value == 1.0 for bound in found)


# ---------------------------------------------------------------- devices

ON_DEVICES = """
import json, sys
import jax, numpy as np
from guardrail.oracles import blocks
blocks.BLOCK = 256
from tests_support import lattice, stream, actions, BOUNDS, SKEWED
from guardrail.oracles.enumerated import EnumeratedOracle
import hashlib
told = {}
for number, spec in enumerate(BOUNDS):
    oracle = EnumeratedOracle(lattice(SKEWED if number % 2 else None), spec)
    rows, outcomes = stream()
    state = oracle.observe(oracle.init(), rows, outcomes)
    dumped = {name: hashlib.sha256(np.asarray(a).tobytes()).hexdigest() for name, a in oracle.dump(state).items()}
    state = oracle.load(oracle.dump(state))
    found = oracle.bound(state, actions())
    told[spec.kind + str(getattr(spec, "running", ""))] = [
        dumped, state.log_total, [[b.value, b.predictive, b.cautious.name, b.cautious.log_posterior] for b in found]]
print(json.dumps({"devices": oracle._blocks.devices, "told": told}))
"""


def run_on(count, folder):
    (folder / "tests_support.py").write_text(Path(__file__).read_text())
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", ON_DEVICES], env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_four_devices_give_the_same_bits_as_one(tmp_path):
    one, four = run_on(1, tmp_path), run_on(4, tmp_path)
    assert (one["devices"], four["devices"]) == (1, 4)
    assert one["told"] == four["told"]
