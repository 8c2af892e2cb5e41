"""Sessions in the clients: they are sent with the question, and read as doubtfully as everything else."""

import pytest

from guardrail.domain import GuaranteeKind
from guardrail.errors import ServiceError
from guardrail.v1 import guardrail_pb2 as pb

SESSION = pb.Session(
    policy="p",
    world="w",
    budget=pb.HarmBudget(per="session", session="s", total=0.5, spent=0.25),
    accepts=2,
    changed=True,
    guarantee=pb.Guarantee(kind=pb.GUARANTEE_KIND_THEOREM, confidence=float("nan")),
)


def test_a_session_that_promises_no_probability_promises_nothing(client, service):
    service.on("GetSession", pb.GetSessionResponse(session=SESSION))
    state = client.session("p", "w", "s")
    assert (state.budget.total, state.budget.spent, state.accepts, state.changed) == (0.5, 0.25, 2, True)
    assert (state.guarantee.kind, state.started_at) == (GuaranteeKind.NONE, None)
    (request,) = service.requests["GetSession"]
    assert (request.policy, request.world, request.session) == ("p", "w", "s")


@pytest.mark.parametrize("reply", [pb.GetSessionResponse(), pb.GetSessionResponse(session=pb.Session(policy="p"))])
def test_a_reply_without_its_parts_is_malformed(client, service, reply):
    service.on("GetSession", reply)
    with pytest.raises(ServiceError) as caught:
        client.session("p", "w", "s")
    assert caught.value.reason == "MALFORMED_REPLY"


def test_a_check_of_a_session_says_which(client, service):
    service.on("CheckAction", pb.CheckActionResponse())
    service.on("CheckActions", pb.CheckActionsResponse())
    for ask, what in (("check", {"action": {}}), ("check_many", {"actions": [{}]})):
        with pytest.raises(Exception, match="malformed"):
            getattr(client, ask)(policy="p", world="w", context={}, session="s", **what)
    assert service.requests["CheckAction"][0].session == service.requests["CheckActions"][0].session == "s"
