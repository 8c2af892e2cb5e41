"""A program's oracle: equal to the one in process, whatever happens to its process."""

import contextlib
import math
import os
import re
import select
import signal
import subprocess
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import program_policies
import pytest

from guardrail.domain import IntervalHarm, PosteriorDetail, ReasonCode
from guardrail.errors import SnapshotInvalid
from guardrail.hypotheses.program import ProgramFamily
from guardrail.hypotheses.program_inputs import ProgramInputs
from guardrail.oracles.enumerated import EnumeratedOracle
from guardrail.policy import load_policy
from guardrail.programs import oracle as isolated
from guardrail.programs.breaker import COOL_DOWN_SECONDS, FAILURES
from guardrail.programs.oracle import IsolatedOracle

ROWS = np.array([[0.5], [1.0], [-1.0], [2.0]] * 5)
OUTCOMES = np.linspace(-1.0, 1.5, 20)
LOOKS = np.array([[1.0], [3.0]])


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    oracle = IsolatedOracle(load_policy(program_policies.write(tmp_path_factory.mktemp("plain"))))
    yield oracle
    oracle.close()


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A program that can be broken by its input, and the clock of its pause."""
    path = program_policies.write(tmp_path_factory.mktemp("trouble"), model=program_policies.TROUBLE)
    clock = Clock()
    oracle = IsolatedOracle(load_policy(path), clock=clock)
    yield oracle, clock
    oracle.close()


def numbers(bounds):
    assert all(bound.failure is None for bound in bounds), bounds
    return [(b.value, b.predictive, b.cautious.name, b.cautious.harm, b.cautious.log_posterior) for b in bounds]


def wait_for_end(pid):
    """Wait until a process that is not ours is gone."""
    poll = select.poll()
    poll.register(os.pidfd_open(pid), select.POLLIN)
    assert poll.poll(20_000), "the process goes on"


def test_it_is_the_oracle_of_the_same_class_in_process(plain):
    def model(inputs):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a * inputs["x"], 1.0))

    spec = plain._spec
    inputs = ProgramInputs([("x", None)], spec)
    family = ProgramFamily(model, "model.py:model", spec, inputs, "y", IntervalHarm(5.0, math.inf, True))
    here = EnumeratedOracle(family, plain._policy.spec.bound)
    assert plain.guarantee == here.guarantee
    assert plain.encode([2.0], None).tolist() == [2.0]
    mine, theirs = here.observe(here.init(), ROWS, OUTCOMES), plain.observe(plain.init(), ROWS, OUTCOMES)
    for left, right in ((here.init(), plain.init()), (mine, theirs)):
        for a, b in zip(numbers(here.bound(left, LOOKS)), numbers(plain.bound(right, LOOKS)), strict=True):
            assert a[:2] + a[3:] == pytest.approx(b[:2] + b[3:], rel=1e-12)
            assert a[2] == b[2]
        assert plain.summary(right, 3).top == pytest.approx(here.summary(left, 3).top)
        told = [(h.name, dict(h.parameters), h.plausible) for h in plain.detail(right, 40).hypotheses]
        assert told == [(h.name, dict(h.parameters), h.plausible) for h in here.detail(left, 40).hypotheses]
        assert plain.count(right) == here.count(left)
        assert not plain.failed(right)
        assert not plain.refuted(right)
    # However the observations come, the state is the same bit for bit.
    piecewise = plain.init()
    for row, outcome in zip(ROWS, OUTCOMES, strict=True):
        piecewise = plain.observe(piecewise, row[None], np.array([outcome]))
    assert numbers(plain.bound(piecewise, LOOKS)) == numbers(plain.bound(theirs, LOOKS))
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.dump(piecewise), plain.dump(theirs)))


def test_a_killed_process_loses_no_observation_and_doubles_none(plain, monkeypatch):
    state = plain.observe(plain.init(), ROWS[:12], OUTCOMES[:12])
    before = numbers(plain.bound(state, LOOKS))
    os.kill(plain._session.child.pid, signal.SIGKILL)
    plain._session.child._process.wait()
    after = plain.observe(state, ROWS[12:], OUTCOMES[12:])  # while the process is gone
    assert numbers(plain.bound(state, LOOKS)) == before
    whole = plain.observe(plain.init(), ROWS, OUTCOMES)
    assert numbers(plain.bound(after, LOOKS)) == numbers(plain.bound(whole, LOOKS))
    assert plain.count(after) == 20
    # Neither does a state on a base of its own.
    monkeypatch.setattr(isolated, "DUMP_EVERY", 4)
    rebased = plain.observe(state, ROWS[12:], OUTCOMES[12:])
    assert rebased.base_count == 20
    assert numbers(plain.bound(rebased, LOOKS)) == numbers(plain.bound(whole, LOOKS))


def test_a_dump_is_loaded_even_if_the_process_did_not_write_it(plain, monkeypatch):
    state = plain.observe(plain.init(), ROWS, OUTCOMES)
    expected = numbers(plain.bound(state, LOOKS))
    written = plain.dump(state)
    assert any(name.startswith("base/") for name in written)
    monkeypatch.setattr(plain, "_dumped", lambda state: (_ for _ in ()).throw(isolated.ChildFailed("gone")))
    kept = plain.dump(state)
    assert len(kept["outcomes"]) == 20
    for arrays in (written, kept):
        loaded = plain.load(arrays)
        assert plain.count(loaded) == 20
        assert numbers(plain.bound(loaded, LOOKS)) == expected


def test_a_program_that_fails_tells_nothing_in_full(plain, monkeypatch):
    """Neither does one whose answer is none."""
    state = plain.observe(plain.init(), ROWS[:4], OUTCOMES[:4])
    assert len(plain.detail(state, 3).hypotheses) == 3
    fine = {"name": "a", "parameters": {}, "log_posterior": 0.0, "plausible": True}
    for hypotheses in ("x", [1], [{"name": "a"}], [fine | {"parameters": {"a": "x"}}], [fine | {"log_posterior": []}]):
        answer = {"detail": {"hypotheses": hypotheses, "parameters": []}}
        monkeypatch.setattr(plain._session, "attempt", lambda work, answer=answer: (answer, {}))
        assert plain.detail(state, 3) == PosteriorDetail()
    too_many = {"detail": {"hypotheses": [fine] * 9, "parameters": []}}
    monkeypatch.setattr(plain._session, "attempt", lambda work: (too_many, {}))
    assert len(plain.detail(state, 3).hypotheses) == 3
    monkeypatch.setattr(plain._session, "attempt", lambda work: (_ for _ in ()).throw(isolated.ChildFailed("gone")))
    assert plain.detail(state, 3) == PosteriorDetail()


def test_a_damaged_dump_is_refused(plain):
    written = plain.dump(plain.observe(plain.init(), ROWS, OUTCOMES))
    for change in ({"rows": np.zeros((1, 2))}, {"base_count": np.asarray(0)}, {"outcomes": np.zeros(1, np.float32)}):
        with pytest.raises(SnapshotInvalid):
            plain.load({**written, **change})
    with pytest.raises(SnapshotInvalid, match="holds rows, outcomes"):
        plain.load({})
    assert numbers(plain.bound(plain.init(), LOOKS))


UNORDERED = """\
import numpyro
import numpyro.distributions as dist

NAMES = {"a", "b", "c", "d", "e", "f", "g", "h"}


def model(inputs):
    total = sum(numpyro.sample(name, dist.Normal(0.0, 1.0)) for name in NAMES)
    numpyro.sample("y", dist.Normal(total * inputs["x"], 1.0))
"""


@pytest.mark.slow
def test_the_order_of_a_set_is_the_same_in_every_process(tmp_path):
    policy = load_policy(program_policies.write(tmp_path, model=UNORDERED))
    with contextlib.closing(IsolatedOracle(policy)) as one, contextlib.closing(IsolatedOracle(policy)) as other:
        state = one.observe(one.init(), ROWS, OUTCOMES)
        expected = numbers(one.bound(state, LOOKS))
        assert numbers(other.bound(other.load(one.dump(state)), LOOKS)) == expected


def test_a_dump_of_a_program_with_other_numbers_is_refused(plain):
    """The same files may make another class, for instance with another release of a library."""
    written = plain.dump(plain.observe(plain.init(), ROWS, OUTCOMES))
    assert plain.count(plain.load(written)) == 20
    without = {name: value for name, value in written.items() if name != "fingerprint"}
    for changed in ({**written, "fingerprint": np.frombuffer(b"another", np.uint8)}, without):
        with pytest.raises(SnapshotInvalid, match="gives other numbers"):
            plain.load(changed)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (100.0, "gives a log-likelihood or a harm probability that is no number"),
        (200.0, r"raises .*out of order"),
        (600.0, r"did not answer within 2 s; it was stopped"),
        pytest.param(300.0, "ended by itself with exit status 7: what a program prints", marks=pytest.mark.slow),
        pytest.param(
            400.0,
            "needs more memory than it is allowed|used more memory than|too little memory",
            marks=pytest.mark.slow,
        ),
        pytest.param(500.0, r"did not answer within 2 s; it was stopped", marks=pytest.mark.slow),
    ],
)
def test_a_program_that_fails_is_a_rejection_with_its_name(broken, x, message):
    oracle, clock = broken
    clock.now += COOL_DOWN_SECONDS
    (bound,) = oracle.bound(oracle.init(), np.array([[x]]))
    assert (bound.value, bound.predictive) == (1.0, None)
    assert bound.failure.code is ReasonCode.MODEL_FAILED
    assert bound.failure.message.startswith("model.py:model ")
    assert re.search(message, bound.failure.message), bound.failure.message


@pytest.mark.slow
def test_after_failures_it_is_left_alone_for_a_while_and_then_goes_on(broken, monkeypatch):
    oracle, clock = broken
    clock.now += COOL_DOWN_SECONDS
    good = oracle.observe(oracle.init(), ROWS[:3], OUTCOMES[:3])
    expected = numbers(oracle.bound(good, LOOKS))
    starts = []
    start = oracle._session.start
    monkeypatch.setattr(oracle._session, "start", lambda: starts.append(1) or start())
    bad = oracle.observe(good, np.array([[300.0]]), np.zeros(1))
    assert oracle.count(bad) == 4  # what was reported is kept, whatever the program makes of it
    for _ in range(FAILURES - 1):
        assert oracle.bound(bad, LOOKS)[0].failure.code is ReasonCode.MODEL_FAILED
    assert oracle.failed(bad)
    assert "is left alone for 30 s: ended by itself" in oracle.bound(good, LOOKS)[0].failure.message
    assert oracle.summary(bad).revision == 4
    assert len(starts) == FAILURES - 1
    clock.now += COOL_DOWN_SECONDS
    assert numbers(oracle.bound(good, LOOKS)) == expected


@pytest.mark.slow
def test_a_program_that_changed_is_not_used_after_a_restart(plain, monkeypatch):
    monkeypatch.setattr(plain._session, "fingerprint", "another")
    plain._session.child.kill()
    (bound, _) = plain.bound(plain.init(), LOOKS)
    assert "after a restart it gives other numbers than before" in bound.failure.message


def test_what_is_closed_rejects(plain, monkeypatch):
    monkeypatch.setattr(plain._session, "_closed", True)
    assert "is closed" in plain.bound(plain.init(), LOOKS)[0].failure.message


PARENT = """
import os, sys
from guardrail.policy import load_policy
from guardrail.programs.oracle import IsolatedOracle
oracle = IsolatedOracle(load_policy(sys.argv[1]))
print(oracle._session.child.pid, flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_the_process_ends_with_the_service(tmp_path):
    path = program_policies.write(tmp_path)
    done = subprocess.run([sys.executable, "-c", PARENT, path], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    with contextlib.suppress(ProcessLookupError):  # it may be gone already
        wait_for_end(pid)
