import math
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import wire
from guardrail.canonical import MAX_DEPTH
from guardrail.domain import (
    NO_GUARANTEE,
    CautiousHypothesis,
    Decision,
    Guarantee,
    GuaranteeKind,
    Reason,
    ReasonCode,
    Search,
    Verdict,
)
from guardrail.errors import InvalidInput
from guardrail.v1 import guardrail_pb2 as pb

NAN, INF = math.nan, math.inf
THEOREM = Guarantee(GuaranteeKind.THEOREM, 0.95, ("the truth is in the class",), "Proposition 4.5")

SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()
OBJECTS = st.dictionaries(
    st.text(),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20),
)
PROBABILITIES = st.floats(0, 1)


def a_verdict(**changes):
    verdict = Verdict(
        decision=Decision.ACCEPT,
        harm_bound=0.05,
        threshold=0.2,
        escalate_above=0.1,
        predictive_harm=0.01,
        cautious_hypothesis=CautiousHypothesis("h3", {"a": 1.0, "b": -2.0}, 0.05, -1.5),
        guarantee=THEOREM,
        reasons=(Reason(ReasonCode.WITHIN_THRESHOLD, "at most 0.1"),),
        policy="p",
        policy_revision="a" * 64,
        world="w",
        posterior_revision=12,
        decision_id="d1",
    )
    return replace(verdict, **changes)


@pytest.mark.parametrize("search", [None, Search(truncated=True, scanned=0.25), Search(truncated=False, scanned=1.0)])
def test_how_far_a_search_went_crosses_the_wire(search):
    assert wire.verdict_from_proto(wire.verdict_to_proto(a_verdict(search=search))).search == search


def test_a_share_that_is_none_reads_as_nothing_scanned():
    message = wire.verdict_to_proto(a_verdict(search=Search(truncated=True, scanned=0.5)))
    message.search.scanned = math.nan
    assert wire.verdict_from_proto(message).search == Search(truncated=True, scanned=0.0)


# ---------------------------------------------------------------- plain values


@given(OBJECTS)
@settings(derandomize=True, deadline=None)
def test_plain_values_come_back_from_the_wire_as_protobuf_itself_would_write_them(values):
    struct = struct_pb2.Struct()
    struct.update(values)
    assert wire.dict_to_struct(values) == struct
    assert wire.struct_to_dict(struct_pb2.Struct.FromString(struct.SerializeToString())) == values


@given(st.recursive(SCALARS, st.lists, max_leaves=5))
@settings(derandomize=True, deadline=None)
def test_single_values_come_back(value):
    assert wire.value_to_plain(wire.plain_to_value(value)) == value


def test_nan_infinity_and_negative_zero_are_kept():
    back = wire.struct_to_dict(wire.dict_to_struct({"x": [NAN, INF, -INF, -0.0], "y": NAN}))
    assert math.isnan(back["x"][0])
    assert math.isnan(back["y"])
    assert back["x"][1:3] == [INF, -INF]
    assert math.copysign(1, back["x"][3]) == -1


def test_empty_containers_and_zeros_keep_their_type():
    values = {"list": [], "object": {}, "text": "", "zero": 0.0, "no": False, "null": None, "inner": [[], {}, 0.0]}
    back = wire.struct_to_dict(wire.dict_to_struct(values))
    assert back == values
    assert back["no"] is False
    assert type(back["zero"]) is float


def test_numpy_scalars_and_integers_become_floats():
    back = wire.struct_to_dict(
        wire.dict_to_struct({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": 4})
    )
    assert back == {"a": 0.5, "b": 3.0, "c": True, "d": 4.0}
    assert back["c"] is True


def test_a_value_without_a_kind_is_none():
    struct = struct_pb2.Struct()
    struct.fields["x"].SetInParent()
    assert wire.struct_to_dict(struct) == {"x": None}


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"a": {"b": [1, object()]}}, r"action\.a\.b\[1\]: object"),
        ({"n": 2**53 + 1}, r"action\.n: no double"),
        ({1: 2}, "action: the key 1"),
        ({"t": "\ud800"}, r"action\.t: the text"),
        ([1], "action: list is not an object"),
        (None, "action: NoneType is not an object"),
        ("x", "action: str is not an object"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_by_its_place(values, place):
    with pytest.raises(InvalidInput, match=place) as caught:
        wire.dict_to_struct(values, "action")
    assert caught.value.reason == "WRONG_TYPE"


def test_the_deepest_value_that_is_sent_can_be_read():
    def nested(levels):
        return {} if levels == 1 else {"k": nested(levels - 1)}

    request = pb.ReportOutcomesRequest(
        reports=[
            pb.Report(outcome=wire.plain_to_value(nested(MAX_DEPTH)), action=wire.dict_to_struct(nested(MAX_DEPTH)))
        ]
    )
    report = pb.ReportOutcomesRequest.FromString(request.SerializeToString()).reports[0]
    assert wire.value_to_plain(report.outcome) == nested(MAX_DEPTH)
    with pytest.raises(InvalidInput) as caught:
        wire.dict_to_struct(nested(MAX_DEPTH + 1))
    assert caught.value.reason == "INPUT_TOO_LARGE"


# ---------------------------------------------------------------- enums and guarantees


def test_every_decision_and_kind_has_its_number_and_zero_is_none_of_them():
    assert set(wire.DECISION_TO_PROTO) == set(Decision)
    assert set(wire.KIND_TO_PROTO) == set(GuaranteeKind)
    assert sorted(wire.DECISION_FROM_PROTO) == sorted(set(pb.Decision.values()) - {0})
    assert sorted(wire.KIND_FROM_PROTO) == sorted(set(pb.GuaranteeKind.values()) - {0})
    for decision, number in wire.DECISION_TO_PROTO.items():
        assert pb.Decision.Name(number) == f"DECISION_{decision.name}"
        assert wire.DECISION_FROM_PROTO[number] is decision
    for kind, number in wire.KIND_TO_PROTO.items():
        assert pb.GuaranteeKind.Name(number) == f"GUARANTEE_KIND_{kind.name}"


def test_the_kept_guarantee_messages_never_mix_up_and_stay_few():
    for step in range(1000):
        guarantee = Guarantee(GuaranteeKind.THEOREM, step / 1000, (), str(step))
        message = wire.guarantee_to_proto(guarantee)
        assert (message.confidence, message.source) == (step / 1000, str(step))
        assert wire.guarantee_to_proto(guarantee) is message
    assert len(wire._guarantees) <= wire._GUARANTEES_KEPT


def test_a_verdict_carries_a_copy_of_the_kept_guarantee():
    wire.verdict_to_proto(a_verdict()).guarantee.source = "changed"
    assert wire.verdict_to_proto(a_verdict()).guarantee.source == THEOREM.source


@pytest.mark.parametrize(
    ("message", "kind", "confidence"),
    [
        (pb.Guarantee(kind=1, confidence=0.9), GuaranteeKind.THEOREM, 0.9),
        (pb.Guarantee(kind=0, confidence=0.9), GuaranteeKind.NONE, 0.0),
        (pb.Guarantee(kind=99, confidence=0.9), GuaranteeKind.NONE, 0.0),
        (pb.Guarantee(kind=1, confidence=NAN), GuaranteeKind.NONE, 0.0),
        (pb.Guarantee(kind=1, confidence=1.1), GuaranteeKind.NONE, 0.0),
        (pb.Guarantee(kind=2, confidence=0.9), GuaranteeKind.ASYMPTOTIC, 0.0),
        (pb.Guarantee(kind=3, confidence=0.9), GuaranteeKind.ESTIMATE, 0.0),
    ],
)
def test_a_guarantee_promises_no_more_than_it_plainly_says(message, kind, confidence):
    guarantee = wire.guarantee_from_proto(message)
    assert (guarantee.kind, guarantee.confidence) == (kind, confidence)


# ---------------------------------------------------------------- verdicts


@st.composite
def sound_verdicts(draw):
    threshold = draw(PROBABILITIES)
    decision = draw(st.sampled_from(Decision))
    escalate_above = draw(st.none() | st.floats(0, threshold))
    limit = threshold if escalate_above is None else escalate_above
    bound = draw(st.floats(0, limit)) if decision is Decision.ACCEPT else draw(PROBABILITIES)
    cautious = st.builds(
        CautiousHypothesis,
        st.text(),
        st.dictionaries(st.text(), st.floats(allow_nan=False)),
        PROBABILITIES,
        st.none() | st.floats(-100, 0),
    )
    return a_verdict(
        decision=decision,
        harm_bound=bound,
        threshold=threshold,
        escalate_above=escalate_above,
        predictive_harm=draw(st.none() | PROBABILITIES),
        cautious_hypothesis=draw(st.none() | cautious),
        guarantee=draw(st.sampled_from([THEOREM, NO_GUARANTEE])),
        reasons=tuple(draw(st.lists(st.builds(Reason, st.sampled_from(ReasonCode), st.text()), max_size=3))),
        posterior_revision=draw(st.integers(0, 2**64 - 1)),
    )


@given(sound_verdicts())
@settings(derandomize=True, deadline=None)
def test_a_sound_verdict_comes_back_unchanged(verdict):
    sent = wire.verdict_to_proto(verdict).SerializeToString()
    assert wire.verdict_from_proto(pb.Verdict.FromString(sent)) == verdict


BROKEN_ACCEPTS = [
    {"harm_bound": NAN},
    {"harm_bound": 0.21},
    {"harm_bound": 0.11},
    {"harm_bound": -0.01},
    {"harm_bound": INF},
    {"threshold": NAN},
    {"threshold": 0.04},
    {"threshold": -1.0},
    {"threshold": 2.0},
    {"escalate_above": NAN},
    {"escalate_above": 0.04},
    {"escalate_above": 5.0},
]


@pytest.mark.parametrize("changes", BROKEN_ACCEPTS, ids=str)
def test_the_server_never_sends_an_accept_against_its_own_numbers(changes):
    with pytest.raises(ValueError, match="decision d1 accepts"):
        wire.verdict_to_proto(a_verdict(**changes))


@pytest.mark.parametrize("changes", [{"decision": 0}, {"decision": 4}, {"decision": -1}, *BROKEN_ACCEPTS], ids=str)
def test_a_doubtful_accept_reads_as_a_reject_that_says_so(changes):
    message = wire.verdict_to_proto(a_verdict())
    assert wire.verdict_from_proto(message).accepted
    for name, value in changes.items():
        setattr(message, name, value)
    verdict = wire.verdict_from_proto(message)
    assert verdict.decision is Decision.REJECT
    assert [reason.code for reason in verdict.reasons] == ["DECISION_UNSPECIFIED", "WITHIN_THRESHOLD"]
    assert 0 <= verdict.harm_bound <= 1
    assert 0 <= verdict.threshold <= 1


def test_numbers_that_are_no_probabilities_read_as_the_worst():
    message = pb.Verdict(decision=2, harm_bound=NAN, threshold=NAN, escalate_above=NAN, predictive_harm=7)
    verdict = wire.verdict_from_proto(message)
    assert (verdict.harm_bound, verdict.threshold) == (1.0, 0.0)
    assert (verdict.escalate_above, verdict.predictive_harm) == (None, None)


@pytest.mark.parametrize("harm_bound", [NAN, -0.1, 1.1])
def test_an_escalation_without_a_harm_bound_is_a_reject(harm_bound):
    verdict = wire.verdict_from_proto(pb.Verdict(decision=3, harm_bound=harm_bound, threshold=0.2))
    assert (verdict.decision, verdict.harm_bound) == (Decision.REJECT, 1.0)
    assert verdict.reasons[0].code == "DECISION_UNSPECIFIED"


def test_an_empty_verdict_is_a_reject_without_a_guarantee():
    verdict = wire.verdict_from_proto(pb.Verdict())
    assert verdict.decision is Decision.REJECT
    assert verdict.guarantee == NO_GUARANTEE
    assert verdict.cautious_hypothesis is None


def test_a_reject_and_an_escalation_stay_what_they_are():
    for decision in (Decision.REJECT, Decision.ESCALATE):
        verdict = a_verdict(decision=decision, harm_bound=0.9)
        assert wire.verdict_from_proto(wire.verdict_to_proto(verdict)) == verdict


def test_a_reason_from_a_newer_service_keeps_its_code_in_the_message():
    message = pb.Verdict(decision=2, reasons=[pb.Reason(code="HARM_BUDGET_SPENT", message="nothing left")])
    assert wire.verdict_from_proto(message).reasons == (
        Reason(ReasonCode.UNRECOGNIZED, "HARM_BUDGET_SPENT: nothing left"),
    )


@pytest.mark.parametrize("field", ["harm_bound", "threshold", "guarantee", "decision_id", "policy_revision"])
def test_an_accept_that_lacks_what_backs_it_is_a_reject(field):
    message = pb.Verdict(
        decision=pb.DECISION_ACCEPT,
        harm_bound=0.0,
        threshold=0.1,
        guarantee=pb.Guarantee(kind=pb.GUARANTEE_KIND_THEOREM, confidence=0.95),
        decision_id="d",
        policy_revision="r",
    )
    assert wire.verdict_from_proto(message).accepted
    message.ClearField(field)
    verdict = wire.verdict_from_proto(message)
    assert not verdict.accepted
    assert verdict.reasons[0].code == "DECISION_UNSPECIFIED"
