"""A thread of the service that ends: nobody waits for it, nothing is decided, and health says so."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guardrail import NoVerdict
from guardrail.errors import GuardrailError, ServiceError
from guardrail.server import app
from guardrail.server.kernel import KernelThread

LOW = {"kind": "low"}


class End(BaseException):
    """What no handler of the service expects, as SystemExit is."""


def check(client):
    return client.check(policy="coin", world="w", context={}, action=LOW)


def report(client, name):
    return client.report(policy="coin", world="w", context={}, action=LOW, outcome=False, observation_id=name)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came about"


def health(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def outcome_of(call):
    try:
        return call()
    except GuardrailError as error:
        return error.reason


@pytest.fixture
def store(monkeypatch):
    """The store of the service that starts next."""
    opened = []
    real = app.open_store
    monkeypatch.setattr(app, "open_store", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
    return opened


def test_a_kernel_thread_that_ends_leaves_nobody_waiting(start_service, monkeypatch):
    held, waiting = threading.Event(), threading.Event()
    others = set(threading.enumerate())
    service = start_service()
    kernels = [t for t in threading.enumerate() if t.name == "guardrail-kernel" and t not in others]

    def hold_and_end(self, *arguments):
        waiting.set()
        assert held.wait(60)
        raise End

    with service.client() as client, ThreadPoolExecutor(8) as pool:
        report(client, "a")
        monkeypatch.setattr("guardrail.server.world.World._bound", hold_and_end)
        answers = [pool.submit(outcome_of, lambda: check(client)) for _ in range(4)]
        assert waiting.wait(20)
        answers += [pool.submit(outcome_of, lambda: check(client)) for _ in range(2)]
        answers += [pool.submit(outcome_of, lambda n=n: report(client, f"b{n}")) for n in range(2)]
        until(lambda: service.metric("guardrail_waiting_reports") == 0)
        held.set()
        assert {answer.result(30) for answer in answers} == {"NOT_SERVING"}
        started = time.monotonic()
        for call in (lambda: check(client), lambda: report(client, "c")):
            assert outcome_of(call) == "NOT_SERVING"
        assert time.monotonic() - started < 15
        until(lambda: health(service) == "NOT_SERVING")
        assert service.metric("guardrail_health", service="") == 0.0
    assert [thread.is_alive() for thread in kernels] == [False]
    monkeypatch.undo()
    service.stop()
    with start_service().client() as client:
        assert report(client, "a").duplicate
        assert check(client).posterior_revision == len({"a", "b0", "b1", "c"})


@pytest.mark.parametrize("method", ["append_observations", "append_decisions", "save_snapshot"])
def test_a_writer_thread_that_ends_leaves_nobody_waiting(start_service, store, method):
    held, waiting = threading.Event(), threading.Event()
    service = start_service(snapshot_every=2)
    real = getattr(store[0], method)

    def hold_and_end(*arguments):
        waiting.set()
        assert held.wait(60)
        raise End

    with service.client() as client, ThreadPoolExecutor(8) as pool:
        report(client, "a")
        first = check(client)
        setattr(store[0], method, hold_and_end)
        answers = [pool.submit(outcome_of, lambda n=n: report(client, f"b{n}")) for n in range(3)]
        check(client)
        assert waiting.wait(20)
        answers += [pool.submit(outcome_of, lambda n=n: report(client, f"c{n}")) for n in range(3)]
        until(lambda: service.metric("guardrail_waiting_reports") >= 3)
        held.set()
        results = [answer.result(30) for answer in answers]
        assert set(results[3:]) == {"STORE_UNAVAILABLE"}
        for _ in range(2):
            with pytest.raises(NoVerdict) as caught:
                check(client)
            assert caught.value.reason == "DECISION_LOG_UNAVAILABLE"
            with pytest.raises(ServiceError) as caught:
                report(client, "d")
            assert caught.value.reason == "STORE_UNAVAILABLE"
        until(lambda: health(service) == "NOT_SERVING")
        assert service.metric("guardrail_decision_log_failing") == 1.0
    setattr(store[0], method, real)
    service.stop()
    acknowledged = [result.observation_id for result in results if not isinstance(result, str)]
    with start_service().client() as client:
        for name in ("a", *acknowledged):
            assert report(client, name).duplicate
        assert client.decision(first.decision_id).verdict == first


def test_work_for_a_kernel_that_has_ended_is_abandoned_at_once():
    kernel = KernelThread(5.0)
    abandoned = []

    def end():
        raise End

    kernel.submit(end, lambda: abandoned.append("the one that ended it"))
    kernel.submit(lambda: None, lambda: abandoned.append("the one behind it"))
    until(lambda: kernel.ended and len(abandoned) == 2)
    kernel.submit(lambda: abandoned.append("done"), lambda: abandoned.append("a later one"))
    assert abandoned == ["the one that ended it", "the one behind it", "a later one"]
    assert "ended" in kernel.trouble(30)
    with pytest.raises(GuardrailError, match="restart the service"):
        asyncio.run(kernel.run(lambda: None))
    kernel.close()
