"""Checks that wait together share a kernel call; the event loop never waits for a kernel."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guardrail import NoVerdict
from guardrail.server.world import World

LOW = {"kind": "low"}


class Gate:
    """Holds the kernel thread inside `World._bound` until it is opened; counts the calls."""

    def __init__(self, monkeypatch):
        self.entered, self.open, self.sizes = threading.Event(), threading.Event(), []
        real = World._bound

        def bound(world, posterior, checks):
            if checks:
                self.sizes.append(len(checks))
                self.entered.set()
                assert self.open.wait(60)
            return real(world, posterior, checks)

        monkeypatch.setattr(World, "_bound", bound)


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    """Every world that a service of this test makes."""
    made = []
    real = World.__init__

    def init(world, *arguments, **options):
        real(world, *arguments, **options)
        made.append(world)

    monkeypatch.setattr(World, "__init__", init)
    return made


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def check(client, timeout=30.0):
    return client.check(policy="coin", world="w", context={}, action=LOW, timeout=timeout)


def test_checks_that_wait_together_share_one_kernel_call(client, service, worlds, gate):
    with ThreadPoolExecutor(33) as pool:
        first = pool.submit(check, client)
        assert gate.entered.wait(30)
        rest = [pool.submit(check, client) for _ in range(32)]
        _until_waiting(service, worlds, 32)
        gate.open.set()
        verdicts = [f.result(30) for f in [first, *rest]]
    assert gate.sizes == [1, 32]
    assert len({v.decision_id for v in verdicts}) == 33


def test_the_event_loop_answers_while_a_kernel_runs(client, service, gate):
    with ThreadPoolExecutor(1) as pool, grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        waiting = pool.submit(check, client)
        assert gate.entered.wait(30)
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        gate.open.set()
        waiting.result(30)


def test_a_check_past_its_deadline_has_no_verdict_and_costs_no_kernel(client, service, worlds, gate):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(check, client)
        assert gate.entered.wait(30)
        with pytest.raises(NoVerdict) as caught:
            check(client, timeout=0.05)
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        _until(service, lambda: all(c.future.cancelled() for c in _waiting(worlds)))
        gate.open.set()
        first.result(30)
    check(client)
    assert gate.sizes == [1, 1]


def test_more_checks_than_may_wait_are_shed(start_service, worlds, gate):
    service = start_service(max_checks_in_flight=3)
    with service.client() as client, ThreadPoolExecutor(3) as pool:
        running = [pool.submit(check, client)]
        assert gate.entered.wait(30)
        running += [pool.submit(check, client) for _ in range(2)]
        _until_waiting(service, worlds, 2)
        with pytest.raises(NoVerdict) as caught:
            check(client)
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.retry_after > 0.0
        assert service.metric("guardrail_checks_in_flight") == 3
        gate.open.set()
        for future in running:
            future.result(30)


def test_a_kernel_that_fails_gives_no_verdict(client, monkeypatch):
    def bound(world, posterior, checks):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(World, "_bound", bound)
    with pytest.raises(NoVerdict) as caught:
        check(client)
    assert caught.value.reason == "WORLD_UNAVAILABLE"
    assert "memory" not in str(caught.value)


def test_a_posterior_that_could_not_take_up_a_report_is_rebuilt_from_the_log(client, monkeypatch):
    def observe(world, posterior, observations):
        if observations:
            raise RuntimeError("out of memory")
        return posterior

    monkeypatch.setattr(World, "_observe", observe)
    with pytest.raises(Exception) as caught:
        client.report(policy="coin", world="w", context={}, action=LOW, outcome=True)
    assert caught.value.reason == "WORLD_UNAVAILABLE"
    monkeypatch.undo()
    for _ in range(10_000):
        try:
            verdict = check(client)
            break
        except NoVerdict as error:
            if error.reason != "WORLD_UNAVAILABLE":
                raise
    assert verdict.posterior_revision == 1


def _waiting(worlds):
    return [check for world in worlds for check in list(world._checks)]


def _until_waiting(service, worlds, count):
    _until(service, lambda: len(_waiting(worlds)) == count)


def _until(service, condition):
    """Poll the loop itself: each round runs after everything that the loop had queued before."""
    import asyncio

    async def turn():
        return condition()

    for _ in range(100_000):
        if asyncio.run_coroutine_threadsafe(turn(), service.loop).result(10):
            return
    raise AssertionError("the condition never came true")


def test_a_stopping_service_finishes_the_checks_it_has(service, gate):
    with service.client() as client, ThreadPoolExecutor(2) as pool:
        held = pool.submit(check, client)
        assert gate.entered.wait(30)
        stopping = pool.submit(service.stop)
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:  # until the drain has begun: health says so, or nobody is admitted any more
                try:
                    if stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status != _SERVING:
                        break
                except grpc.RpcError:
                    break
        gate.open.set()
        assert held.result(30).harm_bound == 0.3
        stopping.result(60)


_SERVING = health_pb2.HealthCheckResponse.SERVING
