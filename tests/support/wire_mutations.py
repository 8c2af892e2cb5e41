"""Hypothesis strategies for requests: valid ones, odd ones, and what damaged bytes are made of them."""

from __future__ import annotations

import math

from google.protobuf import struct_pb2
from hypothesis import strategies as st

from guardrail.v1 import guardrail_pb2 as pb

ODD_NUMBERS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.8e308, -1e308, 2.0**53, 2.0**63, -(2.0**63), 1e-300]
ODD_TEXTS = [
    "",
    "\0",
    "a\0b",
    "\u200f\u202e",
    "\U0001f4a9",
    "e\u0301",
    "\ufeff",
    "\n",
    "low\n",
    "..",
    "%s%n",
    "'; drop",
]
ODD_TEXTS += ["k" * n for n in (62, 63, 64, 127, 128, 129, 400, 401, 9_999, 10_000, 10_001)]

numbers = st.floats() | st.sampled_from(ODD_NUMBERS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(ODD_TEXTS)
scalars = st.one_of(
    st.builds(lambda n: struct_pb2.Value(number_value=n), numbers),
    st.builds(lambda t: struct_pb2.Value(string_value=t), texts),
    st.builds(lambda b: struct_pb2.Value(bool_value=b), st.booleans()),
    st.just(struct_pb2.Value(null_value=0)),
    st.just(struct_pb2.Value()),
)


def _deep(depth, value, as_list):
    for _ in range(depth):
        if as_list:
            value = struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value]))
        else:
            value = struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"a": value}))
    return value


values = st.one_of(
    scalars,
    st.builds(_deep, st.sampled_from([1, 2, 14, 15, 16, 17, 30]), scalars, st.booleans()),
    st.builds(lambda v: struct_pb2.Value(list_value=struct_pb2.ListValue(values=v)), st.lists(scalars, max_size=4)),
)
names = st.sampled_from(["kind", "size", "hurt"]) | texts
fitting = st.builds(
    lambda kind, size: struct_pb2.Struct(
        fields={"kind": struct_pb2.Value(string_value=kind)}
        | ({} if size is None else {"size": struct_pb2.Value(number_value=size)})
    ),
    st.sampled_from(["low", "low", "high"]),
    st.none() | st.sampled_from([0.0, 10.0, math.nextafter(10, 11), -1e300]),
)
structs = st.builds(lambda fields: struct_pb2.Struct(fields=fields), st.dictionaries(names, values, max_size=4))
actions = fitting | fitting | structs
contexts = st.just(struct_pb2.Struct()) | structs
policies = st.sampled_from(["coin"] * 6 + ["Coin", "coin ", "nobody"]) | texts
worlds = st.sampled_from(["w", "w", "v", "a" * 128, "a" * 129, "w\n", "-w", "w/../x", "world:1"]) | texts
revisions = st.sampled_from(["", "", "", "0" * 64, "0" * 65]) | texts
counts = st.sampled_from([0, 0, 0, 1, 2**32, 2**64 - 1])
outcomes = st.one_of(
    st.builds(lambda b: struct_pb2.Value(bool_value=b), st.booleans()),
    st.builds(
        lambda b: struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"hurt": struct_pb2.Value(bool_value=b)})),
        st.booleans(),
    ),
    values,
)
reports = st.builds(
    pb.Report,
    observation_id=st.sampled_from(["a", "b", "c", "a\0"]) | texts | st.uuids().map(str),
    context=contexts,
    action=actions,
    outcome=outcomes,
)
documents = texts | st.sampled_from(["schema: guardrail/v1\n", "a: [", "a: &x [*x]", "- 1", "{" * 60, "x" * 70_000])

REQUESTS = {
    "CheckAction": st.builds(
        pb.CheckActionRequest,
        policy=policies,
        world=worlds,
        context=contexts,
        action=actions,
        policy_revision=revisions,
        min_revision=counts,
    ),
    "CheckActions": st.builds(
        pb.CheckActionsRequest,
        policy=policies,
        world=worlds,
        context=contexts,
        actions=st.lists(actions, max_size=5)
        | st.sampled_from([1_024, 1_025]).map(lambda n: [struct_pb2.Struct()] * n),
        policy_revision=revisions,
        min_revision=counts,
    ),
    "ReportOutcome": st.builds(pb.ReportOutcomeRequest, policy=policies, world=worlds, report=reports),
    "ReportOutcomes": st.builds(
        pb.ReportOutcomesRequest, policy=policies, world=worlds, reports=st.lists(reports, max_size=4)
    ),
    "GetWorld": st.builds(pb.GetWorldRequest, policy=policies, world=worlds),
    "ListWorlds": st.builds(
        pb.ListWorldsRequest,
        policy=policies | st.just(""),
        page_size=st.sampled_from([0, 1, 1_000, 1_001, -1, 2**31 - 1]),
        page_token=st.sampled_from(["", "coin\nw", "\n", "coin\n", "x\ny\nz"]) | texts,
    ),
    "GetDecision": st.builds(pb.GetDecisionRequest, decision_id=st.just("0" * 32) | texts),
    "WatchDecisions": st.builds(pb.WatchDecisionsRequest, policy=policies, world=worlds),
    "ResetWorld": st.builds(
        pb.ResetWorldRequest,
        policy=policies,
        world=worlds,
        generation=st.sampled_from([0, 1, 1, 2, 2**53 - 1, 2**53, 2**64 - 1]),
        reason=st.sampled_from(["a test", "a\0b", "x" * 500, "x" * 501]) | texts,
    ),
    "ListPolicies": st.just(pb.ListPoliciesRequest()),
    "GetPolicy": st.builds(pb.GetPolicyRequest, name=policies),
    "ValidatePolicy": st.builds(pb.ValidatePolicyRequest, document=documents),
    "ReloadPolicies": st.just(pb.ReloadPoliciesRequest()),
}
"""RPC -> its requests, most of them of the right form."""

_UNKNOWN_FIELDS = [
    b"\xf8\x07\x01",
    b"\xfa\x07\x03abc",
    b"\xfb\x07\xfc\x07",
    b"\x80\x80\x80\x80\x10\x00",
    b"\x0b",
    b"\x07",
]


@st.composite
def damaged(draw, messages):
    """The bytes of a message, after none or some damage."""
    data = draw(messages).SerializeToString()
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "extend", "repeat", "field", "double", "insert"])):
            case "flip" if place < len(data):
                data = data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
            case "cut":
                data = data[:place]
            case "extend":
                data += draw(st.binary(max_size=20))
            case "repeat":
                data = (
                    data[:place]
                    + data[place : place + draw(st.integers(1, 9))] * draw(st.integers(2, 50))
                    + data[place:]
                )
            case "field":
                data += draw(st.sampled_from(_UNKNOWN_FIELDS))
            case "double":  # every field a second time: the last one counts, messages are merged
                data += data
            case "insert":
                data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place:]
    return data


_keys = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20).filter(
    lambda key: not key.startswith(("grpc-", "-", ".")) and key not in ("te", "user-agent", "content-type", "host")
)
metadata = st.lists(
    st.one_of(
        st.tuples(
            _keys.filter(lambda key: not key.endswith("-bin")) | st.just("authorization"),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
        ),
        st.tuples(_keys.map(lambda key: f"{key}-bin"), st.binary(max_size=200)),
    ),
    max_size=4,
)
"""What may come with a call; grpc's client refuses other keys and values."""
