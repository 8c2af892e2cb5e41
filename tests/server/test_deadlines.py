"""A class that is too large for the caller's deadline: the best sound bound so far, marked as such."""

import math
import time

import pytest

from guardrail.domain import Decision
from guardrail.guard import Guard, Judge
from guardrail.oracles import blocks, enumerated
from guardrail.policy import parse_policy
from guardrail.server import servicer

LATTICE = """
schema: guardrail/v1
name: lattice
description: A class of 4,096 hypotheses in 64 blocks.
action: {phi: {type: list, length: 6}}
features: {phi: action.phi}
hypotheses: {family: linear-gaussian-lattice, levels: 4, noise_sd: 1}
outcome: {name: reward, type: number}
harm: outcome.reward > 30.0
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2}
"""
ACTION = {"phi": [1.0, 0.5, 0.2, 0.7, 0.1, 0.9]}


class OneLook:
    """A clock by which every deadline has passed after the first look."""

    def __init__(self):
        self.looks = 0

    def monotonic(self):
        self.looks += 1
        return 0.0 if self.looks == 1 else math.inf


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)


def test_the_time_that_a_caller_gives_reaches_the_search(start_service, policy_folder, monkeypatch):
    (policy_folder / "coin" / "policy.yaml").write_text(LATTICE)
    given = []
    real = Judge.bounds

    def bounds(judge, state, prepared, deadline=None):
        given.append(None if deadline is None else deadline - time.monotonic())
        return real(judge, state, prepared, deadline)

    monkeypatch.setattr(Judge, "bounds", bounds)
    service = start_service()
    given.clear()
    with service.client() as client:
        verdict = client.check(policy="lattice", world="w", context={}, action=ACTION, timeout=15.0)
        client.check_many(policy="lattice", world="w", context={}, actions=[ACTION, ACTION], timeout=10.0)
    assert verdict.search.truncated is False
    assert verdict.search.scanned > 0.0
    single, several = given
    # On the wire a timeout is rounded up, by at most one in a hundred.
    share = 1.01 * (1.0 - servicer.SHARE_FOR_THE_REPLY)
    assert 0 < single <= 15.0 * share
    assert 0 < several <= 10.0 * share


def test_a_truncated_verdict_is_sound_and_says_so(monkeypatch):
    guard = Guard(parse_policy(LATTICE))
    random = [(0.1 * (i % 7), 0.3 * (i % 5), 0.2 * (i % 3), 0.5, 0.05 * i, 0.4) for i in range(40)]
    for features in random:
        guard.observe({}, {"phi": list(features)}, 3.0 * features[0] + features[1] + 2.0 * features[4])
    whole = guard.check({}, ACTION)
    assert whole.search.truncated is False
    monkeypatch.setattr(enumerated, "time", OneLook())
    cut = guard.check({}, ACTION, timeout=1.0)
    assert cut.search.truncated
    assert cut.search.scanned == 1 / 64
    assert cut.harm_bound >= whole.harm_bound
    assert cut.decision is Decision.REJECT or cut.harm_bound <= cut.threshold
