"""Every reason with which a call may end: provoked in a real service, and documented in one table."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from security_files import JWT, CallersFile, Issuer

from guardrail.errors import DeviceUnavailable, StoreCorrupt, StoreError
from guardrail.server import app, registry
from guardrail.server.admission import Door
from guardrail.server.reasons import DOMAIN, REASONS
from guardrail.server.service import Service
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.v1 import guardrail_pb2_grpc

DOCS = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()

SHARE = """
schema: guardrail/v1
name: share
description: A category that is computed, and can fail.
action:
  size: number
hypotheses:
  family: finite-table
  category: 100 / int(action.size)
  table:
    - {name: one, prior: 0.5, rates: {100: 0.05, 50: 0.5}}
    - {name: two, prior: 0.5, rates: {100: 0.01, 50: 0.1}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
"""

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.upper()] = function
    return function


class Stage:
    """A service to provoke, and how to call it."""

    def __init__(self, start, monkeypatch, folder, callers):
        self._start, self.monkeypatch, self.folder, self.callers = start, monkeypatch, folder, callers
        self.metadata = ()

    def start(self, **settings):
        service = self._start(**settings)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{service.port}")
        self.stub = guardrail_pb2_grpc.GuardrailServiceStub(self.channel)
        return self

    def start_for(self, *roles, extra=""):
        """A service whose only caller, `one`, has these roles for everything."""
        self.callers.add("one", *roles, extra=extra)
        return self.start(callers=self.callers.write())

    def show(self, credential):
        self.metadata = (("authorization", f"Bearer {credential}"),)
        return self

    def show_key(self):
        return self.show(self.callers.keys["one"])

    def check(self, policy="coin", world="w", **fields):
        action = fields.pop("action", {"kind": "low"})
        request = pb.CheckActionRequest(policy=policy, world=world, action=struct(action), context=struct({}), **fields)
        return self.stub.CheckAction(request, timeout=20, metadata=self.metadata)

    def report(self, action, *, name="a", policy="coin", world="w", outcome=False):
        report = pb.Report(observation_id=name, action=struct(action), context=struct({}))
        report.outcome.bool_value = outcome
        request = pb.ReportOutcomeRequest(policy=policy, world=world, report=report)
        return self.stub.ReportOutcome(request, timeout=20, metadata=self.metadata)

    def break_store(self, method, error):
        """Opens the next service's store so that one method of it fails."""
        real = app.open_store

        def open_broken(*arguments, **options):
            store = real(*arguments, **options)

            def fail(*_arguments, **_options):
                raise error

            setattr(store, method, fail)
            return store

        self.monkeypatch.setattr(app, "open_store", open_broken)
        return self


def struct(fields):
    message = struct_pb2.Struct()
    message.update(fields)
    return message


def nested(depth):
    value = 1.0
    for _ in range(depth):
        value = [value]
    return value


@scenario
def invalid_request(stage):
    stage.start().check(policy="")


@scenario
def invalid_input(stage):
    stage.start().stub.ListWorlds(pb.ListWorldsRequest(page_token="made up"), timeout=20)


@scenario
def wrong_type(stage):
    stage.start().report({"kind": 3.0})


@scenario
def unknown_field(stage):
    stage.start().report({"kind": "low", "colour": "red"})


@scenario
def not_finite(stage):
    stage.start().report({"kind": "low", "size": math.nan})


@scenario
def feature_missing(stage):
    stage.start().report({})


@scenario
def feature_error(stage):
    stage.start().report({"size": 0.0}, policy="share")


@scenario
def unknown_category(stage):
    stage.start().report({"kind": "edge"})


@scenario
def input_too_large(stage):
    stage.start().report({"kind": nested(40)})


@scenario
def method_unknown(stage):
    call = stage.start().channel.unary_unary("/guardrail.v1.GuardrailService/Bypass")
    call(b"", timeout=20)


@scenario
def credentials_missing(stage):
    stage.start_for("agent").check()


@scenario
def credentials_invalid(stage):
    stage.start_for("agent").show("grk_made_up").check()


@scenario
def credentials_expired(stage):
    folder, key = stage.callers.path.parent, ec.generate_private_key(ec.SECP256R1())
    issuer = Issuer(folder / "jwks.json", {"ES256": key})
    stage.callers.head = JWT
    stage.callers.add("agent", "agent", key=False, extra="jwt: {sub: agent}")
    stage.start(callers=stage.callers.write()).show(issuer.token("agent", exp=int(time.time()) - 60)).check()


@scenario
def permission_denied(stage):
    stage.start_for("viewer").show_key().check()


@scenario
def self_report(stage):
    stage.start_for("agent", "reporter").show_key().report({"kind": "low"})


@scenario
def security_invalid(stage):
    stage.start_for("operator").show_key()
    stage.callers.path.write_text("callers: []")
    stage.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=20, metadata=stage.metadata)


@scenario
def rate_limited(stage):
    stage.start_for("agent", extra="limits: {requests_per_second: 0.001, burst: 1}").show_key().check()
    stage.check()


@scenario
def world_quota(stage):
    stage.start_for("reporter", extra="limits: {worlds: 1}").show_key().report({"kind": "low"})
    stage.report({"kind": "low"}, world="v")


@scenario
def revision_not_reached(stage):
    stage.start().check(min_revision=1)


@scenario
def generation_mismatch(stage):
    stage.start().report({"kind": "low"})
    request = pb.ResetWorldRequest(policy="coin", world="w", generation=7, reason="test")
    stage.stub.ResetWorld(request, timeout=20)


@scenario
def policy_not_found(stage):
    stage.start().check(policy="nobody")


@scenario
def world_not_found(stage):
    stage.start().stub.GetWorld(pb.GetWorldRequest(policy="coin", world="w"), timeout=20)


@scenario
def decision_not_found(stage):
    stage.start().stub.GetDecision(pb.GetDecisionRequest(decision_id="none"), timeout=20)


@scenario
def report_conflict(stage):
    stage.start().report({"kind": "low"})
    stage.report({"kind": "low"}, outcome=True)


@scenario
def policy_revision_mismatch(stage):
    stage.start().check(policy_revision="0" * 64)


@scenario
def policy_invalid(stage):
    stage.start()
    (stage.folder / "coin" / "policy.yaml").write_text("no policy")
    stage.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=20)


@scenario
def device_unavailable(stage):
    stage.start()

    def judge(*_arguments):
        raise DeviceUnavailable("JAX finds no gpu on this machine")

    stage.monkeypatch.setattr(registry, "Judge", judge)
    path = stage.folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace("delta: 0.05", "delta: 0.04"))
    stage.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=20)


@scenario
def world_unavailable(stage):
    stage.start().report({"kind": "low"})
    path = stage.folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace("low:", "slow:"))
    stage.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=20)
    stage.check(action={"kind": "high"})


@scenario
def limit_exceeded(stage):
    stage.start(max_worlds=1).report({"kind": "low"})
    stage.report({"kind": "low"}, world="v")


@scenario
def overloaded(stage):
    stage.monkeypatch.setattr(app, "Door", lambda limit: Door(0))
    stage.start().check()


@scenario
def store_unavailable(stage):
    stage.break_store("append_observations", StoreError("no space left")).start().report({"kind": "low"})


@scenario
def decision_log_unavailable(stage):
    stage.break_store("append_decisions", StoreError("no space left")).start()
    for _ in range(10_000):  # those before the first attempt to write are answered; they wait in the buffer
        stage.check()


@scenario
def store_corrupt(stage):
    stage.break_store("decision", StoreCorrupt("damaged")).start()
    stage.stub.GetDecision(pb.GetDecisionRequest(decision_id="any"), timeout=20)


@scenario
def not_serving(stage):
    stage.monkeypatch.setattr(registry.Registry, "load", lambda self: _nothing())
    stage.start().check()


@scenario
def internal(stage):
    def defect(self):
        raise RuntimeError("a secret of the server")

    stage.monkeypatch.setattr(Service, "policies", defect)
    stage.start().stub.ListPolicies(pb.ListPoliciesRequest(), timeout=20)


async def _nothing():
    return []


@pytest.fixture
def stage(start_service, monkeypatch, policy_folder, tmp_path):
    folder = policy_folder / "share"
    folder.mkdir()
    (folder / "policy.yaml").write_text(SHARE)
    return Stage(start_service, monkeypatch, policy_folder, CallersFile(tmp_path / "callers.yaml"))


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_can_be_met_with_its_status(stage, reason):
    with pytest.raises(grpc.RpcError) as caught:
        SCENARIOS[reason](stage)
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, caught.value.code()) == (reason, DOMAIN, REASONS[reason])
    assert "secret" not in caught.value.details()


def test_the_documentation_has_the_same_table():
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", DOCS, flags=re.M))
    assert table == {reason: status.name for reason, status in REASONS.items()}
