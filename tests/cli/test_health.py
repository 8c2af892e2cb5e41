"""The probe of containers: its exit status is what they act on."""

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


@pytest.fixture
def unwell():
    """A server whose health says that nothing serves but `one.part`."""
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("one.part", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_service_that_serves(cli, service):
    result = cli("health", service.target)
    assert (result.code, result.out) == (0, f"{service.target}: serving\n")
    assert cli("health", service.target, "--service", "guardrail.v1.GuardrailService", "--json").json == {
        "target": service.target,
        "service": "guardrail.v1.GuardrailService",
        "status": "SERVING",
        "detail": "",
    }
    assert cli("health", env={"GUARDRAIL_TARGET": service.target}).code == 0


def test_a_service_that_does_not_serve(cli, unwell):
    result = cli("health", unwell)
    assert (result.code, result.out) == (1, "")
    assert "not serving" in result.err
    assert cli("health", unwell, "--json").json["status"] == "NOT_SERVING"
    assert cli("health", unwell, "--service", "one.part").code == 0


def test_a_service_that_answers_at_all_is_alive(cli, unwell):
    result = cli("health", unwell, "--alive", "--json")
    assert (result.code, result.json["status"]) == (0, "NOT_SERVING")


def test_a_name_that_health_does_not_know(cli, service):
    result = cli("health", service.target, "--service", "nonsense", "--json")
    assert (result.code, result.json["status"]) == (1, "SERVICE_UNKNOWN")


def test_no_answer(cli):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # it takes connections and says nothing
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        result = cli("health", target, "--deadline", "0.3", "--json")
        assert (result.code, result.json["status"]) == (3, "UNREACHABLE")
        assert cli("health", target, "--deadline", "0.3", "--alive").code == 3
