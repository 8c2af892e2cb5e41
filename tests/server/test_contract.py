import pytest

from guardrail import wire
from guardrail.server import contract
from guardrail.v1 import guardrail_pb2 as pb

CheckAction = contract.request_class("CheckActionRequest")


def violations(name, **fields):
    return contract.validate(contract.request_class(name)(**fields))


def test_request_classes_behave_as_the_stubs():
    stub = pb.CheckActionRequest(policy="p", world="w", action=wire.dict_to_struct({"x": [1, {"y": True}]}))
    request = CheckAction.FromString(stub.SerializeToString())
    assert type(request) is not type(stub)
    assert request.policy == "p"
    assert wire.struct_to_dict(request.action) == {"x": [1.0, {"y": True}]}
    request.context.update({"z": 2})
    assert request.context["z"] == 2.0
    assert request.SerializeToString() != stub.SerializeToString()


def test_every_request_of_the_service_has_its_class():
    methods = contract.POOL.FindServiceByName(contract.SERVICE).methods
    assert {m.name for m in methods} == {m.name for m in pb.DESCRIPTOR.services_by_name["GuardrailService"].methods}
    for method in methods:
        assert contract.request_class(method.input_type.name).DESCRIPTOR is method.input_type
    with pytest.raises(KeyError):
        contract.request_class("NoSuchRequest")


@pytest.mark.parametrize("world", ["w", "a/b:c@d.e_f-1", "x" * 128, "0"])
def test_good_requests_pass(world):
    request = CheckAction(policy="p", world=world)
    request.context.update({"numbers": list(range(10)), "inner": {"a": "b"}})
    assert contract.validate(request) == []
    assert (
        violations(
            "ReportOutcomeRequest",
            policy="p",
            world=world,
            report={"observation_id": "1", "outcome": {"bool_value": True}},
        )
        == []
    )


@pytest.mark.parametrize("world", ["", "x" * 129, "x" * 10**5, "-a", "a b", "a\n", "ä", ".", "a\x00"])
def test_bad_worlds_are_named(world):
    for name in ("CheckActionRequest", "GetWorldRequest"):
        found = violations(name, policy="p", world=world)
        assert found
        assert all(text.startswith("world: ") for text in found)
        assert len("".join(found)) < 500


def test_limits_on_candidates_and_reports():
    assert violations("CheckActionsRequest", policy="p", world="w") == ["actions: must contain at least 1 item(s)"]
    request = contract.request_class("CheckActionsRequest")(policy="p", world="w")
    for _ in range(1024):
        request.actions.add().update({"x": 1})
    assert contract.validate(request) == []
    request.actions.add().update({"x": 1})
    assert contract.validate(request) == ["actions: must contain no more than 1024 item(s)"]
    assert violations("ReportOutcomeRequest", policy="p", world="w") == ["report: value is required"]
    assert violations("ListWorldsRequest", page_size=-1)
    assert violations("ListWorldsRequest", page_size=1001)
    assert violations("ListWorldsRequest") == []
    assert violations("GetDecisionRequest", decision_id="x" * 65)
    assert violations("ValidatePolicyRequest", document="x" * (2**20 + 1))


def test_what_reaches_the_store_holds_no_nul():
    # PostgreSQL keeps none. These are looked up in memory, or read by a parser that says so itself.
    elsewhere = {"policy", "policy_revision", "name", "document"}
    asked = 0
    for method in contract.POOL.FindServiceByName(contract.SERVICE).methods:
        optional = method.name.startswith("List") or method.name == "WatchDecisions"
        for field in method.input_type.fields:
            if field.type != field.TYPE_STRING or (field.name in elsewhere and not optional):
                continue
            request = contract.request_class(method.input_type.name)()
            if field.is_repeated:
                getattr(request, field.name).append("a\x00")
            else:
                setattr(request, field.name, "a\x00")
            found = [text for text in contract.validate(request) if text.startswith(field.name)]
            assert found, f"{method.name}.{field.name}"
            asked += 1
    assert asked > 20


def test_violations_name_their_place_and_are_few():
    request = contract.request_class("ReportOutcomesRequest")(policy="p", world="w")
    for _ in range(20):
        request.reports.add(observation_id="1").outcome.bool_value = True
    request.reports[7].observation_id = ""
    assert contract.validate(request) == ["reports[7].observation_id: must be at least 1 characters"]
    for report in request.reports:
        report.observation_id = ""
    found = contract.validate(request)
    assert len(found) == contract.MAX_VIOLATIONS + 1
    assert found[-1] == "and 10 more"


def test_a_message_without_rules_is_an_error_rather_than_valid():
    with pytest.raises(TypeError, match="carries no rules"):
        contract.validate(pb.CheckActionRequest())
