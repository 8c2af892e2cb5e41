"""Any bytes to any RPC of a running service: a reply as the guard would give it, or a documented reason."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_service import POLICY, Service
from service_model import Model
from wire_mutations import REQUESTS, damaged, metadata

from guardrail.policy import parse_policy
from guardrail.server.settings import ServerSettings

EXAMPLES = {"ReloadPolicies": 20, "WatchDecisions": 60, "ValidatePolicy": 40, "ListPolicies": 40}


class Caller:
    """Sends bytes and compares what comes back with the model."""

    def __init__(self, port):
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._model = Model([parse_policy(POLICY)])

    def call(self, method, data, sent):
        path = f"/guardrail.v1.GuardrailService/{method}"
        try:
            if method == "WatchDecisions":
                stream = self._channel.unary_stream(path)(data, metadata=sent, timeout=20)
                stream.initial_metadata()
                if not stream.cancel():  # it had ended: by what?
                    next(stream)
            else:
                self._model.answered(method, data, self._channel.unary_unary(path)(data, metadata=sent, timeout=20))
        except grpc.RpcError as error:
            self._model.refused(method, data, error.code().name, reason_of(error))

    def health(self):
        return self._health.Check(
            health_pb2.HealthCheckRequest(service="guardrail.v1.GuardrailService"), timeout=20
        ).status

    def close(self):
        self._channel.close()


def reason_of(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "guardrail"
            return info.reason
    raise AssertionError(f"a status without a reason: {error.code()}: {error.details()}")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def caller(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "policies" / "coin").mkdir(parents=True)
    (folder / "policies" / "coin" / "policy.yaml").write_text(POLICY)
    store = folder / "guardrail.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        store = server.url(server.create_database())
    service = Service(
        ServerSettings(
            listen="127.0.0.1:0",
            policies=(folder / "policies",),
            store=store,
            compilation_cache=Path(tmp_path_factory.getbasetemp()) / "kernels",
        )
    ).start()
    caller = Caller(service.port)
    yield caller
    caller.close()
    service.stop()


@pytest.mark.parametrize("method", sorted(REQUESTS))
def test_any_bytes_get_what_the_guard_says_or_a_documented_reason(caller, method):
    @given(damaged(REQUESTS[method]), metadata)
    @settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=EXAMPLES.get(method, 150),
        suppress_health_check=list(HealthCheck),
    )
    def send(data, sent):
        caller.call(method, data, sent)
        assert caller.health() == health_pb2.HealthCheckResponse.SERVING

    send()


def test_bytes_of_no_message_at_all(caller):
    @given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=200))
    @settings(derandomize=True, deadline=None, database=None, max_examples=200)
    def send(method, data):
        if method != "ReloadPolicies":
            caller.call(method, data, ())
        assert caller.health() == health_pb2.HealthCheckResponse.SERVING

    send()
