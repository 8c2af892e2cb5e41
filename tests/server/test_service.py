"""The service through its public client."""

from __future__ import annotations

import asyncio
import random
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import guardrail
from guardrail import Decision, GuaranteeKind, Guard, InvalidInput, NoVerdict, Report
from guardrail.domain import ReasonCode
from guardrail.errors import DecisionNotFound, PolicyNotFound, ReportConflict, ServiceError, WorldNotFound

LOW, HIGH = {"kind": "low"}, {"kind": "high"}


def check(client, action=LOW, world="w"):
    return client.check(policy="coin", world=world, context={}, action=action)


def report(client, action, hurt, name=None, world="w"):
    return client.report(
        policy="coin", world=world, context={}, action=action, outcome={"hurt": hurt}, observation_id=name
    )


def test_a_verdict_carries_its_bound_and_its_promise(client):
    verdict = check(client)
    assert verdict.decision is Decision.REJECT
    assert verdict.harm_bound == 0.3
    assert verdict.cautious_hypothesis.name == "wild"
    assert verdict.predictive_harm == pytest.approx(0.5 * 0.05 + 0.3 * 0.01 + 0.2 * 0.3)
    assert verdict.guarantee.kind is GuaranteeKind.THEOREM
    assert verdict.guarantee.confidence == 0.95
    assert verdict.guarantee.assumptions
    assert verdict.posterior_revision == 0
    assert [r.code for r in verdict.reasons] == [ReasonCode.HARM_BOUND_ABOVE_REJECT]


def test_reports_move_the_posterior_until_the_action_is_accepted(client):
    decisions = []
    for _ in range(60):
        decisions.append(check(client).decision)
        report(client, HIGH, False)
    assert decisions[0] is Decision.REJECT
    assert decisions[-1] is Decision.ACCEPT
    assert check(client).posterior_revision == 60
    view = client.world("coin", "w")
    assert view.posterior.revision == 60
    assert not view.posterior.refuted


def test_the_service_and_a_guard_in_process_agree_on_random_histories(client, policy_folder):
    original = Guard.from_file(policy_folder / "coin" / "policy.yaml")
    for seed in range(8):
        draw = random.Random(seed)
        guard, world = original.fork(), f"random-{seed}"
        for _ in range(25):
            action = {"kind": draw.choice(["low", "high", "unknown"]), "size": draw.choice([1.0, 11.0])}
            ours, theirs = guard.check({}, action), check(client, action, world)
            assert comparable(ours) == comparable(theirs)
            if action["kind"] != "unknown":
                hurt = draw.random() < 0.2
                guard.observe({}, action, {"hurt": hurt})
                report(client, action, hurt, world=world)


def comparable(verdict):
    return (
        verdict.decision,
        verdict.harm_bound,
        verdict.predictive_harm,
        verdict.cautious_hypothesis,
        verdict.guarantee,
        verdict.reasons,
        verdict.posterior_revision,
        verdict.policy_revision,
    )


def test_candidates_come_back_in_order_with_the_allowed_ones_safest_first(client):
    for _ in range(80):
        report(client, HIGH, False)
    answer = client.check_many(policy="coin", world="w", context={}, actions=[HIGH, LOW, {"kind": "none"}])
    assert [v.decision for v in answer.verdicts] == [Decision.ESCALATE, Decision.ACCEPT, Decision.REJECT]
    assert list(answer.allowed) == [1]


def test_a_report_counts_once_however_often_it_is_sent(client):
    first = report(client, HIGH, True, "a")
    again = report(client, HIGH, True, "a")
    assert (first.posterior_revision, first.duplicate) == (1, False)
    assert (again.posterior_revision, again.duplicate) == (1, True)
    assert check(client).posterior_revision == 1


def test_an_id_with_other_content_conflicts_and_changes_nothing(client):
    report(client, HIGH, True, "a")
    with pytest.raises(ReportConflict):
        report(client, HIGH, False, "a")
    assert check(client).posterior_revision == 1


def test_a_conflict_in_a_batch_is_named_and_the_others_count(client):
    report(client, HIGH, True, "b")
    batch = [Report({}, LOW, False, "a"), Report({}, HIGH, False, "b"), Report({}, LOW, False, "c")]
    with pytest.raises(ReportConflict, match="'b'"):
        client.report_many(policy="coin", world="w", reports=batch)
    assert check(client).posterior_revision == 3


def test_the_same_id_in_another_world_is_another_observation(client):
    report(client, HIGH, True, "a", world="w1")
    assert report(client, HIGH, True, "a", world="w2").duplicate is False


def test_concurrent_reports_of_one_id_count_once(service):
    with service.client() as client:
        threads = [threading.Thread(target=report, args=(client, HIGH, True, f"id-{i % 5}")) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert check(client).posterior_revision == 5


def test_a_decision_can_be_looked_up_as_soon_as_it_is_made(client):
    verdict = check(client)
    found = client.decision(verdict.decision_id)
    assert found.verdict == verdict
    assert found.action == LOW
    with pytest.raises(DecisionNotFound):
        client.decision("0" * 32)


def test_worlds_are_listed_in_pages(client):
    for number in range(5):
        report(client, HIGH, False, world=f"w{number}")
    assert [(w.world, w.observations) for w in client.worlds()] == [(f"w{n}", 1) for n in range(5)]


def test_checking_makes_no_world(client):
    check(client, world="never-reported")
    assert list(client.worlds()) == []
    with pytest.raises(WorldNotFound):
        client.world("coin", "never-reported")


def test_policies_are_shown_with_their_documents(client, policy_folder):
    (policy,) = client.policies()
    assert policy.name == "coin"
    assert client.policy("coin").document == (policy_folder / "coin" / "policy.yaml").read_text()
    with pytest.raises(PolicyNotFound):
        client.policy("no-such-policy")


def test_a_document_can_be_validated_without_being_loaded(client, policy_folder):
    text = (policy_folder / "coin" / "policy.yaml").read_text()
    assert not client.validate_policy(text).problems
    problems = client.validate_policy(text.replace("family: finite-table", "family: finite-tabel")).problems
    assert problems
    assert problems[0].line > 0
    assert "finite-table" in problems[0].message


def test_a_refuted_class_rejects_everything_until_the_policy_changes(client, policy_folder):
    for _ in range(40):
        report(client, HIGH, True)  # only 'wild' survives
    for _ in range(150):
        report(client, LOW, False)  # and 'wild' does not
    verdict = check(client)
    assert verdict.decision is Decision.REJECT
    assert [r.code for r in verdict.reasons] == [ReasonCode.CLASS_REFUTED]
    assert verdict.harm_bound == 1.0
    view = client.world("coin", "w")
    assert view.posterior.refuted
    assert view.guarantee.kind is GuaranteeKind.NONE
    path = policy_folder / "coin" / "policy.yaml"
    row = "    - {name: odd, prior: 0.1, rates: {low: 0.001, high: 0.999}}\n"
    path.write_text(
        path.read_text().replace("prior: 0.5", "prior: 0.4").replace("outcome: {name", row + "outcome: {name")
    )
    assert list(client.reload_policies().changed) == ["coin"]
    verdict = check(client)
    assert verdict.decision is Decision.ACCEPT
    assert verdict.posterior_revision == 190


def test_a_broken_reload_keeps_the_last_good_policy(client, policy_folder):
    path = policy_folder / "coin" / "policy.yaml"
    before = client.policy("coin").revision
    path.write_text(path.read_text().replace("delta: 0.05", "delta: 5"))
    with pytest.raises(ServiceError) as caught:
        client.reload_policies()
    assert caught.value.reason == "POLICY_INVALID"
    assert "policy.yaml:" in str(caught.value)
    assert client.policy("coin").revision == before
    assert check(client).harm_bound == 0.3


def test_reports_during_reloads_are_neither_lost_nor_doubled(service, policy_folder):
    path = policy_folder / "coin" / "policy.yaml"
    text = path.read_text()
    with service.client() as client:

        def reload():
            for delta in ("0.04", "0.03", "0.02"):
                path.write_text(text.replace("delta: 0.05", f"delta: {delta}"))
                client.reload_policies()

        reloader = threading.Thread(target=reload)
        reloader.start()
        sequences = [report(client, HIGH, False).posterior_revision for _ in range(120)]
        reloader.join()
        assert sequences == list(range(1, 121))
        assert check(client).posterior_revision == 120
        assert check(client).guarantee.confidence == pytest.approx(0.98)


def test_a_watcher_sees_decisions_as_they_are_made(client):
    watcher = client.watch(policy="coin", world="seen")
    check(client, world="unseen")
    verdict = check(client, world="seen")
    assert next(watcher).verdict == verdict


def test_a_pinned_policy_revision_must_be_the_loaded_one(client):
    revision = client.policy("coin").revision
    pinned = client.check(policy="coin", world="w", context={}, action=LOW, policy_revision=revision)
    assert pinned.policy_revision == revision
    with pytest.raises(NoVerdict) as caught:
        client.check(policy="coin", world="w", context={}, action=LOW, policy_revision="0" * 64)
    assert caught.value.reason == "POLICY_REVISION_MISMATCH"


def test_reports_that_do_not_fit_are_refused_and_not_logged(client):
    for action, outcome in (({"kind": "none"}, True), (LOW, "yes"), (LOW, 1.0), ({}, True), (LOW, {"harm": True})):
        with pytest.raises(InvalidInput):
            client.report(policy="coin", world="w", context={}, action=action, outcome=outcome)
    assert list(client.worlds()) == []


def reflected(channel):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    return [s.name for s in answer.list_services_response.service]


def test_health_answers_and_reflection_does_only_if_it_is_wanted(start_service):
    service = start_service(reflection=True)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        for name in ("", "guardrail.v1.GuardrailService"):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert "guardrail.v1.GuardrailService" in reflected(channel)
    service.stop()
    with grpc.insecure_channel(f"127.0.0.1:{start_service().port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            reflected(channel)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_restart_continues_where_it_stopped(start_service):
    first = start_service()
    with first.client() as client:
        for number in range(30):
            report(client, HIGH, number % 7 == 0)
        before = check(client)
    first.stop()
    with start_service().client() as client:
        after = check(client)
    assert comparable(after) == comparable(before)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_that_has_begun_misses_nothing(service, client, kind):
    def decide():
        return client.check(policy="coin", world="w", context={}, action={"kind": "low"}).decision_id

    async def watch():
        async with guardrail.AsyncClient(f"127.0.0.1:{service.port}") as other, other.watch() as stream:
            begun = await stream.begin()
            return begun, await asyncio.to_thread(decide), (await anext(stream)).verdict.decision_id

    if kind == "async":
        begun, decided, seen = asyncio.run(watch())
    else:
        with client.watch() as stream:
            begun, decided, seen = stream.begin(), decide(), next(stream).verdict.decision_id
    assert begun
    assert seen == decided


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_from_nowhere_does_not_begin(kind):
    nowhere = "127.0.0.1:1"

    async def watch():
        async with guardrail.AsyncClient(nowhere) as client, client.watch() as stream:
            begun = await stream.begin()
            with pytest.raises(guardrail.errors.ServiceError):
                await anext(stream)
            return begun

    if kind == "async":
        assert not asyncio.run(watch())
        return
    with guardrail.Client(nowhere) as client, client.watch() as stream:
        begun = stream.begin()
        with pytest.raises(guardrail.errors.ServiceError):
            next(stream)
        assert not begun
