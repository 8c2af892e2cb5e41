"""Approvals in worlds with memory: an outcome that comes in while one is used leaves no accept."""

from __future__ import annotations

import asyncio

import pytest
from replica_policies import WEAR
from shared_log import SharedLog, observation

from guardrail.approvals import resolved
from guardrail.domain import Decision
from guardrail.guard import Judge
from guardrail.policy import parse_policy


@pytest.fixture(scope="module")
def careful():
    text = WEAR.replace("reject_above: 0.15", "reject_above: 0.9, escalate_above: 0.0")
    return Judge(parse_policy(text))


@pytest.mark.parametrize("follow", [False, True], ids=["not-heard", "heard"])
@pytest.mark.parametrize("reported", [False, True], ids=["quiet", "reported"])
def test_an_approval_is_no_accept_of_an_older_posterior(careful, replicas, follow, reported):
    async def story():
        log = SharedLog()
        async with replicas(log, careful, follow=follow) as (replica,):
            first = await replica.check("wear")
            assert first.decision is Decision.ESCALATE
            one = log.escalated[first.decision_id]
            said = {"approve": True, "approver": "", "note": "", "now": one.opened_at}
            log.escalated[first.decision_id] = resolved(one, one.digest, **said)

            def report(method):
                if reported and method == "use_escalation":
                    log.write([observation(1, True, policy="wear", action={})])

            log.after = report
            verdict = await replica.check("wear", approval=first.decision_id)
            if not reported:
                assert verdict.decision is Decision.ACCEPT
                return
            assert verdict.decision is Decision.REJECT
            assert [reason.code for reason in verdict.reasons] == ["STALE_POSTERIOR"]
            assert "used up" in verdict.reasons[0].message
            assert verdict.approval is None
            assert log.escalated[first.decision_id].used_by == verdict.decision_id
            log.after = lambda method: None
            again = await replica.check("wear", approval=first.decision_id)
            assert again.reasons[0].code == "APPROVAL_USED"

    asyncio.run(asyncio.wait_for(story(), 60))
