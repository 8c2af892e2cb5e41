"""What is counted, that the documentation names it, and how it is served."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

import grpc
import pytest

from guardrail import NoVerdict, Report
from guardrail.errors import InvalidInput, NotServing, PolicyNotFound, ReportConflict
from guardrail.server import exposition
from guardrail.server.exposition import MAX_HEAD, Exposition
from guardrail.server.metric_definitions import DEFINITIONS
from guardrail.server.metrics import Metrics

LOW, HIGH = {"kind": "low"}, {"kind": "high"}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def check(client, action=LOW, **options):
    return client.check(policy="coin", world="w", context={}, action=action, **options)


def report(client, name, outcome=False, action=LOW):
    return client.report(policy="coin", world="w", context={}, action=action, outcome=outcome, observation_id=name)


# ---------------------------------------------------------------- definitions


def test_the_documentation_lists_every_metric_and_no_other():
    rows = re.findall(
        r"^\| `(guardrail_\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", DOCUMENT.read_text(), re.M
    )
    written = {
        (name, kind, unit, tuple(re.findall(r"`(\w+)`", labels)), about) for name, kind, unit, labels, about in rows
    }
    assert written == {(d.name, d.kind, d.unit, d.labels, d.about) for d in DEFINITIONS}
    assert len(rows) == len(DEFINITIONS)


def test_what_is_exposed_is_what_is_defined():
    exposed = {metric.name for metric in Metrics().registry.collect() if not metric.name.startswith("process_")}
    assert exposed == {d.name.removesuffix("_total") for d in DEFINITIONS}


def test_two_services_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.refused("INTERNAL")
    assert one.registry.get_sample_value("guardrail_refusals_total", {"reason": "INTERNAL"}) == 1.0
    assert other.registry.get_sample_value("guardrail_refusals_total", {"reason": "INTERNAL"}) is None


def test_the_number_of_reasons_is_bounded():
    metrics = Metrics()
    for number in range(50):
        metrics.refused(f"REASON_{number}")
    assert metrics.registry.get_sample_value("guardrail_refusals_total", {"reason": "OTHER"}) == 50.0


# ---------------------------------------------------------------- counting


def test_checks_are_counted_by_policy_and_decision(service, client):
    for _ in range(3):
        check(client)
    client.check_many(policy="coin", world="w", context={}, actions=[LOW, HIGH])
    assert service.metric("guardrail_checks_total", policy="coin", decision="reject") == 5
    assert service.metric("guardrail_call_seconds_count", method="CheckAction") == 3
    assert service.metric("guardrail_call_seconds_count", method="CheckActions") == 1
    assert service.metric("guardrail_call_seconds_sum", method="CheckAction") > 0.0
    assert service.metric("guardrail_kernel_batch_checks_sum") == 4
    assert service.metric("guardrail_kernel_seconds_sum") > 0.0
    assert service.metric("guardrail_unwritten_decisions") + service.metric("guardrail_decisions_written_total") == 5


def test_checks_without_a_verdict_are_counted_by_reason(service, client):
    with pytest.raises(NoVerdict):
        client.check(policy="nothing", world="w", context={}, action=LOW)
    with pytest.raises(NoVerdict):
        check(client, policy_revision="0" * 64)
    for reason in ("POLICY_NOT_FOUND", "POLICY_REVISION_MISMATCH"):
        assert service.metric("guardrail_checks_without_verdict_total", reason=reason) == 1
        assert service.metric("guardrail_refusals_total", reason=reason) == 1


def test_refused_reads_are_no_checks(service, client):
    with pytest.raises(PolicyNotFound):
        client.policy("nothing")
    assert service.metric("guardrail_refusals_total", reason="POLICY_NOT_FOUND") == 1
    assert service.metric("guardrail_checks_without_verdict_total", reason="POLICY_NOT_FOUND") == 0


def test_bytes_that_are_no_request_are_counted_too(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        for method in ("CheckAction", "WatchDecisions"):
            path = f"/guardrail.v1.GuardrailService/{method}"
            with pytest.raises(grpc.RpcError) as caught:
                if method == "CheckAction":
                    channel.unary_unary(path)(b"\xff")
                else:
                    next(channel.unary_stream(path)(b"\xff"))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/guardrail.v1.GuardrailService/Nothing")(b"")
    assert service.metric("guardrail_refusals_total", reason="METHOD_UNKNOWN") == 1
    assert service.metric("guardrail_refusals_total", reason="INVALID_REQUEST") == 2
    assert service.metric("guardrail_checks_without_verdict_total", reason="INVALID_REQUEST") == 1


def test_reports_are_counted_by_what_became_of_them(service, client):
    report(client, "a")
    report(client, "a")
    with pytest.raises(ReportConflict):
        report(client, "a", outcome=True)
    with pytest.raises(InvalidInput):
        report(client, "b", action={"kind": "none"})
    with pytest.raises(InvalidInput):
        batch = [Report({}, LOW, False, "c"), Report({}, {"kind": "none"}, False, "d")]
        client.report_many(policy="coin", world="w", reports=batch)
    counted = {
        result: service.metric("guardrail_reports_total", policy="coin", result=result)
        for result in ("taken_up", "duplicate", "conflict", "refused")
    }
    assert counted == {"taken_up": 1, "duplicate": 1, "conflict": 1, "refused": 3}
    assert service.metric("guardrail_worlds", state="serving") == 1
    assert service.metric("guardrail_waiting_reports") == 0


def test_refuted_worlds_are_told_apart(service, client):
    for number in range(40):
        report(client, f"h{number}", True, HIGH)
    for number in range(150):
        report(client, f"l{number}", False, LOW)
    check(client)
    assert service.metric("guardrail_worlds", state="refuted") == 1
    assert service.metric("guardrail_worlds", state="serving") == 0


# ---------------------------------------------------------------- serving


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def served(metrics):
    exposed = Exposition("127.0.0.1:0", metrics.registry)
    yield exposed
    exposed.close()


def send(port, request):
    """Everything that comes back for some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


def test_metrics_are_served_over_http(metrics, served):
    metrics.verdict("coin", "accept", shadow=False)
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    assert 'guardrail_checks_total{decision="accept",policy="coin"} 1.0' in text.splitlines()
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\xfe\r\n\r\n", b"404"),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD + b"\r\n\r\n", b"431"),
        (b"x" * 3 * MAX_HEAD, b"431"),
    ],
)
def test_nothing_but_get_metrics_is_answered(served, request_, status):
    assert send(served.port, request_).split(b" ")[1] == status


def test_a_client_that_sends_nothing_is_cut_off_and_others_are_served(served, monkeypatch):
    monkeypatch.setattr(exposition, "READ_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as idle:
        idle.sendall(b"GET /met")
        assert send(served.port, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert idle.recv(1) == b""


def test_too_many_connections_are_closed(served, monkeypatch):
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as first:
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as second:
            assert second.recv(1) == b""
        first.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 200"


def test_a_port_that_is_taken_stops_the_start(start_service, served):
    with pytest.raises(NotServing, match="metrics"):
        start_service(metrics_listen=f"127.0.0.1:{served.port}")


@pytest.mark.parametrize("listen", ["nonsense", ":9464", "127.0.0.1:70000", "127.0.0.1:²"])
def test_an_address_that_is_none_is_refused(start_service, listen):
    with pytest.raises(ValueError, match="host:port"):
        start_service(metrics_listen=listen)


def test_a_service_serves_its_metrics_until_it_stops(start_service):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = start_service(metrics_listen=f"127.0.0.1:{port}")
    with service.client() as client:
        check(client)
    answer = send(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b'guardrail_checks_total{decision="reject",policy="coin"} 1.0' in answer
    service.stop()
    with pytest.raises(OSError):
        send(port, b"GET /metrics HTTP/1.1\r\n\r\n")
