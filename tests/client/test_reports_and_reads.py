import datetime as dt
import re
import uuid

import grpc
import pytest

from guardrail import errors
from guardrail.client.results import LoggedDecision, PolicyInfo, Report, WorldEntry
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import dict_to_struct, value_to_plain

Code = grpc.StatusCode
ASK = {"policy": "p", "world": "w", "context": {"c": 1}, "action": {"x": 2}}
DONE = pb.ReportOutcomeResponse(result=pb.ReportResult(posterior_revision=4))


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("outcome", [True, 0.5, {"damaged": False}])
def test_a_report_is_acknowledged_under_its_id(client, service, outcome):
    service.on("ReportOutcome", DONE)
    reported = client.report(**ASK, outcome=outcome, observation_id="flight-7")
    assert (reported.observation_id, reported.posterior_revision, reported.duplicate) == ("flight-7", 4, False)
    request = service.requests["ReportOutcome"][0]
    assert (request.policy, request.world, request.report.observation_id) == ("p", "w", "flight-7")
    assert (dict(request.report.context), dict(request.report.action)) == ({"c": 1.0}, {"x": 2.0})
    assert value_to_plain(request.report.outcome) == outcome


def test_a_report_without_an_id_gets_a_fresh_uuid(client, service):
    service.on("ReportOutcome", DONE)
    first, second = (client.report(**ASK, outcome=True).observation_id for _ in range(2))
    assert first != second
    assert uuid.UUID(first).version == 4
    assert [r.report.observation_id for r in service.requests["ReportOutcome"]] == [first, second]


def test_a_report_is_tried_again_under_the_same_id(client, service, answers):
    duplicate = pb.ReportOutcomeResponse(result=pb.ReportResult(posterior_revision=4, duplicate=True))
    service.on("ReportOutcome", answers.fail(Code.UNAVAILABLE), duplicate)
    assert client.report(**ASK, outcome=True).duplicate
    first, second = service.requests["ReportOutcome"]
    assert first == second


def test_several_reports_keep_their_order_and_ids(client, service):
    results = [pb.ReportResult(posterior_revision=n, duplicate=n == 2) for n in (1, 2)]
    service.on("ReportOutcomes", pb.ReportOutcomesResponse(results=results))
    reports = [Report({}, {"x": 0}, True, "a"), Report({}, {"x": 1}, False)]
    reported = client.report_many(policy="p", world="w", reports=reports)
    assert [r.observation_id for r in reported] == ["a", reports[1].observation_id]
    assert [(r.posterior_revision, r.duplicate) for r in reported] == [(1, False), (2, True)]
    service.on("ReportOutcomes", pb.ReportOutcomesResponse(results=results[:1]))
    with pytest.raises(errors.ServiceError) as caught:
        client.report_many(policy="p", world="w", reports=reports)
    assert caught.value.reason == "MALFORMED_REPLY"


def test_what_cannot_be_sent_is_invalid_and_named(client):
    with pytest.raises(errors.InvalidInput, match="outcome: object"):
        client.report(**ASK, outcome=object())
    with pytest.raises(errors.InvalidInput, match=r"reports\[1\]\.action\.x: object"):
        client.report_many(policy="p", world="w", reports=[Report({}, {}, True), Report({}, {"x": object()}, True)])


FAILURES = [
    (Code.ALREADY_EXISTS, "REPORT_CONFLICT", errors.ReportConflict),
    (Code.ALREADY_EXISTS, None, errors.ReportConflict),
    (Code.INVALID_ARGUMENT, "UNKNOWN_FIELD", errors.InvalidInput),
    (Code.INVALID_ARGUMENT, None, errors.InvalidInput),
    (Code.NOT_FOUND, "POLICY_NOT_FOUND", errors.PolicyNotFound),
    (Code.NOT_FOUND, "WORLD_NOT_FOUND", errors.WorldNotFound),
    (Code.NOT_FOUND, "DECISION_NOT_FOUND", errors.DecisionNotFound),
    (Code.NOT_FOUND, None, errors.ServiceError),
    (Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", errors.LimitExceeded),
    (Code.INTERNAL, "STORE_UNAVAILABLE", errors.ServiceError),
    (Code.INTERNAL, None, errors.ServiceError),
    (Code.UNIMPLEMENTED, None, errors.ServiceError),
]


@pytest.mark.parametrize(("code", "reason", "expected"), FAILURES)
def test_failures_are_told_apart(client, service, answers, code, reason, expected):
    service.on("ReportOutcome", answers.fail(code, "why it is so", reason))
    with pytest.raises(errors.GuardrailError, match="why it is so") as caught:
        client.report(**ASK, outcome=True)
    assert type(caught.value) is expected
    if reason is not None:
        assert caught.value.reason == reason
    if expected is errors.ServiceError:
        assert caught.value.code == code.name


def test_an_unreachable_service_and_a_closed_client_are_service_errors(client, service, answers):
    service.on("GetWorld", answers.fail(Code.UNAVAILABLE))
    with pytest.raises(errors.ServiceError) as caught:
        client.world("p", "w")
    assert (caught.value.reason, caught.value.code) == ("UNREACHABLE", "UNAVAILABLE")
    client.close()
    with pytest.raises(errors.ServiceError) as caught:
        client.policies()
    assert caught.value.reason == "CLIENT_CLOSED"


def test_details_that_contradict_the_status_are_ignored(client, service, answers):
    class Contradiction(answers.fail):
        def abort(self, context):
            context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05\x12\x01x"),))
            context.abort(Code.INTERNAL, "it failed")

    service.on("GetWorld", Contradiction(Code.INTERNAL))
    with pytest.raises(errors.ServiceError) as caught:
        client.world("p", "w")
    assert caught.value.reason == "INTERNAL"


# ---------------------------------------------------------------- reads


def test_a_world_is_read_with_its_most_probable_hypotheses_first(client, service):
    world = pb.World(policy="p", world="w", posterior_revision=5, class_size=8, plausible=3, entropy=0.5)
    world.top.update({"a": 0.1, "b": 0.6, "c": 0.3})
    world.guarantee.kind = pb.GUARANTEE_KIND_ASYMPTOTIC
    service.on("GetWorld", pb.GetWorldResponse(world=world))
    state = client.world("p", "w")
    assert list(state.posterior.top.items()) == [("b", 0.6), ("c", 0.3), ("a", 0.1)]
    assert (state.posterior.revision, state.posterior.class_size, state.posterior.plausible) == (5, 8, 3)
    assert (state.posterior.refuted, state.guarantee.kind) == (False, "asymptotic")
    service.on("GetWorld", pb.GetWorldResponse(world=pb.World(policy="p", world="w", refuted=True)))
    state = client.world("p", "w")
    assert (state.posterior.refuted, state.posterior.class_size, state.posterior.entropy) == (True, None, None)


def test_a_world_tells_of_promises_and_outcomes(client, service):
    told = pb.Calibration(outcomes=9, harms=3, bounds=0.5, log_e_value=2.0, log_e_peak=5.0, log_e_alarm=4.6, alarm=True)
    service.on("GetWorld", pb.GetWorldResponse(world=pb.World(policy="p", world="w", calibration=told)))
    found = client.world("p", "w").calibration
    assert (found.outcomes, found.harms, found.bounds, found.alarm) == (9, 3, 0.5, True)
    assert (found.log_e_value, found.log_e_peak, found.log_e_alarm) == (2.0, 5.0, 4.6)
    assert (found.predicted, found.harm_low, found.harm_high) == (None, None, None)
    told.predicted, told.harm_low, told.harm_high = 0.0, 0.0, 0.75
    service.on("GetWorld", pb.GetWorldResponse(world=pb.World(policy="p", world="w", calibration=told)))
    found = client.world("p", "w").calibration
    assert (found.predicted, found.harm_low, found.harm_high) == (0.0, 0.0, 0.75)
    service.on("GetWorld", pb.GetWorldResponse(world=pb.World(policy="p", world="w")))
    assert client.world("p", "w").calibration is None


def test_worlds_are_fetched_page_by_page(client, service):
    pages = [
        pb.ListWorldsResponse(worlds=[pb.WorldEntry(policy="p", world="a", observations=1)], next_page_token="t1"),
        pb.ListWorldsResponse(worlds=[], next_page_token="t2"),
        pb.ListWorldsResponse(worlds=[pb.WorldEntry(policy="p", world="b", observations=2)]),
    ]
    service.on("ListWorlds", *pages)
    assert client.worlds("p") == [WorldEntry("p", "a", 1), WorldEntry("p", "b", 2)]
    assert [(r.policy, r.page_token) for r in service.requests["ListWorlds"]] == [("p", ""), ("p", "t1"), ("p", "t2")]


def test_pages_that_never_end_are_malformed(client, service):
    service.on("ListWorlds", pb.ListWorldsResponse(next_page_token="again"))
    with pytest.raises(errors.ServiceError) as caught:
        client.worlds()
    assert caught.value.reason == "MALFORMED_REPLY"


def a_record(answers, decision_id="d1"):
    record = pb.DecisionRecord(
        verdict=answers.verdict(decision_id=decision_id),
        context=dict_to_struct({"c": 1}),
        action=dict_to_struct({"x": [1, 2]}),
    )
    record.decided_at.FromDatetime(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    return record


def test_a_decision_is_read_as_it_was_given(client, service, answers):
    service.on("GetDecision", pb.GetDecisionResponse(decision=a_record(answers)))
    logged = client.decision("d1")
    assert isinstance(logged, LoggedDecision)
    assert (logged.verdict.accepted, logged.context, logged.action) == (True, {"c": 1.0}, {"x": [1.0, 2.0]})
    assert logged.decided_at == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def test_policies_are_listed_read_checked_and_reloaded(client, service):
    policy = pb.Policy(name="p", revision="r", description="d", document="text")
    service.on("ListPolicies", pb.ListPoliciesResponse(policies=[policy]))
    service.on("GetPolicy", pb.GetPolicyResponse(policy=policy))
    service.on("ReloadPolicies", pb.ReloadPoliciesResponse(policies=[policy], changed=["p"]))
    expected = PolicyInfo("p", "r", "d", "text")
    assert client.policies() == (expected,)
    assert client.policy("p") == expected
    reloaded = client.reload_policies()
    assert (reloaded.policies, reloaded.changed) == ((expected,), ("p",))
    service.on("ValidatePolicy", pb.ValidatePolicyResponse(revision="r"))
    assert client.validate_policy("text").valid
    problems = [pb.Problem(line=2, column=3, message="no such field")]
    service.on("ValidatePolicy", pb.ValidatePolicyResponse(problems=problems))
    check = client.validate_policy("text", "my.yaml")
    assert not check.valid
    assert str(check.problems[0]) == "my.yaml:2:3: no such field"


SINGLE = ["GetWorld", "GetPolicy", "GetDecision", "ReportOutcome"]


@pytest.mark.parametrize(
    ("method", "reply"),
    [*((method, reply) for method in SINGLE for reply in (b"\xff\xff", b"")), ("ListPolicies", b"\xff\xff")],
)
def test_replies_without_their_content_are_malformed(client, service, method, reply):
    service.on(method, reply)
    calls = {
        "GetWorld": lambda: client.world("p", "w"),
        "GetPolicy": lambda: client.policy("p"),
        "GetDecision": lambda: client.decision("d"),
        "ReportOutcome": lambda: client.report(**ASK, outcome=True),
        "ListPolicies": lambda: client.policies(),
    }
    with pytest.raises(errors.ServiceError) as caught:
        calls[method]()
    assert caught.value.reason == "MALFORMED_REPLY"


# ---------------------------------------------------------------- watching


def watched(client, take=None, **options):
    """The decision ids of a watch, from either client; the stream is closed after `take` of them."""
    if client.kind == "sync":
        found = []
        with client.client.watch(**options) as stream:
            for logged in stream:
                found.append(logged.verdict.decision_id)
                if len(found) == take:
                    stream.close()
        return found

    async def collect():
        found = []
        async with client.client.watch(**options) as stream:
            async for logged in stream:
                found.append(logged.verdict.decision_id)
                if len(found) == take:
                    stream.close()
        return found

    return client.runner.run(collect())


def test_decisions_are_watched_until_the_stream_ends(client, service, answers):
    replies = [pb.WatchDecisionsResponse(decision=a_record(answers, f"d{n}")) for n in range(3)]
    service.on("WatchDecisions", replies)
    assert watched(client, policy="p") == ["d0", "d1", "d2"]
    assert service.requests["WatchDecisions"][0].policy == "p"


def test_a_watch_ends_when_it_is_closed(client, service, answers):
    reply = pb.WatchDecisionsResponse(decision=a_record(answers))
    service.on("WatchDecisions", [reply, answers.never])
    assert watched(client, take=1) == ["d1"]


def test_a_watch_begins_before_its_first_decision_is_asked_for(client, service):
    service.on("WatchDecisions", [])
    if client.kind == "sync":
        stream = client.client.watch()
        assert service.watchers.acquire(timeout=30)
        stream.close()
    else:

        async def begin():
            import asyncio

            stream = client.client.watch()
            begun = await asyncio.to_thread(service.watchers.acquire, timeout=30)
            stream.close()
            return begun

        assert client.runner.run(begin())


def test_a_broken_watch_is_an_error(client, service, answers):
    reply = pb.WatchDecisionsResponse(decision=a_record(answers))
    service.on("WatchDecisions", [reply, answers.fail(Code.RESOURCE_EXHAUSTED, "too slow", "WATCHER_TOO_SLOW")])
    with pytest.raises(errors.LimitExceeded, match=re.escape("too slow")) as caught:
        watched(client)
    assert caught.value.reason == "WATCHER_TOO_SLOW"


# ---------------------------------------------------------------- lists of decisions, and what a world tells in full


def test_decisions_are_fetched_page_by_page_up_to_a_limit(client, service, answers):
    records = [a_record(answers, f"d{n}") for n in range(5)]
    pages = [
        pb.ListDecisionsResponse(decisions=records[:2], next_page_token="t1"),
        pb.ListDecisionsResponse(next_page_token="t2"),
        pb.ListDecisionsResponse(decisions=records[2:]),
    ]
    for limit, sizes in ((None, [200, 200, 200]), (4, [4, 2, 2]), (2, [2])):
        service.on("ListDecisions", *pages)
        service.requests["ListDecisions"].clear()
        found = client.decisions("p", "w", limit=limit)
        assert [one.verdict.decision_id for one in found] == [f"d{n}" for n in range(5)][:limit]
        asked = service.requests["ListDecisions"]
        assert [(r.policy, r.world, r.page_token) for r in asked] == [("p", "w", t) for t in ("", "t1", "t2")][
            : len(sizes)
        ]
        assert [r.page_size for r in asked] == sizes
    service.on("ListDecisions", pb.ListDecisionsResponse(next_page_token="again"))
    with pytest.raises(errors.ServiceError) as caught:
        client.decisions()
    assert caught.value.reason == "MALFORMED_REPLY"


def test_more_hypotheses_than_were_asked_for_are_malformed(client, service):
    world = pb.World(policy="p", world="w")
    world.hypotheses.add(name="a")
    service.on("GetWorld", pb.GetWorldResponse(world=world))
    assert client.world("p", "w", hypotheses=1).posterior.detail.hypotheses[0].name == "a"
    assert service.requests["GetWorld"][-1].hypotheses == 1
    with pytest.raises(errors.ServiceError) as caught:
        client.world("p", "w")
    assert caught.value.reason == "MALFORMED_REPLY"
