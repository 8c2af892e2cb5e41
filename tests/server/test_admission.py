"""Under load some checks are refused early and told when to come back; what is taken on is answered soon."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import NoVerdict, Report
from guardrail.errors import LimitExceeded
from guardrail.server import transport
from guardrail.server.admission import RETRY_SECONDS, STANDING_SHARE, ControlledDelay, Door
from guardrail.server.settings import ServerSettings
from guardrail.server.world import World

LOW = {"kind": "low"}
PATIENCE = 0.5
STANDING = STANDING_SHARE * PATIENCE


def check(client, **options):
    return client.check(policy="coin", world="w", context={}, action=LOW, **options)


# ---------------------------------------------------------------- the door


@given(st.lists(st.booleans()), st.integers(1, 5))
def test_no_more_are_inside_than_may_be_and_each_place_is_freed(arrivals, limit):
    door, inside = Door(limit), 0
    for arrives in arrivals:
        if arrives and inside == limit:
            with pytest.raises(LimitExceeded) as caught:
                door.__enter__()
            assert caught.value.reason == "OVERLOADED"
            assert caught.value.retry_after >= RETRY_SECONDS[0]
        elif arrives:
            door.__enter__()
            inside += 1
        elif inside:
            door.__exit__(ValueError, ValueError(), None)
            inside -= 1
        assert door.inside == inside <= limit


# ---------------------------------------------------------------- controlled delay


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 2)), max_size=60))
def test_nothing_that_waited_longer_than_patience_is_taken_on(turns):
    delay, now = ControlledDelay(PATIENCE), 0.0
    for pause, waited in turns:
        now += pause
        refusal = delay.refusal(waited, now)
        if waited > PATIENCE:
            assert refusal is not None
        if waited <= STANDING:
            assert refusal is None
        if refusal is not None:
            assert refusal.reason == "OVERLOADED"
            assert RETRY_SECONDS[0] <= refusal.retry_after <= RETRY_SECONDS[1]


def test_a_burst_may_wait_and_a_queue_that_stands_may_not():
    delay = ControlledDelay(PATIENCE)
    waits = [0.01 * step for step in range(50)]  # a burst that a kernel works off: the last waited 0.49 s
    assert all(delay.refusal(waited, waited) is None for waited in waits)
    standing = ControlledDelay(PATIENCE)
    taken = [standing.refusal(0.3, 0.01 * step) is None for step in range(100)]
    ends = round(PATIENCE / 0.01)
    assert all(taken[: ends - 1])
    assert not any(taken[ends + 2 :])


def test_a_queue_that_emptied_counts_as_a_burst_again():
    delay = ControlledDelay(PATIENCE)
    for step in range(60):
        delay.refusal(0.3, 0.01 * step)
    assert delay.refusal(0.3, 0.6) is not None
    for step in range(61, 130):
        delay.refusal(0.0, 0.01 * step)
    assert delay.refusal(0.3, 1.3) is None


def test_what_was_before_a_pause_does_not_count():
    delay = ControlledDelay(PATIENCE)
    for step in range(60):
        delay.refusal(0.3, 0.01 * step)
    assert delay.refusal(0.3, 10.0) is None


def test_two_calls_of_a_slow_kernel_may_always_be_waited_for():
    delay = ControlledDelay(PATIENCE)
    delay.called(3.0)
    assert delay.refusal(6.0, 0.0) is None
    assert delay.refusal(6.1, 0.01) is not None
    for _ in range(100):
        delay.called(0.001)
    assert delay.refusal(6.0, 0.02) is not None


# ---------------------------------------------------------------- in the service


@pytest.fixture
def gate(monkeypatch):
    """Holds the kernel thread inside `World._bound` until it is opened."""

    class Gate:
        entered, open = threading.Event(), threading.Event()

    real = World._bound

    def bound(world, posterior, checks):
        if checks:
            Gate.entered.set()
            assert Gate.open.wait(60)
        return real(world, posterior, checks)

    monkeypatch.setattr(World, "_bound", bound)
    return Gate


def test_a_check_that_waited_too_long_is_refused_and_told_when_to_come_back(start_service, gate, monkeypatch):
    monkeypatch.setattr(ControlledDelay, "called", lambda delay, seconds: None)  # one call would be no queue
    service = start_service(max_check_wait_seconds=0.001)
    with service.client() as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(check, client)
        assert gate.entered.wait(30)
        second = pool.submit(check, client)
        while service.metric("guardrail_waiting_checks") < 1:
            threading.Event().wait(0.001)
        arrived = time.monotonic()
        while time.monotonic() < arrived + 0.002:
            threading.Event().wait(0.001)
        gate.open.set()
        first.result(30)
        with pytest.raises(NoVerdict) as caught:
            second.result(30)
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after >= RETRY_SECONDS[0]
    assert service.metric("guardrail_checks_without_verdict_total", reason="OVERLOADED") == 1
    assert service.metric("guardrail_checks_in_flight") == 0


def test_reports_have_their_own_bound_and_are_told_when_to_come_back(start_service):
    service = start_service(max_waiting_reports=1)
    with service.client() as client:
        reports = [_report("a"), _report("b")]
        with pytest.raises(LimitExceeded) as caught:
            client.report_many(policy="coin", world="w", reports=reports)
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.retry_after > 0.0
        assert client.report(policy="coin", world="w", context={}, action=LOW, outcome=False).posterior_revision == 1


def _report(name):
    return Report({}, LOW, False, name)


def test_calls_that_come_faster_than_they_are_read_are_cancelled_and_the_rest_answered(start_service):
    service = start_service(max_pending_calls=1)
    held, free = threading.Event(), threading.Event()

    def hold():
        held.set()
        assert free.wait(60)

    with service.client() as client, ThreadPoolExecutor(24) as pool:
        check(client)
        service.loop.call_soon_threadsafe(hold)
        assert held.wait(30)  # nothing is read while the event loop is held
        calls = [pool.submit(check, client, timeout=20.0) for _ in range(24)]
        done = [call for call in calls if _ended(call)]
        free.set()
        reasons = {call.exception(30).reason for call in done}
        assert len(done) >= 20
        assert reasons == {"CANCELLED"}
        answered = [call.result(30) for call in calls if call not in done]
        assert len(answered) >= 1
        check(client)


def _ended(call):
    """Whether a call ends although the service reads nothing; the last ones wait."""
    try:
        call.exception(2.0)
    except TimeoutError:
        return False
    return True


def test_metadata_larger_than_its_limit_is_refused(start_service):
    service = start_service(max_metadata_bytes=2_048)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary("/guardrail.v1.GuardrailService/ListPolicies")
        call(b"", timeout=20, metadata=(("x", "y" * 1_000),))
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20, metadata=(("x", "y" * 4_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_every_limit_of_the_transport_comes_from_its_setting(tmp_path):
    plain = ServerSettings(policies=(tmp_path,), store=tmp_path / "g.db")
    values = {
        "max_request_bytes": (4_096, {"grpc.max_receive_message_length"}),
        "max_metadata_bytes": (2_048, {"grpc.max_metadata_size", "grpc.absolute_max_metadata_size"}),
        "max_streams_per_connection": (7, {"grpc.max_concurrent_streams"}),
        "max_pending_calls": (8, {"grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit"}),
        "max_connection_idle_seconds": (9.0, {"grpc.max_connection_idle_ms"}),
        "max_connection_age_seconds": (11.0, {"grpc.max_connection_age_ms"}),
        "drain_seconds": (12.0, {"grpc.max_connection_age_grace_ms"}),
    }
    before = dict(transport.options(plain))
    for name, (value, expected) in values.items():
        after = dict(transport.options(plain.model_copy(update={name: value})))
        assert {key for key in after if before.get(key) != after[key]} == expected
