import math
import socket

import grpc
import pytest

from guardrail.domain import Decision
from guardrail.errors import NoVerdict
from guardrail.v1 import guardrail_pb2 as pb

ASK = {"policy": "p", "world": "w", "context": {"c": 1}, "action": {"x": [1.5, True, "a"]}}
MANY = {"policy": "p", "world": "w", "context": {}, "actions": [{"x": 0}, {"x": 1}, {"x": 2}]}
Code = grpc.StatusCode


def no_verdict(client, method="check", **question):
    """The reason for which there is no verdict."""
    with pytest.raises(NoVerdict) as caught:
        getattr(client, method)(**(question or ASK))
    return caught.value.reason


# ---------------------------------------------------------------- one action


def test_an_accept_comes_with_everything_the_service_says(client, service, answers):
    guarantee = pb.Guarantee(kind=1, confidence=0.95, assumptions=["the truth is in the class"], source="4.5")
    service.on("CheckAction", answers.check(guarantee=guarantee, predictive_harm=0.01))
    verdict = client.check(**ASK)
    assert verdict.accepted
    assert (verdict.harm_bound, verdict.threshold, verdict.predictive_harm) == (0.05, 0.2, 0.01)
    assert (verdict.guarantee.confidence, verdict.guarantee.assumptions) == (0.95, ("the truth is in the class",))
    assert (verdict.posterior_revision, verdict.decision_id) == (3, "d1")
    request = service.requests["CheckAction"][0]
    assert (request.policy, request.world, request.policy_revision) == ("p", "w", "")
    assert dict(request.context) == {"c": 1.0}
    assert list(request.action["x"]) == [1.5, True, "a"]


@pytest.mark.parametrize("decision", ["REJECT", "ESCALATE"])
def test_a_rejection_is_a_result(client, service, answers, decision):
    service.on("CheckAction", answers.check(decision=f"DECISION_{decision}", harm_bound=0.9))
    verdict = client.check(**ASK)
    assert verdict.decision is Decision[decision]
    assert not verdict.accepted


@pytest.mark.parametrize(
    "changes",
    [{"decision": 0}, {"decision": 77}, {"harm_bound": math.nan}, {"harm_bound": 0.21}, {"threshold": math.nan}],
    ids=str,
)
def test_a_doubtful_verdict_is_a_reject(client, service, answers, changes):
    service.on("CheckAction", answers.check(**changes))
    verdict = client.check(**ASK)
    assert verdict.decision is Decision.REJECT
    assert verdict.reasons[0].code == "DECISION_UNSPECIFIED"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xff\xff\xff",
        b"\x0a\x05ab",
        pb.CheckActionResponse(verdict=pb.Verdict(decision=1, harm_bound=0, threshold=1)),
    ],
    ids=["empty", "garbage", "truncated", "about nothing"],
)
def test_a_reply_that_is_no_verdict_is_malformed(client, service, reply):
    service.on("CheckAction", reply)
    assert no_verdict(client) == "MALFORMED_REPLY"


@pytest.mark.parametrize("changes", [{"policy": "q"}, {"world": "v"}], ids=str)
def test_a_verdict_about_something_else_is_none(client, service, answers, changes):
    service.on("CheckAction", answers.check(**changes))
    assert no_verdict(client) == "MALFORMED_REPLY"


def test_a_verdict_of_another_revision_than_the_demanded_one_is_none(client, service, answers):
    service.on("CheckAction", answers.check())
    assert client.check(**ASK, policy_revision="a" * 64).accepted
    assert service.requests["CheckAction"][0].policy_revision == "a" * 64
    assert no_verdict(client, **ASK, policy_revision="b" * 64) == "MALFORMED_REPLY"


def test_fewer_observations_than_asked_for_give_no_verdict(client, service, answers):
    """Whatever a service answers that knows nothing of the wish: what it rests on is in the verdict."""
    service.on("CheckAction", answers.check())  # it rests on 3
    assert client.check(**ASK, min_revision=3).accepted
    assert [request.min_revision for request in service.requests["CheckAction"]] == [3]
    assert no_verdict(client, **ASK, min_revision=4) == "MALFORMED_REPLY"
    service.on(
        "CheckActions", pb.CheckActionsResponse(verdicts=[answers.verdict(), answers.verdict(posterior_revision=2)])
    )
    asked = {**MANY, "actions": MANY["actions"][:2]}
    assert client.check_many(**asked, min_revision=2).verdicts
    assert no_verdict(client, "check_many", **asked, min_revision=3) == "MALFORMED_REPLY"
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match="min_revision"):
            client.check(**ASK, min_revision=wrong)


@pytest.mark.parametrize(
    "action", [{"x": object()}, {"x": 2**53 + 1}, {1: 2}, None, [1]], ids=["object", "large", "key", "none", "list"]
)
def test_an_action_that_cannot_be_sent_has_no_verdict(client, service, answers, action):
    service.on("CheckAction", answers.check())
    assert no_verdict(client, **{**ASK, "action": action}) == "WRONG_TYPE"
    assert no_verdict(client, **{**ASK, "context": {"x": [[]] * 2, "y": object()}}) == "WRONG_TYPE"
    assert service.requests["CheckAction"] == []


def test_a_number_that_is_not_finite_is_for_the_service_to_judge(client, service, answers):
    service.on("CheckAction", answers.check(decision=2))
    client.check(**{**ASK, "action": {"x": math.nan}})
    assert math.isnan(service.requests["CheckAction"][0].action["x"])


def test_metadata_goes_with_every_call(connect, service, answers):
    service.on("CheckAction", answers.check())
    connect(service.target, metadata=[("authorization", "Bearer t")]).check(**ASK)
    assert service.metadata[0]["authorization"] == "Bearer t"


# ---------------------------------------------------------------- failures


def test_unavailable_is_tried_again(client, service, answers):
    service.on("CheckAction", answers.fail(Code.UNAVAILABLE), answers.fail(Code.UNAVAILABLE), answers.check())
    assert client.check(**ASK).accepted
    assert len(service.requests["CheckAction"]) == 3


def test_four_attempts_are_all(client, service, answers):
    service.on("CheckAction", answers.fail(Code.UNAVAILABLE, reason="NOT_SERVING"))
    assert no_verdict(client) == "NOT_SERVING"
    assert len(service.requests["CheckAction"]) == 4


@pytest.mark.parametrize(
    "code", [Code.INTERNAL, Code.UNKNOWN, Code.ABORTED, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.CANCELLED]
)
def test_nothing_else_is_tried_again(client, service, answers, code):
    service.on("CheckAction", answers.fail(code), answers.check())
    assert no_verdict(client) == code.name
    assert len(service.requests["CheckAction"]) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.NOT_FOUND, "POLICY_NOT_FOUND"),
        (Code.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (Code.FAILED_PRECONDITION, "REVISION_MISMATCH"),
        (Code.INTERNAL, "STORE_UNAVAILABLE"),
    ],
)
def test_the_services_reason_is_the_reason(client, service, answers, code, reason):
    service.on("CheckAction", answers.fail(code, "why it is so", reason))
    with pytest.raises(NoVerdict, match=f"{reason}: why it is so \\({code.name}\\)") as caught:
        client.check(**ASK)
    assert caught.value.reason == reason


def test_the_deadline_holds(client, service, answers):
    service.on("CheckAction", answers.never)
    assert no_verdict(client, **ASK, timeout=0.2) == "DEADLINE_EXCEEDED"


def test_the_default_deadline_is_one_second(service, answers):
    from guardrail.client.sync import Client

    service.on("CheckAction", answers.never)
    with Client(service.target) as client:
        assert client._timeout == 1.0
        assert no_verdict(client) == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "1"])
def test_a_call_without_a_deadline_is_refused(connect, client, timeout):
    with pytest.raises(ValueError, match="a timeout is"):
        connect("localhost:1", timeout=timeout)
    with pytest.raises(ValueError, match="a timeout is"):
        client.check(**ASK, timeout=timeout)


def test_a_dead_service_is_unreachable(connect):
    with socket.socket() as taken:  # bound but not listening: nobody else gets the port, nobody answers
        taken.bind(("127.0.0.1", 0))
        client = connect(f"127.0.0.1:{taken.getsockname()[1]}")
        assert no_verdict(client) == "UNREACHABLE"
        assert no_verdict(client, "check_many", **MANY) == "UNREACHABLE"


def test_a_closed_client_has_no_verdict(client):
    client.close()
    client.close()
    assert no_verdict(client) == "CLIENT_CLOSED"


def test_a_message_over_the_limit_is_not_sent(client, service, answers):
    service.on("CheckAction", answers.check())
    assert no_verdict(client, **{**ASK, "context": {"x": "a" * 5_000_000}}) == "RESOURCE_EXHAUSTED"
    assert service.requests["CheckAction"] == []


def test_a_reply_over_the_limit_is_not_read(client, service, answers):
    service.on("CheckAction", answers.check(reasons=[pb.Reason(message="a" * 5_000_000)]))
    assert no_verdict(client) == "RESOURCE_EXHAUSTED"


# ---------------------------------------------------------------- several actions


def test_candidates_come_back_in_order_with_the_allowed_ones(client, service, answers):
    verdicts = [answers.verdict(harm_bound=0.1), answers.verdict(decision=2, harm_bound=0.5), answers.verdict()]
    service.on("CheckActions", pb.CheckActionsResponse(verdicts=verdicts, allowed=[2, 0]))
    checked = client.check_many(**MANY)
    assert [verdict.harm_bound for verdict in checked.verdicts] == [0.1, 0.5, 0.05]
    assert checked.allowed == (2, 0)
    assert [dict(action) for action in service.requests["CheckActions"][0].actions] == MANY["actions"]


def test_a_candidate_is_allowed_only_if_its_own_verdict_accepts(client, service, answers):
    verdicts = [answers.verdict(decision=2), answers.verdict(harm_bound=math.nan), answers.verdict()]
    service.on("CheckActions", pb.CheckActionsResponse(verdicts=verdicts, allowed=[0, 1, 2, 2]))
    assert client.check_many(**MANY).allowed == (2,)


@pytest.mark.parametrize(("count", "allowed"), [(2, []), (4, []), (0, []), (3, [3])])
def test_verdicts_that_do_not_fit_the_candidates_are_malformed(client, service, answers, count, allowed):
    reply = pb.CheckActionsResponse(verdicts=[answers.verdict()] * count, allowed=allowed)
    service.on("CheckActions", reply)
    assert no_verdict(client, "check_many", **MANY) == "MALFORMED_REPLY"


def test_a_bad_candidate_is_named(client):
    with pytest.raises(NoVerdict, match=r"actions\[1\]\.x: object"):
        client.check_many(policy="p", world="w", context={}, actions=[{}, {"x": object()}])


def test_an_overloaded_service_says_when_to_come_back_and_is_not_asked_again(client, service, answers):
    service.on("CheckAction", answers.fail(Code.RESOURCE_EXHAUSTED, "full", "OVERLOADED", retry_after=0.25))
    with pytest.raises(NoVerdict) as caught:
        client.check(**ASK)
    assert (caught.value.reason, caught.value.retry_after) == ("OVERLOADED", 0.25)
    assert len(service.requests["CheckAction"]) == 1


def test_a_service_that_does_not_say_when_to_come_back_leaves_it_open(client, service, answers):
    service.on("CheckAction", answers.fail(Code.FAILED_PRECONDITION, "no", "WORLD_UNAVAILABLE"))
    with pytest.raises(NoVerdict) as caught:
        client.check(**ASK)
    assert caught.value.retry_after is None
