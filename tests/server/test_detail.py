"""What GetWorld tells of hypotheses and parameters, over real gRPC."""

from __future__ import annotations

import math

import pytest

from guardrail import Guard, WorldNotFound, wire_posterior
from guardrail.domain import PosteriorDetail
from guardrail.v1 import guardrail_pb2 as pb

RATES = """
schema: guardrail/v1
name: rates
description: Two unknown rates.
action: {kind: string}
hypotheses:
  family: beta-bernoulli
  category: action.kind
  categories: [low, high]
  prior: {a: 1.0, b: 2.0}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
"""


@pytest.fixture
def policy_folder(policy_folder):
    folder = policy_folder / "rates"
    folder.mkdir()
    (folder / "policy.yaml").write_text(RATES)
    return policy_folder


def report(client, policy, outcomes):
    for outcome in outcomes:
        client.report(policy=policy, world="w", context={}, action={"kind": "high"}, outcome=outcome)


@pytest.mark.parametrize("policy", ["coin", "rates"])
def test_a_world_tells_what_its_oracle_does(client, policy_folder, policy):
    outcomes = [True, False, True, True, False, True]
    report(client, policy, outcomes)
    guard = Guard.from_file(policy_folder / policy / "policy.yaml")
    for outcome in outcomes:
        guard.observe({}, {"kind": "high"}, outcome)
    expected = guard._judge.oracle.detail(guard._state, 1_000)
    assert len(expected.hypotheses or expected.parameters) == (3 if policy == "coin" else 2)
    for number in (0, 1, 2, 1_000):
        told = client.world(policy, "w", hypotheses=number).posterior.detail
        assert told == PosteriorDetail(expected.hypotheses[:number], expected.parameters[:number])
    assert client.world(policy, "w").posterior.detail == PosteriorDetail()
    state = client.world("coin", "w", hypotheses=3).posterior if policy == "coin" else None
    if state is not None:
        assert sum(one.plausible for one in state.detail.hypotheses) == state.plausible < 3
    with pytest.raises(WorldNotFound):
        client.world(policy, "never", hypotheses=3)
    for number in (-1, 1_001):
        with pytest.raises(ValueError, match="from 0 to 1000"):
            client.world(policy, "w", hypotheses=number)


def test_a_message_has_an_end(monkeypatch, client):
    report(client, "coin", [True])
    monkeypatch.setattr(wire_posterior, "DETAIL_BYTES", 1)
    every = client.world("coin", "w", hypotheses=3).posterior.detail.hypotheses
    monkeypatch.setattr(wire_posterior, "DETAIL_BYTES", 1)
    assert client.world("coin", "w", hypotheses=3).posterior.detail.hypotheses == every[:1]


def test_what_is_no_number_is_not_known():
    world = pb.World()
    world.parameters.add(name="a", plausible_low=math.nan, plausible_high=math.inf)
    world.hypotheses.add(name="h", plausible=True)
    detail = wire_posterior.detail_of(world)
    assert (detail.parameters[0].plausible_low, detail.parameters[0].plausible_high) == (None, math.inf)
    assert detail.hypotheses[0].plausible is None  # the world counts none: there is no such set
    world.plausible = 1
    assert wire_posterior.detail_of(world).hypotheses[0].plausible is True
