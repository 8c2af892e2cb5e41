"""Awaited outcomes in the clients."""

import pytest

from guardrail.client.results import AwaitedOutcomes
from guardrail.v1 import guardrail_pb2 as pb


def test_what_was_not_taken_is_said(client, service):
    service.on("ReportNotTaken", pb.ReportNotTakenResponse(released=2))
    assert client.report_not_taken("p", "w", ["a", "b"]) == 2
    (request,) = service.requests["ReportNotTaken"]
    assert (request.policy, request.world, list(request.decision_ids)) == ("p", "w", ["a", "b"])
    with pytest.raises(TypeError, match="not one id"):
        client.report_not_taken("p", "w", "ab")


def test_a_world_says_what_it_owes(client, service):
    world = pb.World(policy="p", world="w")
    service.on("GetWorld", pb.GetWorldResponse(world=world))
    assert client.world("p", "w").awaited is None
    world.awaited.CopyFrom(
        pb.AwaitedOutcomes(
            within_seconds=90.0,
            overdue_action="escalate",
            awaited=1,
            overdue=2,
            overdue_decisions=["a", "b"],
            assumed_harms=3,
        )
    )
    world.awaited.oldest_due.FromSeconds(1_000_000_000)
    service.on("GetWorld", pb.GetWorldResponse(world=world))
    found = client.world("p", "w").awaited
    assert found == AwaitedOutcomes(90.0, "escalate", 1, 2, found.oldest_due, ("a", "b"), 3)
    assert found.oldest_due.timestamp() == 1_000_000_000
