"""What bad input gets from the service: a stable reason, no traceback, nothing lost, never an accept."""

from __future__ import annotations

import math

import grpc
import pytest
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from guardrail.v1 import guardrail_pb2 as pb
from guardrail.v1 import guardrail_pb2_grpc


@pytest.fixture
def stub(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield guardrail_pb2_grpc.GuardrailServiceStub(channel)


def struct(**fields):
    message = struct_pb2.Struct()
    message.update(fields)
    return message


def request(**changes):
    fields = {"policy": "coin", "world": "w", "context": struct(), "action": struct(kind="low"), **changes}
    return pb.CheckActionRequest(**fields)


def refusal(call, message):
    """Code and reason of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=20)
    assert "Traceback" not in caught.value.details()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        status.details[0].Unpack(info)
        assert info.domain == "guardrail"
    return caught.value.code().name, info.reason


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (request(policy=""), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(policy="p" * 64), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(policy="nobody"), "NOT_FOUND", "POLICY_NOT_FOUND"),
        (request(world=""), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(world="w" * 100_000), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(world="two\nlines"), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(world="../../etc/passwd"), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (request(policy_revision="0" * 64), "FAILED_PRECONDITION", "POLICY_REVISION_MISMATCH"),
        (request(policy_revision="0" * 65), "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_check_has_no_decision(stub, message, code, reason):
    assert refusal(stub.CheckAction, message) == (code, reason)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (struct(), "FEATURE_MISSING"),
        (struct(kind=None), "FEATURE_MISSING"),
        (struct(kind=3.0), "WRONG_TYPE"),
        (struct(kind=["low"]), "WRONG_TYPE"),
        (struct(kind={"a": "low"}), "WRONG_TYPE"),
        (struct(kind="low", extra=1.0), "UNKNOWN_FIELD"),
        (struct(kind="none"), "UNKNOWN_CATEGORY"),
        (struct(kind="low", size=math.nan), "NOT_FINITE"),
        (struct(kind="low", size=math.inf), "NOT_FINITE"),
        (struct(kind="low", size=-math.inf), "NOT_FINITE"),
        (struct(kind="low", size=True), "WRONG_TYPE"),
        (struct(kind="k" * 50_000), "INPUT_TOO_LARGE"),
    ],
    ids=str,
)
def test_an_action_that_does_not_fit_is_rejected_with_a_reason(stub, action, reason):
    verdict = stub.CheckAction(request(action=action), timeout=20).verdict
    assert verdict.decision == pb.DECISION_REJECT
    assert [r.code for r in verdict.reasons] == [reason]
    assert verdict.harm_bound == 1.0
    assert verdict.guarantee.kind == pb.GUARANTEE_KIND_NONE


def test_a_million_candidates_are_refused(stub):
    many = pb.CheckActionsRequest(policy="coin", world="w", actions=[struct_pb2.Struct()] * 1_000_000)
    assert refusal(stub.CheckActions, many)[0] == "RESOURCE_EXHAUSTED"
    more = pb.CheckActionsRequest(policy="coin", world="w", actions=[struct_pb2.Struct()] * 1_025)
    assert refusal(stub.CheckActions, more) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert refusal(stub.CheckActions, pb.CheckActionsRequest(policy="coin", world="w"))[1] == "INVALID_REQUEST"


def test_deep_nesting_is_refused_and_blinds_nobody(stub):
    value = struct_pb2.Value(number_value=1.0)
    for _ in range(40):
        value = struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value]))
    action = struct(kind="low")
    action.fields["size"].CopyFrom(value)
    assert refusal(stub.CheckAction, request(action=action)) == ("INVALID_ARGUMENT", "INPUT_TOO_LARGE")


def test_bytes_that_are_no_message_get_no_decision(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        call = channel.unary_unary("/guardrail.v1.GuardrailService/CheckAction")
        for data in (b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", b"\x00"):
            with pytest.raises(grpc.RpcError) as caught:
                call(data, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def report(**changes):
    fields = {"observation_id": "a", "context": struct(), "action": struct(kind="low")}
    fields["outcome"] = struct_pb2.Value(bool_value=True)
    fields.update(changes)
    return pb.ReportOutcomeRequest(policy="coin", world="w", report=pb.Report(**fields))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (report(observation_id=""), "INVALID_REQUEST"),
        (report(observation_id="x" * 129), "INVALID_REQUEST"),
        (report(outcome=None), "INVALID_REQUEST"),
        (report(outcome=struct_pb2.Value(null_value=0)), "WRONG_TYPE"),
        (report(outcome=struct_pb2.Value(number_value=math.nan)), "NOT_FINITE"),
        (report(outcome=struct_pb2.Value(number_value=1.0)), "WRONG_TYPE"),
        (report(outcome=struct_pb2.Value(string_value="yes")), "WRONG_TYPE"),
        (report(outcome=struct_pb2.Value(struct_value=struct(other=True))), "UNKNOWN_FIELD"),
        (report(action=struct()), "FEATURE_MISSING"),
        (report(action=struct(kind="none")), "UNKNOWN_CATEGORY"),
        (report(action=struct(kind="low", size=math.nan)), "NOT_FINITE"),
        (pb.ReportOutcomeRequest(policy="coin", world="w"), "INVALID_REQUEST"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_report_that_does_not_fit_is_refused(stub, message, reason):
    code, found = refusal(stub.ReportOutcome, message)
    assert (code, found) == ("INVALID_ARGUMENT", reason)
    assert not stub.ListWorlds(pb.ListWorldsRequest(), timeout=20).worlds


def test_one_bad_report_keeps_the_whole_batch_out(stub):
    good, bad = report().report, report(observation_id="b", action=struct()).report
    message = pb.ReportOutcomesRequest(policy="coin", world="w", reports=[good, bad])
    assert refusal(stub.ReportOutcomes, message) == ("INVALID_ARGUMENT", "FEATURE_MISSING")
    assert not stub.ListWorlds(pb.ListWorldsRequest(), timeout=20).worlds


def test_a_page_token_that_is_not_ours_is_refused(stub):
    assert refusal(stub.ListWorlds, pb.ListWorldsRequest(page_token="zzz"))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("document", ["", "a: [", "- 1", "schema: guardrail/v2", "a: &x [*x]", "\x00", "x" * 70_000])
def test_documents_that_are_no_policy_are_answered_with_problems(stub, document):
    if not document:
        assert refusal(stub.ValidatePolicy, pb.ValidatePolicyRequest())[1] == "INVALID_REQUEST"
        return
    answer = stub.ValidatePolicy(pb.ValidatePolicyRequest(document=document), timeout=20)
    assert answer.problems
    assert not answer.revision


def test_a_long_message_in_any_script_keeps_its_reason(stub):
    for letter in ("x", "é", "猫"):
        document = struct(**{letter * 3_000: 1.0})
        assert refusal(stub.ReportOutcome, report(action=document)) == ("INVALID_ARGUMENT", "UNKNOWN_FIELD")
