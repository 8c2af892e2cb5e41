"""SIGKILL during a stream of reports: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import guardrail
from guardrail.errors import ServiceError
from guardrail.store import open_store

ROUNDS = 20
REPORTERS = 4


def start(folder, policies):
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += ["--policies", str(policies), "--store", str(folder / "guardrail.db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    assert line, "the service did not start"
    return process, json.loads(line)["port"]


def stream(port, round_, reporter, acknowledged):
    """Report until the service is gone; every acknowledged id is kept with its revision."""
    with guardrail.Client(f"127.0.0.1:{port}", timeout=10.0) as client:
        for number in range(10_000):
            name = f"{round_}-{reporter}-{number}"
            try:
                answer = client.report(
                    policy="coin", world="w", context={}, action={"kind": "low"}, outcome=False, observation_id=name
                )
            except (ServiceError, guardrail.NoVerdict):
                return
            acknowledged[name] = answer.posterior_revision


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_acknowledged_report_is_lost_or_doubled_over_twenty_kills(tmp_path, policy_folder):
    draw = random.Random(20)
    acknowledged = {}
    for round_ in range(ROUNDS):
        process, port = start(tmp_path, policy_folder)
        enough = len(acknowledged) + draw.randint(1, 120)
        with process, ThreadPoolExecutor(REPORTERS) as pool:
            streams = [pool.submit(stream, port, round_, r, acknowledged) for r in range(REPORTERS)]
            while len(acknowledged) < enough and not all(s.done() for s in streams):
                pass
            process.send_signal(signal.SIGKILL)
            for future in streams:
                future.result(60)
        process.wait(30)
    store = open_store(tmp_path / "guardrail.db")
    records = list(store.observations("coin", "w"))
    store.close()
    places = {record.observation_id: record.sequence for record in records}
    assert len(places) == len(records), "an observation was counted twice"
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    assert len(acknowledged) >= ROUNDS
    assert {name: places.get(name) for name in acknowledged} == acknowledged
    process, port = start(tmp_path, policy_folder)
    with process, guardrail.Client(f"127.0.0.1:{port}", timeout=10.0) as client:
        assert client.world("coin", "w").posterior.revision == len(records)
        process.terminate()
    assert process.returncode == 0
