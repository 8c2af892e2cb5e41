"""A rebuilt posterior equals the live one exactly, whatever the road: log alone, snapshot and log, any batching."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from guardrail.canonical import canonical_json, digest
from guardrail.errors import SnapshotInvalid, WorldUnavailable
from guardrail.guard import Judge
from guardrail.policy import load_policy
from guardrail.rebuild import decode_snapshot, encode_snapshot, make_snapshot, restore
from guardrail.store import open_store
from guardrail.store.base import NewObservation

POLICIES = Path(__file__).resolve().parent.parent / "policies"
COUNT = 150


def oring(draw):
    return {"joint_temperature_f": draw.uniform(30, 90)}, {}, draw.random() < 0.3


def bandit(draw):
    return {}, {"features": [float(draw.randint(0, 1)) for _ in range(10)]}, draw.gauss(2, 2)


def tool_call(draw):
    action = {"tool": draw.choice(["search", "send_email"]), "argument": "x", "writes": False, "amount_eur": 1.0}
    return {"environment": "staging", "ticket": "T-1"}, action, draw.random() < 0.05


def reactor(draw):
    context = {"jacket_temperature_c": 60.0, "stirrer_running": True, "catalyst_lot_released": True}
    action = {"charge_kg": draw.uniform(400, 600), "feed_rate_l_h": draw.uniform(50, 90)}
    return context, {**action, "coolant_flow_m3_h": draw.uniform(8, 14)}, draw.gauss(85, 3)


@pytest.fixture(params=[("oring-launch", oring), ("exploding-bandit", bandit), ("reactor-temperature", reactor)])
def case(request):
    name, make = request.param
    draw = random.Random(7)
    return Judge(load_policy(POLICIES / name / "policy.yaml")), [make(draw) for _ in range(COUNT)]


def record(store, judge, history, first=0):
    contents = [canonical_json({"action": a, "context": c, "outcome": y}) for c, a, y in history]
    store.append_observations(
        [NewObservation(judge.policy.name, "w", f"o{i}", digest(text), text) for i, text in enumerate(contents, first)]
    )


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_every_road_to_a_state_gives_the_same_bits(case, tmp_path):
    judge, history = case
    oracle, live = judge.oracle, judge.oracle.init()
    with closing(open_store(tmp_path / "guardrail.db")) as store:
        for start in range(0, COUNT, 7):
            chunk = [judge.encode_observation(*observation) for observation in history[start : start + 7]]
            for row, outcome in chunk:
                live = oracle.observe(live, row[None], np.array([outcome]))
            record_part = history[start : start + 7]
            contents = [canonical_json({"action": a, "context": c, "outcome": y}) for c, a, y in record_part]
            store.append_observations(
                [
                    NewObservation(judge.policy.name, "w", f"o{start + i}", digest(text), text)
                    for i, text in enumerate(contents)
                ]
            )
            if start == 70:
                store.save_snapshot(make_snapshot(judge, "w", start + 7, oracle.dump(live), last_id=f"o{start + 6}"))
        from_log, revision = restore(judge, store, "w", snapshot=False)
        from_snapshot, _ = restore(judge, store, "w")
    assert revision == COUNT
    same(oracle.dump(live), oracle.dump(from_log))
    same(oracle.dump(live), oracle.dump(from_snapshot))
    rows = np.stack([judge.encode_observation(*observation)[0] for observation in history[:40]])
    assert oracle.bound(live, rows) == oracle.bound(from_log, rows) == oracle.bound(from_snapshot, rows)


def test_a_snapshot_that_is_ahead_of_its_log_is_not_believed(case, tmp_path):
    judge, history = case
    with closing(open_store(tmp_path / "guardrail.db")) as store:
        record(store, judge, history[:5])
        arrays = judge.oracle.dump(judge.oracle.init())
        store.save_snapshot(make_snapshot(judge, "w", 6, arrays, last_id="o5"))
        assert restore(judge, store, "w")[1] == 5


def test_a_snapshot_of_a_log_that_went_on_otherwise_is_not_believed(case, tmp_path):
    """A standby took over without the last reports, or a backup was put back, and others were reported since."""
    judge, history = case
    with closing(open_store(tmp_path / "lost.db")) as store:
        record(store, judge, history[:10])
        state, _ = restore(judge, store, "w")
    with closing(open_store(tmp_path / "guardrail.db")) as store:
        record(store, judge, history[:5])
        record(store, judge, history[20:30], first=20)
        # From a service that held the lost reports when it was stopped.
        store.save_snapshot(make_snapshot(judge, "w", 10, judge.oracle.dump(state), last_id="o9"))
        found, revision = restore(judge, store, "w")
        expected, _ = restore(judge, store, "w", snapshot=False)
    assert revision == 15
    same(judge.oracle.dump(found), judge.oracle.dump(expected))


def test_a_snapshot_of_another_shape_is_rebuilt_from_the_log(case, tmp_path):
    judge, history = case
    with closing(open_store(tmp_path / "guardrail.db")) as store:
        record(store, judge, history[:5])
        store.save_snapshot(make_snapshot(judge, "w", 3, {"unexpected": np.zeros(3)}, last_id="o2"))
        state, revision = restore(judge, store, "w")
        expected, _ = restore(judge, store, "w", snapshot=False)
    assert revision == 5
    same(judge.oracle.dump(state), judge.oracle.dump(expected))


def test_an_observation_that_does_not_fit_is_named(case, tmp_path):
    judge, history = case
    with closing(open_store(tmp_path / "guardrail.db")) as store:
        record(store, judge, [*history[:3], ({"unknown": 1.0}, {}, True)])
        with pytest.raises(WorldUnavailable, match="observation 4"):
            restore(judge, store, "w")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x93NUMPY", b"x" * 1000])
def test_bytes_that_are_no_snapshot_are_refused(damage):
    with pytest.raises(SnapshotInvalid):
        decode_snapshot(damage)


def test_a_snapshot_never_unpickles():
    import io

    buffer = io.BytesIO()
    np.savez(buffer, state=np.array([{"object": 1}], dtype=object))
    with pytest.raises(SnapshotInvalid):
        decode_snapshot(buffer.getvalue())
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        encode_snapshot({"state": np.array([{}], dtype=object)})
