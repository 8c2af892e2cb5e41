"""SIGKILL of a service, and of its database, under load: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest
from debian import PackageMissing
from load import Load
from postgres import PostgresServer
from running_service import POLICY
from server_process import ServerProcess, free_port

import guardrail
from guardrail.errors import GuardrailError
from guardrail.store import open_store

KILLS = 50
DURING = ("load", "load", "load", "start", "reload")
"""What is going on when a service is killed; snapshots are written all the time."""


class Service:
    """A service that is killed and started again on the same port, with the same store."""

    def __init__(self, folder, store):
        self._file = folder / "policies" / "coin" / "policy.yaml"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(POLICY)
        self.port = free_port()
        self._settings = {
            "listen": f"127.0.0.1:{self.port}",
            "policies": [str(folder / "policies")],
            "store": str(store),
            "snapshot_every": 7,
            "compilation_cache": str(folder / "kernels"),
        }
        self.process = None

    def start(self):
        self.process = ServerProcess(self._settings)
        return self.process

    def reload_for_ever(self, over):
        """Load one of two policies after the other until the service is gone."""
        number = 0
        with guardrail.Client(f"127.0.0.1:{self.port}", timeout=5.0) as client:
            while not over.is_set():
                number += 1
                other = POLICY.replace("delta: 0.05", "delta: 0.04") if number % 2 else POLICY
                whole = self._file.with_suffix(".new")
                whole.write_text(other)
                whole.replace(self._file)
                try:
                    client.reload_policies()
                except GuardrailError:
                    over.wait(0.02)


def killed_once(service, load, draw, during):
    """Start the service and kill it at some moment of what is going on."""
    process = service.start()
    if during == "start":  # anywhere from the first import to just after the first answers
        threading.Event().wait(draw.uniform(0.05, 2.0))
        process.kill()
        return
    process.wait_until_serving()
    enough = len(load.acknowledged) + draw.randint(1, 60)
    over = threading.Event()
    reloader = threading.Thread(target=service.reload_for_ever, args=(over,))
    if during == "reload":
        reloader.start()
    try:
        load.wait_for(lambda: len(load.acknowledged) >= enough)
        threading.Event().wait(draw.uniform(0.0, 0.03))  # not always just after an acknowledgement
        process.kill()
    finally:
        over.set()
        if during == "reload":
            reloader.join(30)


def finish(service, load, store):
    """After the last kill the service serves, and everything is as it was acknowledged."""
    process = service.start()
    process.wait_until_serving()
    load.progress()
    load.stop()
    with guardrail.Client(f"127.0.0.1:{service.port}", timeout=10.0) as client:
        lengths = {entry.world: entry.observations for entry in client.worlds("coin")}
        for world, length in lengths.items():
            assert client.world("coin", world).posterior.revision == length
    process.terminate()
    with closing(open_store(store)) as opened:
        logs = load.verify(opened)
        assert {world: len(log) for world, log in logs.items()} == lengths
        list(opened.decisions())  # each has its checksum
    assert len(load.acknowledged) >= KILLS


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_kills_of_a_service_on_sqlite(tmp_path):
    draw, store = random.Random(20), tmp_path / "guardrail.db"
    service = Service(tmp_path, store)
    load = Load(f"127.0.0.1:{service.port}", seed=1).start()
    for number in range(KILLS):
        killed_once(service, load, draw, DURING[number % len(DURING)])
    finish(service, load, store)


@pytest.fixture
def database():
    """A PostgreSQL server that the test may kill."""
    try:
        server = PostgresServer()
    except PackageMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    yield server
    server.close()


def crash(database):
    """The whole server goes down as in a crash, and comes back."""
    database.stop("immediate")
    database.start()


def kill_a_backend(database):
    """SIGKILL of the process behind one of the service's connections: the server restarts all of them."""
    found = database.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'guardrail' ORDER BY pid")
    if found:
        os.kill(random.Random(len(found)).choice(found)[0], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_kills_of_a_service_and_of_its_database_on_postgresql(tmp_path, database):
    draw, store = random.Random(21), database.url(database.create_database())
    service = Service(tmp_path, store)
    load = Load(f"127.0.0.1:{service.port}", seed=2).start()
    for number in range(KILLS):
        killed_once(service, load, draw, DURING[number % len(DURING)])
    service.start().wait_until_serving()
    for kill in (crash, kill_a_backend) * 5:  # the service lives on, and finds the database again by itself
        load.progress()
        kill(database)
        load.progress()
    service.process.kill()
    finish(service, load, store)


def test_the_folder_of_the_module_is_the_one_that_is_tested():
    assert Path(guardrail.__file__).is_relative_to(Path(__file__).resolve().parents[2])
