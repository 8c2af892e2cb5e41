"""Frames, histories and the pause after failures: the parts that need no process."""

import io

import numpy as np
import pytest

from guardrail.domain import CautiousHypothesis, Guarantee, GuaranteeKind, HarmBound, IntervalHarm, PosteriorSummary
from guardrail.programs import codec, messages
from guardrail.programs.breaker import COOL_DOWN_SECONDS, FAILURES, Breaker
from guardrail.programs.history import History

GUARANTEE = Guarantee(GuaranteeKind.THEOREM, 0.95, ("a", "b"), "c")


def test_a_frame_comes_back():
    arrays = {"a": np.arange(5.0), "file/x.py": np.frombuffer(b"abc", np.uint8)}
    stream = io.BytesIO(messages.encode({"op": "x", "n": 1.5}, arrays) + messages.encode({}, {}))
    header, out = messages.read(stream.read)
    assert header == {"op": "x", "n": 1.5}
    assert out["a"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert out["file/x.py"].tobytes() == b"abc"
    assert messages.read(stream.read) == ({}, {})


@pytest.mark.parametrize("damage", [lambda f: b"XXXX" + f[4:], lambda f: f[:20] + b"\xff" + f[21:]])
def test_a_damaged_frame(damage):
    frame = damage(messages.encode({"op": "x"}, {"a": np.zeros(3)}))
    with pytest.raises(messages.BrokenFrame):
        messages.read(io.BytesIO(frame).read)


def test_objects_are_never_unpickled():
    body = io.BytesIO()
    np.savez(body, a=np.array([{}], dtype=object))
    with pytest.raises(messages.BrokenFrame):
        messages.decode(b"{}", body.getvalue())


def test_a_history_is_immutable_and_may_branch():
    empty = History.empty()
    one = empty.extended(np.ones((2, 1)), np.array([1.0, 2.0]))
    left = one.extended(np.ones((1, 1)), np.array([3.0]))
    right = one.extended(np.ones((1, 1)), np.array([4.0]))
    assert [len(h) for h in (empty, one, left, right)] == [0, 2, 3, 3]
    assert empty.arrays(1)[0].shape == (0, 1)
    assert one.arrays(1)[1].tolist() == [1.0, 2.0]
    assert left.arrays(1)[1].tolist() == [1.0, 2.0, 3.0]
    assert right.arrays(1)[1].tolist() == [1.0, 2.0, 4.0]


def test_the_pause_after_failures():
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES):
        assert breaker.waits() == 0.0
        breaker.failed()
    assert breaker.waits() == COOL_DOWN_SECONDS
    now[0] += COOL_DOWN_SECONDS
    assert breaker.waits() == 0.0  # one try
    breaker.failed()
    assert breaker.waits() == COOL_DOWN_SECONDS
    now[0] += COOL_DOWN_SECONDS
    breaker.succeeded()
    breaker.failed()
    assert breaker.waits() == 0.0


def test_bounds_and_summaries_come_back():
    bound = HarmBound(0.1 + 0.2, 1e-300, CautiousHypothesis("draw 1", {"a": 1 / 3}, 0.25, -7.5), GUARANTEE)
    assert codec.bound_from_dict(codec.bound_to_dict(bound), GUARANTEE) == bound
    summary = PosteriorSummary(3, False, 1000, 10, 0.5, {"draw 1": 0.25})
    assert codec.summary_from_dict(codec.summary_to_dict(summary), 3) == summary
    assert codec.guarantee_from_dict(codec.guarantee_to_dict(GUARANTEE)) == GUARANTEE
    harm = IntervalHarm(2.0, float("inf"), inside=True)
    assert codec.harm_from_dict(codec.harm_to_dict(harm)) == harm


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_no_bound(value):
    values = codec.bound_to_dict(HarmBound(0.5, 0.5, None, GUARANTEE))
    for name in ("value", "predictive"):
        with pytest.raises(ValueError, match="no harm probabilities"):
            codec.bound_from_dict({**values, name: value}, GUARANTEE)
