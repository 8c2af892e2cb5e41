"""Health says what is true, says it at once, and comes back by itself."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guardrail import NoVerdict
from guardrail.domain import ReasonCode
from guardrail.errors import DeviceUnavailable, PolicyError, Problem, ServiceError, StoreError
from guardrail.server import app, servicer, writer
from guardrail.server.health import CONSOLE, DECISION_LOG, FOLLOWING, NAMES, POLICIES, HealthServicer, States, derive
from guardrail.server.notices import MAX_WHY, Notices
from guardrail.server.world import World

LOW = {"kind": "low"}
SERVICE = "guardrail.v1.GuardrailService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def check(client, **options):
    return client.check(policy="coin", world="w", context={}, action=LOW, **options)


# ---------------------------------------------------------------- what follows from what


def test_health_is_a_function_of_the_states():
    causes = {
        "decision_log": {"", SERVICE, DECISION_LOG},
        "store": {"", SERVICE, DECISION_LOG},
        "kernel": {"", SERVICE},
        "policies_stale": {POLICIES},
        "behind": {FOLLOWING},
    }
    for size in range(len(causes) + 1):
        for chosen in itertools.combinations(causes, size):
            states = States("serving", **{name: "why" if name[0] in "dsk" else True for name in chosen})
            down = set().union(*(causes[name] for name in chosen))
            assert derive(states) == {name: name not in down for name in NAMES}, chosen


def test_a_console_that_fails_takes_nothing_else_down():
    assert derive(States("serving", console="serving")) == {**dict.fromkeys(NAMES, True), CONSOLE: True}
    assert derive(States("serving", console="its thread died")) == {**dict.fromkeys(NAMES, True), CONSOLE: False}
    assert CONSOLE not in derive(States("serving"))


@pytest.mark.parametrize("phase", ["starting", "stopping"])
def test_nothing_is_served_before_the_start_and_after_the_end(phase):
    assert not any(derive(States(phase)).values())


# ---------------------------------------------------------------- over gRPC


class Watch:
    """One Watch stream, read by a thread."""

    def __init__(self, channel, name):
        self._stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))

    def next(self):
        return next(self._stream).status

    def until(self, status):
        """Read until a status; what came before."""
        seen = []
        while (latest := self.next()) != status:
            seen.append(latest)
        return seen

    def rest(self):
        return [answer.status for answer in self._stream]


@pytest.fixture
def channel(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield channel


def status(channel, name=""):
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status


def until(channel, name, wanted):
    deadline = time.monotonic() + 60
    while status(channel, name) != wanted:
        assert time.monotonic() < deadline, f"{name!r} never became {wanted}"


class FaultyStore:
    """A real store whose chosen methods fail, or are held, while their switch is on."""

    def __init__(self, store):
        self._store = store
        self.failing = set()
        self.held = set()
        self.free = threading.Event()

    def __getattr__(self, name):
        real = getattr(self._store, name)

        def call(*arguments, **options):
            if name in self.failing:
                raise StoreError("no route to the database")
            if name in self.held:
                assert self.free.wait(60)
            return real(*arguments, **options)

        return call if callable(real) else real


@pytest.fixture
def store(monkeypatch):
    """Patched in before the service starts; its first element is the store."""
    holder = []
    real = app.open_store
    monkeypatch.setattr(app, "open_store", lambda *a, **k: holder.append(FaultyStore(real(*a, **k))) or holder[-1])
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.05)
    return holder


def test_every_name_is_served_and_no_other(channel):
    for name in NAMES:
        assert status(channel, name) == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        status(channel, "guardrail.nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert Watch(channel, "guardrail.nothing").next() == UNKNOWN


def test_a_decision_log_that_fails_takes_the_service_out_and_it_comes_back_with_nobody_asking(store, service, channel):
    watches = {name: Watch(channel, name) for name in ("", SERVICE, DECISION_LOG)}
    assert {watch.next() for watch in watches.values()} == {SERVING}
    store[0].failing.add("append_decisions")
    with service.client() as client:
        verdict = check(client)
    for watch in watches.values():
        watch.until(NOT_SERVING)
    assert service.metric("guardrail_decision_log_failing") == 1.0
    assert service.metric("guardrail_health", service="") == 0.0
    assert service.metric("guardrail_decision_writes_failed_total") >= 1
    assert [status(channel, name) for name in (POLICIES, FOLLOWING)] == [SERVING, SERVING]
    store[0].failing.clear()
    for watch in watches.values():
        watch.until(SERVING)
    assert service.metric("guardrail_decisions_written_total") == 1
    with service.client() as client:
        assert client.decision(verdict.decision_id).verdict == verdict
        check(client)


def test_a_store_that_cannot_be_reached_is_noticed_with_nobody_asking(store, channel):
    store[0].failing.add("head")
    until(channel, "", NOT_SERVING)
    store[0].failing.clear()
    until(channel, "", SERVING)


def test_a_store_that_does_not_answer_counts_as_unreachable(store, start_service):
    service = start_service(stall_seconds=0.05)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        store[0].held.add("head")
        until(channel, DECISION_LOG, NOT_SERVING)
        store[0].free.set()
        until(channel, DECISION_LOG, SERVING)


def test_a_failed_commit_takes_the_service_out_until_the_store_answers_again(store, service, channel, monkeypatch):
    store[0].failing |= {"append_observations", "head"}
    with service.client() as client:
        with pytest.raises(ServiceError) as caught:
            client.report(policy="coin", world="w", context={}, action=LOW, outcome=False)
        assert caught.value.reason == "STORE_UNAVAILABLE"
        until(channel, "", NOT_SERVING)
        assert service.metric("guardrail_report_commits_failed_total") >= 1  # the client tries again
        store[0].failing.clear()
        until(channel, "", SERVING)


def test_a_kernel_that_hangs_takes_the_service_out_until_it_ends(start_service, monkeypatch):
    entered, free = threading.Event(), threading.Event()
    real = World._bound

    def bound(world, posterior, checks):
        entered.set()
        assert free.wait(60)
        return real(world, posterior, checks)

    service = start_service(stall_seconds=0.05)
    monkeypatch.setattr(World, "_bound", bound)
    with service.client() as client, grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(check, client)
            assert entered.wait(30)
            until(channel, SERVICE, NOT_SERVING)
            assert status(channel, DECISION_LOG) == SERVING
            free.set()
            held.result(30)
        until(channel, SERVICE, SERVING)


def test_a_kernel_thread_that_died_takes_the_service_out(service, channel, monkeypatch):
    def bound(world, posterior, checks):
        raise SystemExit

    monkeypatch.setattr(World, "_bound", bound)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with service.client() as client, pytest.raises(NoVerdict):
        check(client, timeout=0.5)
    until(channel, "", NOT_SERVING)


def test_a_watch_ends_when_the_service_does(start_service):
    service = start_service(drain_seconds=60.0)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        watch = Watch(channel, "")
        assert watch.next() == SERVING
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(service.stop)
            assert watch.rest() == [NOT_SERVING]
            stopping.result(30)


class Reader:
    """A watcher's side of a Watch; one that does not read never lets a write return."""

    def __init__(self, reads=True):
        self.seen, self._reads = [], reads

    async def write(self, answer):
        self.seen.append(answer.status)
        if not self._reads:
            await asyncio.Event().wait()


def test_a_watcher_that_does_not_read_holds_nobody_up():
    async def watched():
        checks = HealthServicer()
        stuck, good = Reader(reads=False), Reader()
        request = health_pb2.HealthCheckRequest(service="")
        tasks = [asyncio.create_task(checks.Watch(request, reader)) for reader in (stuck, good)]
        for serving in (True, False, True):
            checks.announce(dict.fromkeys(NAMES, serving))
            wanted = SERVING if serving else NOT_SERVING
            while good.seen[-1:] != [wanted]:  # noqa: ASYNC110  (each sleep is one turn of the loop)
                await asyncio.sleep(0)
        checks.close()
        await tasks[1]
        tasks[0].cancel()
        return stuck.seen, good.seen

    stuck, good = asyncio.run(asyncio.wait_for(watched(), 60))
    assert len(stuck) == 1
    assert good[-3:] == [SERVING, NOT_SERVING, SERVING]


# ---------------------------------------------------------------- stale policies


def test_verdicts_say_so_while_the_policy_files_cannot_be_loaded(service, channel, policy_folder):
    path = policy_folder / "coin" / "policy.yaml"
    good = path.read_text()
    watch = Watch(channel, POLICIES)
    assert watch.next() == SERVING
    with service.client() as client:
        assert check(client).notices == ()
        path.write_text(good.replace("delta: 0.05", "delta: 5"))
        with pytest.raises(ServiceError):
            client.reload_policies()
        since = service.metric("guardrail_policies_stale_since_seconds")
        assert abs(since - time.time()) < 60
        verdict = check(client)
        (notice,) = verdict.notices
        assert notice.code is ReasonCode.POLICY_STALE
        assert "policy.yaml:" in notice.message
        assert "delta" in notice.message
        assert "\n" not in notice.message
        assert client.decision(verdict.decision_id).verdict.notices == (notice,)
        assert watch.next() == NOT_SERVING
        assert status(channel, "") == SERVING
        rejected = client.check(policy="coin", world="w", context={}, action={"kind": "low", "size": 11.0})
        assert rejected.notices == (notice,)
        path.write_text("no policy")
        with pytest.raises(ServiceError):
            client.reload_policies()
        assert service.metric("guardrail_policies_stale_since_seconds") == since
        path.write_text(good)
        client.reload_policies()
        assert check(client).notices == ()
        assert watch.next() == SERVING
    assert service.metric("guardrail_policies_stale_since_seconds") == 0.0
    assert service.metric("guardrail_reloads_total", result="failure") == 2
    assert service.metric("guardrail_reloads_total", result="success") == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            PolicyError([Problem("a.yaml", 1, 2, "wrong"), Problem("b.yaml", 0, 0, "bad")]),
            "a.yaml:1:2: wrong (and 1 more)",
        ),
        (PolicyError([]), "answer: "),
        (DeviceUnavailable("x" * 10_000), "x" * MAX_WHY + "…"),
        (RuntimeError("a secret of the server"), "RuntimeError"),
    ],
)
def test_a_notice_is_one_short_line_without_secrets(error, shown):
    notices = Notices()
    notices.reload_failed(error)
    (notice,) = notices.present
    assert notice.message.endswith(shown)
    assert "secret" not in notice.message


# ---------------------------------------------------------------- deadlines


def test_a_check_whose_caller_is_gone_when_its_turn_comes_is_not_computed(service, client, monkeypatch):
    computed = []
    real = World._bound
    monkeypatch.setattr(
        World, "_bound", lambda world, posterior, checks: computed.extend(checks) or real(world, posterior, checks)
    )
    monkeypatch.setattr(servicer, "_deadlines", lambda context: (None, time.monotonic()))
    with pytest.raises(NoVerdict) as caught:
        check(client)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert computed == []
    assert service.metric("guardrail_checks_without_verdict_total", reason="DEADLINE_EXCEEDED") == 1
    assert service.metric("guardrail_checks_total", policy="coin", decision="reject") == 0


def test_a_bound_that_comes_too_late_is_not_logged_as_a_verdict(service, client, monkeypatch):
    real = World._bound

    def bound(world, posterior, checks):
        answers = real(world, posterior, checks)
        while time.monotonic() < checks[0].expires:
            threading.Event().wait(0.001)
        return answers

    monkeypatch.setattr(World, "_bound", bound)
    monkeypatch.setattr(servicer, "_deadlines", lambda context: (None, time.monotonic() + 0.2))
    with pytest.raises(NoVerdict) as caught:
        check(client)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert service.metric("guardrail_checks_total", policy="coin", decision="reject") == 0
    assert service.metric("guardrail_unwritten_decisions") == service.metric("guardrail_decisions_written_total") == 0
