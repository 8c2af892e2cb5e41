"""Three services in processes of their own over one real PostgreSQL."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from replica_policies import COIN, WEAR

import guardrail
from guardrail.domain import ReasonCode
from guardrail.errors import GuardrailError, NoVerdict, RevisionNotReached, ServiceError
from guardrail.guard import Guard
from guardrail.policy import load_policy
from guardrail.rebuild import restore
from guardrail.replay import replay
from guardrail.store import open_store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
LOW = {"kind": "low"}


class Process:
    """One `guardrail serve`."""

    def __init__(self, policies, url, cache):
        self.command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
        self.command += ["--policies", str(policies), "--compilation-cache", str(cache), "--drain-seconds", "2"]
        self.environment = {**os.environ, "GUARDRAIL_STORE": url, "PYTHONPATH": str(ROOT)}
        self.client = None

    def launch(self):
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # Read all along, so that no full pipe holds the service up.
        self.errors = []
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self.reader.start()
        return self

    def wait(self):
        line = self.process.stdout.readline()
        assert line, "".join(self.errors[-20:])
        self.port = json.loads(line)["port"]
        self.client = guardrail.Client(f"127.0.0.1:{self.port}", timeout=20.0)
        return self

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(60)
        self.close()

    def close(self):
        if self.client is not None:
            self.client.close()
        self.process.kill()
        self.process.wait(60)
        self.reader.join(60)
        self.process.stdout.close()
        self.process.stderr.close()


class Trio:
    """Three services, the database below them, and what can be asked of both."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        for name, text in (("coin", COIN), ("wear", WEAR)):
            (folder / "policies" / name).mkdir(parents=True)
            (folder / "policies" / name / "policy.yaml").write_text(text)
        self.processes = [self.make() for _ in range(3)]
        try:
            # The first one makes the tables and compiles the kernels.
            for process in self.processes:
                process.launch()
            for process in self.processes:
                process.wait()
        except BaseException:
            self.close()
            raise

    def make(self):
        return Process(self.folder / "policies", self.url, self.folder / "kernels")

    @property
    def clients(self):
        return [process.client for process in self.processes]

    def guard(self, name):
        return Guard(load_policy(self.folder / "policies" / name / "policy.yaml"))

    @contextlib.contextmanager
    def store(self):
        store = open_store(self.url, read_only=True)
        try:
            yield store
        finally:
            store.close()

    def close(self):
        for process in self.processes:
            process.close()


@pytest.fixture(scope="module")
def trio(postgres_server, tmp_path_factory):
    name = postgres_server.create_database()
    three = Trio(tmp_path_factory.mktemp("trio"), postgres_server.url(name))
    yield three
    three.close()
    postgres_server.drop_database(name)


def check(client, world, policy="coin", **options):
    return client.check(policy=policy, world=world, context={}, action=LOW if policy == "coin" else {}, **options)


def report(client, world, outcome, name=None, policy="coin", **options):
    action = LOW if policy == "coin" else {}
    return client.report(
        policy=policy, world=world, context={}, action=action, outcome=outcome, observation_id=name, **options
    )


def until(condition, seconds=60.0, pause=0.01):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(pause)


def test_any_replica_answers_any_world_and_says_on_what_it_rests(trio):
    guard = trio.guard("coin")
    for place, outcome in enumerate([False, True, False, False, True, False]):
        answer = report(trio.clients[place % 3], "any", outcome)
        assert answer.posterior_revision == place + 1
        guard.observe({}, LOW, outcome)
        expected = guard.check({}, LOW)
        for client in trio.clients:  # at once, whoever took the report
            verdict = check(client, "any", min_revision=answer.posterior_revision)
            assert (verdict.policy, verdict.policy_revision) == ("coin", guard.policy.revision)
            assert (verdict.world, verdict.posterior_revision) == ("any", place + 1)
            assert (verdict.harm_bound, verdict.decision) == (expected.harm_bound, expected.decision)
    with pytest.raises(NoVerdict) as caught:
        check(trio.clients[0], "any", min_revision=7)
    assert caught.value.reason == RevisionNotReached.reason


def test_a_report_to_one_reaches_the_others_by_itself(trio):
    for place, client in enumerate(trio.clients):
        wanted = report(client, "told", False).posterior_revision
        assert wanted == place + 1
        for other in trio.clients:
            until(lambda other=other, wanted=wanted: check(other, "told").posterior_revision >= wanted)
            assert other.world("coin", "told").posterior.revision == wanted


def test_reports_to_one_world_through_all_replicas_are_numbered_without_gaps(trio):
    """The same posterior everywhere, bit for bit, and it is the fold of the log."""
    each, acknowledged = 40, {}

    def stream(reporter):
        client = trio.clients[reporter % 3]
        for number in range(each):
            name = f"{reporter}-{number}"
            acknowledged[name] = report(client, "crowd", (reporter + number) % 5 == 0, name).posterior_revision
            verdict = check(client, "crowd")  # what was acknowledged counts here at once
            assert verdict.posterior_revision >= acknowledged[name]

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(stream, reporter) for reporter in range(6)]:
            future.result(120)
    total = 6 * each
    with trio.store() as store:
        records = list(store.observations("coin", "crowd"))
        assert [record.sequence for record in records] == list(range(1, total + 1))
        assert {record.observation_id: record.sequence for record in records} == acknowledged
        guard = trio.guard("coin")
        state, revision = restore(guard._judge, store, "crowd", snapshot=False)
    assert revision == total
    bound = guard._judge.bounds(state, [guard._judge.prepare({}, LOW)])[0]
    verdicts = [check(client, "crowd", min_revision=total) for client in trio.clients]
    assert {v.harm_bound for v in verdicts} == {bound.value}
    assert {v.predictive_harm for v in verdicts} == {bound.predictive}
    states = [client.world("coin", "crowd").posterior for client in trio.clients]
    assert states[0] == states[1] == states[2]
    assert np.isclose(sum(states[0].top.values()), 1.0)


def test_a_world_with_memory_is_answered_from_the_end_of_the_log_by_every_replica(trio):
    """A check that begins after a report was acknowledged anywhere rests on it; and every bound is its revision's."""
    guard, expected = trio.guard("wear"), []
    faults = 12
    for _ in range(faults + 1):
        expected.append(guard.check({}, {}).harm_bound)
        guard.observe({}, {}, True)
    acknowledged = itertools.count()
    known, seen, done = [0], [], threading.Event()

    def tell():
        for _ in range(faults):
            client = trio.clients[next(acknowledged) % 3]
            known[0] = report(client, "aging", True, policy="wear").posterior_revision
        done.set()

    def ask(client):
        while not done.is_set():
            least = known[0]
            verdict = check(client, "aging", policy="wear")
            seen.append(verdict)
            if verdict.reasons[0].code is not ReasonCode.STALE_POSTERIOR:
                assert verdict.posterior_revision >= least
                assert verdict.harm_bound == expected[verdict.posterior_revision]
            else:
                assert not verdict.accepted

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, client) for client in trio.clients] + [pool.submit(tell)]
        for future in futures:
            future.result(120)
    for client in trio.clients:
        verdict = check(client, "aging", policy="wear")
        assert (verdict.posterior_revision, verdict.harm_bound) == (faults, expected[faults])
    assert len(seen) > 3


class Load:
    """Reporters and checkers over all replicas; whoever fails is asked again at the next replica, with the same id."""

    def __init__(self, trio, world, reporters=4):
        self.trio, self.world = trio, world
        self.acknowledged, self.accepted, self.no_verdict = {}, [], []
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(reporters + 2)
        self.futures = [self.pool.submit(self.report, n) for n in range(reporters)]
        self.futures += [self.pool.submit(self.check, n) for n in range(2)]

    def report(self, reporter):
        for number in itertools.count():
            if self.stop.is_set():
                return
            name, place = f"{reporter}-{number}", reporter
            while name not in self.acknowledged:
                try:
                    client = self.trio.clients[place % 3]
                    self.acknowledged[name] = report(client, self.world, False, name, timeout=5.0).posterior_revision
                except (ServiceError, NoVerdict):
                    place += 1
                    if self.stop.is_set():
                        return  # nobody knows whether it counts; it may, once

    def check(self, checker):
        for place in itertools.count(checker):
            if self.stop.is_set():
                return
            try:
                verdict = check(self.trio.clients[place % 3], self.world, timeout=5.0)
            except GuardrailError as error:
                self.no_verdict.append(error.reason)
                continue
            if verdict.accepted:
                self.accepted.append(verdict)

    def grow(self, by, seconds=90.0):
        """Until so many further reports are acknowledged."""
        wanted = len(self.acknowledged) + by
        until(lambda: len(self.acknowledged) >= wanted or any(f.done() for f in self.futures), seconds)
        assert len(self.acknowledged) >= wanted

    def end(self):
        self.stop.set()
        for future in self.futures:
            future.result(60)
        self.pool.shutdown()


def require_nothing_lost(trio, load):
    """Every acknowledged report is in the log once and at its place; every accepted check is in the log."""
    with trio.store() as store:
        records = list(store.observations("coin", load.world))
        places = {record.observation_id: record.sequence for record in records}
        assert len(places) == len(records), "an observation was counted twice"
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        assert {name: places.get(name) for name in load.acknowledged} == load.acknowledged
    for client in trio.clients:
        verdict = check(client, load.world, min_revision=len(records))
        assert verdict.posterior_revision == len(records)
        assert client.world("coin", load.world).posterior.revision == len(records)
    return len(records)


def test_killing_one_under_load_loses_nothing_and_the_others_go_on(trio):
    load = Load(trio, "killed")
    try:
        for place in range(3):
            load.grow(20)
            trio.processes[place].kill()
            load.grow(20)  # by the other two
            trio.processes[place] = trio.make().launch().wait()
            load.grow(10)
    finally:
        load.end()
    total = require_nothing_lost(trio, load)
    assert total >= 150


def test_a_database_that_restarts_under_load_costs_verdicts_but_no_report(trio, postgres_server):
    load = Load(trio, "restarted")
    try:
        load.grow(30)
        before = len(load.no_verdict)
        postgres_server.stop("immediate")
        until(lambda: len(load.no_verdict) > before + 5)
        answered = len(load.accepted)
        for client in trio.clients:  # nothing is decided that could not be logged
            with pytest.raises(NoVerdict) as caught:
                check(client, "restarted")
            assert caught.value.reason in ("DECISION_LOG_UNAVAILABLE", "STORE_UNAVAILABLE")
            with pytest.raises(NoVerdict):
                check(client, "aging", policy="wear")
        postgres_server.start()
        load.grow(30)  # by itself
        until(lambda: len(load.accepted) > answered + 10)
    finally:
        load.end()
    require_nothing_lost(trio, load)
    # Accepted before, in and after the outage: each has its record, written once the log could be written again.
    for client in trio.clients:
        until(lambda client=client: not check(client, "restarted").notices)
    with trio.store() as store:
        for verdict in load.accepted:
            until(lambda verdict=verdict: store.decision(verdict.decision_id) is not None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def envoy(trio, folder):
    """The front proxy of deploy/envoy.yaml before the three services, in plaintext; its port and its admin's port."""
    config = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    ports = free_port(), free_port()
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": ports[0]}
    config["admin"]["address"]["socket_address"]["port_value"] = ports[1]
    del listener["filter_chains"][0]["transport_socket"], cluster["transport_socket"]
    cluster["type"] = "STATIC"
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": process.port}}}}
        for process in trio.processes
    ]
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).parent / "envoy", "--config-path", folder / "envoy.yaml", "--log-level", "error"]
    command += ["--concurrency", "1", "--disable-hot-restart"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield ports
    finally:
        process.kill()
        process.wait(60)


def well(admin):
    """Port of a replica that Envoy holds for well -> requests that it got."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/clusters?format=json", timeout=5) as answer:
            hosts = json.load(answer)["cluster_statuses"][0]["host_statuses"]
    except OSError:
        return {}
    found = {}
    for host in hosts:
        count = next((int(s.get("value", 0)) for s in host["stats"] if s["name"] == "rq_total"), 0)
        if set(host["health_status"]) == {"eds_health_status"}:
            found[host["address"]["socket_address"]["port_value"]] = count
    return found


def test_behind_the_front_proxy_calls_are_spread_and_a_replica_that_dies_costs_no_check(trio, tmp_path):
    with envoy(trio, tmp_path) as (port, admin), guardrail.Client(f"127.0.0.1:{port}", timeout=20.0) as client:
        until(lambda: len(well(admin)) == 3)
        before = well(admin)
        for _ in range(10):
            revision = report(client, "proxied", False).posterior_revision
            for _ in range(3):  # each time another replica
                assert check(client, "proxied", min_revision=revision).posterior_revision == revision
        assert min(well(admin)[port] - before[port] for port in before) >= 10
        trio.processes[1].kill()
        for _ in range(30):
            assert check(client, "proxied", min_revision=revision).posterior_revision == revision
        until(lambda: len(well(admin)) == 2)
        trio.processes[1] = trio.make().launch().wait()


def test_every_decision_of_every_replica_is_reproduced_from_the_logs(trio):
    """Last in this file, because it ends the services: what the tests before it decided is replayed as well."""
    for place in range(30):
        for policy in ("coin", "wear"):
            report(trio.clients[place % 3], "replayed", place % 4 == 0, policy=policy)
            check(trio.clients[(place + 1) % 3], "replayed", policy=policy)
    for process in trio.processes:
        process.process.send_signal(signal.SIGTERM)  # the last decisions are written
    for process in trio.processes:
        assert process.process.wait(60) == 0, "".join(process.errors[-20:])
    with trio.store() as store:
        found = list(replay(store))
    assert len(found) >= 60
    assert [one for one in found if one.differences] == []
