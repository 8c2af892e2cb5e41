"""SIGKILL while observations stream into the store: what was acknowledged is there, once, in order."""

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from guardrail.store import open_store

ROUNDS = 20

# Appends batches of 1 to 7 observations, alternating between two worlds, and prints the ids of each
# batch once it is acknowledged. Every batch also repeats an id of the round before.
WRITER = """
import sys
import pytest

from guardrail.store import open_store
from guardrail.store.base import NewObservation

path, round_ = sys.argv[1], int(sys.argv[2])
store = open_store(path)
for batch in range(10**9):
    world = f"world-{batch % 2}"
    ids = [f"{round_}-{batch}-{i}" for i in range(batch % 7 + 1)]
    repeated = [f"{round_ - 1}-{batch % 2}-0"] if round_ else []
    store.append_observations([NewObservation("policy", world, i, i, "content of " + i) for i in ids + repeated])
    print(world, *ids, flush=True)
"""


def run_and_kill(path, round_, acknowledgements, extra_reads):
    """Start a writer, kill it after some acknowledgements, and return all (world, id) it had acknowledged."""
    command = [sys.executable, "-c", WRITER, path, str(round_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        lines = [process.stdout.readline() for _ in range(acknowledgements)]
        # Wandering a few bytes into the next line moves the kill to another place of the append.
        started = process.stdout.read(extra_reads)
        process.send_signal(signal.SIGKILL)
        rest = started + process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    # A line without its end was not received.
    lines += rest.splitlines(keepends=True)
    words = [line.decode().split() for line in lines if line.endswith(b"\n")]
    assert len(words) >= acknowledgements
    return [(world, observation_id) for world, *ids in words for observation_id in ids]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path):
    path = tmp_path / "store.db"
    random_ = random.Random(20240805)
    acknowledged = []
    for round_ in range(ROUNDS):
        acknowledged += run_and_kill(path, round_, random_.randrange(2, 30), random_.randrange(0, 12))
        with closing(open_store(path)) as store:
            logs = {world: list(store.observations("policy", world)) for world in ("world-0", "world-1")}
            lengths = {world: store.observation_count("policy", world) for world in logs}
        places = {}
        for world, log in logs.items():
            assert [o.sequence for o in log] == list(range(1, lengths[world] + 1))
            assert all(o.content == "content of " + o.observation_id for o in log)
            for o in log:
                assert places.setdefault((world, o.observation_id), o.sequence) == o.sequence, "doubled"
        missing = [key for key in acknowledged if key not in places]
        assert missing == []
        in_order = [key for key in sorted(places, key=places.get) if key in set(acknowledged)]
        for world in logs:
            assert [k for k in in_order if k[0] == world] == [k for k in acknowledged if k[0] == world]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(acknowledged) > 20 * ROUNDS
