"""Rebuilding a posterior from 10^5 logged observations, against one pass over the same log."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service import POLICY
from guardrail.canonical import canonical_json, digest
from guardrail.guard import Judge
from guardrail.policy import load_policy
from guardrail.rebuild import make_snapshot, restore
from guardrail.store import open_store
from guardrail.store.base import NewObservation, Store

OBSERVATIONS = 100_000
WORLD = "bench"


def fill(store: Store, policy: str, count: int) -> float:
    """Append observations of a bandit with random arms; seconds it took."""
    random = np.random.default_rng(0)
    features = random.integers(0, 2, (count, 10)).astype(float)
    rewards = features @ random.integers(0, 2, 10) + random.normal(size=count)
    contents = [
        canonical_json({"action": {"features": f.tolist()}, "context": {}, "outcome": {"reward": float(r)}})
        for f, r in zip(features, rewards, strict=True)
    ]
    batch = [NewObservation(policy, WORLD, f"o{i}", digest(c), c) for i, c in enumerate(contents)]
    start = time.perf_counter()
    for i in range(0, count, 1_000):
        store.append_observations(batch[i : i + 1_000])
    return time.perf_counter() - start


def run(count: int = OBSERVATIONS) -> dict[str, Any]:
    """Time the parts of a restart."""
    judge = Judge(load_policy(POLICY))
    restore_warm = judge.oracle.observe(judge.oracle.init(), np.zeros((1, 10)), np.zeros(1))
    judge.oracle.dump(restore_warm)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "guardrail.db")
        append = fill(store, judge.policy.name, count)
        start = time.perf_counter()
        for record in store.observations(judge.policy.name, WORLD):
            json.loads(record.content)
        reading = time.perf_counter() - start
        start = time.perf_counter()
        state, revision = restore(judge, store, WORLD)
        replay = time.perf_counter() - start
        (last,) = store.observations(judge.policy.name, WORLD, after=revision - 1)
        arrays = judge.oracle.dump(state)
        store.save_snapshot(make_snapshot(judge, WORLD, revision, arrays, last_id=last.observation_id))
        start = time.perf_counter()
        restore(judge, store, WORLD)
        from_snapshot = time.perf_counter() - start
        store.close()
    return {
        "observations": count,
        "append_seconds": append,
        "read_seconds": reading,
        "replay_seconds": replay,
        "replay_ratio": replay / reading,
        "snapshot_seconds": from_snapshot,
    }


def report(result: dict[str, Any]) -> str:
    """The result for a person."""
    return "\n".join(
        (
            f"Replay of {result['observations']:,} observations (1,024 lattice hypotheses)",
            f"  replay                 {result['replay_seconds']:8.2f} s     reading the log "
            f"{result['read_seconds']:.2f} s     ratio {result['replay_ratio']:.1f}",
            f"  restart from snapshot  {result['snapshot_seconds']:8.2f} s     "
            f"ratio to replay {result['snapshot_seconds'] / result['replay_seconds']:.4f}",
            f"  append, durable        {result['append_seconds']:8.2f} s     "
            f"ratio to reading {result['append_seconds'] / result['read_seconds']:.1f}",
        )
    )


if __name__ == "__main__":
    print(report(run()))
