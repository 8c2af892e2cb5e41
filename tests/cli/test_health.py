"""The probe of containers: its exit status is what they act on."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

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


@pytest.mark.parametrize(
    ("code", "exit_status", "status"), [(200, 0, "SERVING"), (503, 1, "NOT_SERVING"), (404, 3, "UNREACHABLE")]
)
def test_health_over_http(cli, code, exit_status, status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        result = cli("health", f"http://127.0.0.1:{server.server_port}/health", "--json")
        server.shutdown()
        thread.join()
    assert (result.code, result.json["status"]) == (exit_status, status)


def test_the_service_itself_over_http(cli, service_parts, policy_file, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start, stop = service_parts
    process, _ = start(policy_file, tmp_path / "h.db", "--metrics", f"127.0.0.1:{port}")
    assert cli("health", f"http://127.0.0.1:{port}/health").code == 0
    stop(process)
    assert cli("health", f"http://127.0.0.1:{port}/health").code == 3
    assert cli("health", f"http://127.0.0.1:{port}/health", "--service", "guardrail.policies").code == 2


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
        assert cli("health", f"http://{target}/health", "--deadline", "0.3").code == 3
