"""Programs behind the service: what they do wrong is theirs alone."""

from __future__ import annotations

import concurrent.futures
import shutil

import program_policies
import pytest

import guardrail
from guardrail.domain import Decision, GuaranteeKind, ReasonCode

COIN = {"policy": "coin", "world": "w", "context": {}, "action": {"kind": "low"}}


def check(client, x):
    return client.check(policy="p", world="w", context={"x": x}, action={})


@pytest.mark.slow
def test_a_program_that_hangs_disturbs_no_other_world_and_its_reports_are_kept(start_service, policy_folder):
    program_policies.write(policy_folder / "p", ("seconds: 2,", "seconds: 4,"), model=program_policies.TROUBLE)
    service = start_service()
    with service.client(timeout=60) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert check(client, 1.0).guarantee.kind is GuaranteeKind.THEOREM
        for n in range(5):
            client.report(
                policy="p", world="w", context={"x": 1.0}, action={}, outcome={"y": 0.2}, observation_id=f"{n}"
            )
        before = check(client, 1.0)
        assert before.posterior_revision == 5
        hung = pool.submit(check, client, 600.0)
        answers = 0
        while not hung.done():
            assert client.check(**COIN).harm_bound <= 1.0
            answers += 1
        assert answers > 10
        verdict = hung.result()
        assert verdict.decision is Decision.REJECT
        assert verdict.harm_bound == 1.0
        assert [reason.code for reason in verdict.reasons] == [ReasonCode.MODEL_FAILED]
        assert verdict.reasons[0].message == "model.py:model did not answer within 4 s; it was stopped"
        # Another process takes over: nothing that was reported is lost.
        after = check(client, 1.0)
        assert (after.harm_bound, after.posterior_revision) == (before.harm_bound, 5)
        # A reload notices that the program is another one, and the old one is gone.
        (policy_folder / "p" / "model.py").write_text(program_policies.MODEL)
        assert client.reload_policies().changed == ("p",)
        reloaded = check(client, 1.0)
        assert reloaded.policy_revision != before.policy_revision
        assert reloaded.posterior_revision == 5
        # A program that does not load stops the reload, and what was loaded stays.
        (policy_folder / "p" / "model.py").write_text("raise RuntimeError('no')\n")
        with pytest.raises(guardrail.GuardrailError, match=r"raises RuntimeError at model\.py:1: no"):
            client.reload_policies()
        assert check(client, 1.0).harm_bound == reloaded.harm_bound
        shutil.rmtree(policy_folder / "p")
        assert client.reload_policies().changed == ("p",)


def test_a_policy_sent_over_the_wire_cannot_name_a_program(client):
    problems = client.validate_policy(program_policies.POLICY)
    assert any("a program is code" in problem.message for problem in problems.problems)
