"""Escalated actions, and approvals that let exactly one check pass, over real gRPC."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from security_files import CallersFile, Clock

from guardrail import Decision, NoVerdict, PermissionDenied
from guardrail.approvals import EscalationState
from guardrail.errors import (
    ActionBlocked,
    DeadlinePassed,
    EscalationClosed,
    EscalationMismatch,
    EscalationNotFound,
    InvalidInput,
    StoreError,
)
from guardrail.replay import replay
from guardrail.server import app, approving
from guardrail.store import open_store
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.v1 import guardrail_pb2_grpc

GATE = """
schema: guardrail/v1
name: gate
description: What a person may let through.
context: {hour: {type: number, optional: true}}
action: {kind: string}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: mild, prior: 0.5, rates: {low: 0.01, high: 0.1, odd: 0.1}}
    - {name: wild, prior: 0.5, rates: {low: 0.02, high: 0.15, odd: 0.5}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.2, escalate_above: 0.06, escalation: {expires: 10m}}
rules:
  - when: has(context.hour) && context.hour > 22.0
    decide: reject
    reason: at night nobody
"""
LOW, HIGH, ODD = {"kind": "low"}, {"kind": "high"}, {"kind": "odd"}


@pytest.fixture
def clock(monkeypatch):
    """The service's clock for escalations."""
    clock = Clock(1e9)
    real = approving.Clock
    monkeypatch.setattr(approving, "Clock", lambda: real(clock))
    return clock


@pytest.fixture
def policy_folder(policy_folder):
    folder = policy_folder / "gate"
    folder.mkdir()
    (folder / "policy.yaml").write_text(GATE)
    return policy_folder


@pytest.fixture
def callers(tmp_path):
    callers = CallersFile(tmp_path / "callers.yaml")
    callers.add("agent", "agent").add("other", "agent").add("person", "approver").add("viewer", "viewer")
    callers.add("both", "agent, approver").add("reporter", "reporter")
    return callers.add("elsewhere", "{roles: [approver], policies: [gate], worlds: ['v*']}")


@pytest.fixture
def secured(start_service, callers):
    """A service that knows its callers; `secured(name)` is a client of one of them."""
    service = start_service(callers=callers.write())
    with contextlib.ExitStack() as stack:

        def client(name):
            return stack.enter_context(service.client(token=callers.keys[name]))

        client.service = service
        yield client


def check(client, action=HIGH, approval=None, *, world="w", context=None, policy="gate"):
    return client.check(policy=policy, world=world, context=context or {}, action=action, approval=approval)


def escalate(client, **options):
    verdict = check(client, **options)
    assert verdict.decision is Decision.ESCALATE
    return verdict.decision_id


def pending(client, **options):
    return {one.escalation_id: one for one in client.escalations(**options)}


def approve(client, escalation_id, *, yes=True, **options):
    digest = next(o.digest for o in client.escalations(state=None) if o.escalation_id == escalation_id)
    return client.resolve_escalation(escalation_id, **{"digest": digest, "approve": yes, **options})


def refused(verdict, code):
    assert verdict.decision is Decision.REJECT
    assert verdict.reasons[0].code == code
    assert verdict.approval is None
    return verdict


def with_store(monkeypatch, change):
    """The store of the next service is changed before it is used."""
    real = app.open_store

    def opened(*arguments, **options):
        store = real(*arguments, **options)
        change(store)
        return store

    monkeypatch.setattr(app, "open_store", opened)


def replayed(service):
    service.stop()
    with contextlib.closing(open_store(str(service.settings.store), read_only=True)) as store:
        return [one.differences for one in replay(store)]


# ---------------------------------------------------------------- the way of an approval


def test_an_approved_action_passes_once(clock, service, client):
    verdict = check(client)
    assert (verdict.decision, verdict.escalation_expires) == (Decision.ESCALATE, 1e9 + 600)
    refused(check(client, approval=verdict.decision_id), "APPROVAL_PENDING")
    clock.now += 60
    done = approve(client, verdict.decision_id, note="seen")
    assert (done.state, done.note, done.resolved_at.timestamp()) == (EscalationState.APPROVED, "seen", 1e9 + 60)
    accepted = check(client, approval=verdict.decision_id)
    assert accepted.decision is Decision.ACCEPT
    assert [reason.code for reason in accepted.reasons] == ["APPROVED", "HARM_BOUND_ABOVE_ESCALATE"]
    assert (accepted.approval.escalation_id, accepted.approval.note) == (verdict.decision_id, "seen")
    assert accepted.approval.resolved_at == 1e9 + 60
    assert accepted.escalate_above < accepted.harm_bound <= accepted.threshold
    refused(check(client, approval=verdict.decision_id), "APPROVAL_USED")
    found = next(o for o in client.escalations(state="used"))
    assert (found.escalation_id, found.decision.action, found.digest) == (verdict.decision_id, HIGH, done.digest)
    assert found.decision.verdict == verdict
    for event in ("opened", "approved", "used"):
        assert service.metric("guardrail_escalations_total", policy="gate", event=event) == 1.0
    assert client.decision(accepted.decision_id).verdict == accepted
    assert replayed(service) == [(), (), (), ()]


def test_a_denied_action_stays_denied(client):
    one = escalate(client)
    assert approve(client, one, yes=False).state is EscalationState.DENIED
    refused(check(client, approval=one), "APPROVAL_DENIED")
    with pytest.raises(EscalationClosed):
        approve(client, one)
    refused(check(client, approval=one), "APPROVAL_DENIED")


def test_an_approval_of_what_is_accepted_by_now_is_used_up(client):
    """The bound of `high` falls once `wild` is ruled out; whoever named the approval gets it in the verdict."""
    one = escalate(client, action=HIGH)
    approve(client, one)
    # accept: the same action under a bound that needs no person
    for number in range(60):
        client.report(policy="gate", world="w", context={}, action=ODD, outcome=False, observation_id=str(number))
    verdict = check(client, approval=one)
    assert verdict.decision is Decision.ACCEPT
    assert verdict.approval.escalation_id == one
    refused(check(client, approval=one), "APPROVAL_USED")


def test_what_the_bound_rejects_by_now_stays_rejected_and_uses_nothing_up(service, client):
    for number in range(30):
        client.report(policy="gate", world="w", context={}, action=ODD, outcome=False, observation_id=f"a{number}")
    one = escalate(client, action=ODD)
    approve(client, one)
    for number in range(20):
        client.report(policy="gate", world="w", context={}, action=ODD, outcome=True, observation_id=f"b{number}")
    verdict = check(client, ODD, one)
    assert verdict.decision is Decision.REJECT
    assert [reason.code for reason in verdict.reasons] == ["HARM_BOUND_ABOVE_REJECT"]
    assert pending(client, state="approved").keys() == {one}
    assert replayed(service) == [(), ()]


def test_candidates_that_escalate_are_each_kept(client):
    answer = client.check_many(policy="gate", world="w", context={}, actions=[HIGH, LOW, ODD, HIGH])
    assert [v.decision.value for v in answer.verdicts] == ["escalate", "accept", "reject", "escalate"]
    kept = pending(client)
    assert set(kept) == {answer.verdicts[0].decision_id, answer.verdicts[3].decision_id}
    approve(client, answer.verdicts[3].decision_id)
    assert check(client, approval=answer.verdicts[3].decision_id).accepted


def test_nothing_is_kept_in_shadow_mode(client, policy_folder):
    path = policy_folder / "gate" / "policy.yaml"
    path.write_text(path.read_text() + "mode: shadow\n")
    client.reload_policies()
    verdict = check(client)
    assert (verdict.decision, verdict.found) == (Decision.ACCEPT, Decision.ESCALATE)
    assert verdict.escalation_expires is None
    assert pending(client, state=None) == {}
    unknown = check(client, approval="made-up")
    assert (unknown.decision, unknown.found) == (Decision.ACCEPT, Decision.REJECT)
    assert unknown.reasons[0].code == "APPROVAL_UNKNOWN"


# ---------------------------------------------------------------- what an approval does not let through


def test_an_approval_holds_for_exactly_what_was_approved(client, policy_folder):
    one = escalate(client, context={"hour": 8.0})
    approve(client, one)
    refused(check(client, LOW, one, context={"hour": 8.0}), "APPROVAL_MISMATCH")
    refused(check(client, HIGH, one, context={"hour": 9.0}), "APPROVAL_MISMATCH")
    refused(check(client, HIGH, one), "APPROVAL_MISMATCH")
    refused(check(client, HIGH, one, context={"hour": 8.0}, world="v"), "APPROVAL_MISMATCH")
    refused(check(client, HIGH, "0" * 32, context={"hour": 8.0}), "APPROVAL_UNKNOWN")
    refused(check(client, HIGH, one, context={"hour": 23.0}), "RULE_MATCHED")
    refused(check(client, HIGH, one, context={"hour": math.nan}), "NOT_FINITE")
    refused(check(client, {"kind": "nothing"}, one, context={"hour": 8.0}), "UNKNOWN_CATEGORY")
    path = policy_folder / "gate" / "policy.yaml"
    path.write_text(GATE.replace("delta: 0.05", "delta: 0.04"))
    client.reload_policies()
    refused(check(client, HIGH, one, context={"hour": 8.0}), "APPROVAL_MISMATCH")
    path.write_text(GATE)
    client.reload_policies()
    assert check(client, HIGH, one, context={"hour": 8.0}).accepted


def test_an_approval_expires_and_a_clock_set_back_does_not_revive_it(clock, client):
    first, second = escalate(client), escalate(client)
    approve(client, first)
    clock.now += 600
    refused(check(client, approval=first), "APPROVAL_EXPIRED")
    with pytest.raises(EscalationClosed):
        approve(client, second)
    clock.now -= 300
    refused(check(client, approval=first), "APPROVAL_EXPIRED")
    with pytest.raises(EscalationClosed):
        approve(client, second)
    assert pending(client) == {}
    assert pending(client, state="expired").keys() == {first, second}


def test_an_approval_that_expires_while_it_is_used_lets_nothing_pass(clock, start_service, monkeypatch):
    def wait(store):
        use = store.use_escalation

        def slow(*arguments):
            outcome = use(*arguments)
            clock.now += 600
            return outcome

        monkeypatch.setattr(store, "use_escalation", slow)

    with_store(monkeypatch, wait)
    with start_service().client() as client:
        one = escalate(client)
        approve(client, one)
        assert "used up" in refused(check(client, approval=one), "APPROVAL_EXPIRED").reasons[0].message
        refused(check(client, approval=one), "APPROVAL_USED")


def test_only_the_caller_who_asked_may_use_it(secured):
    agent, person = secured("agent"), secured("person")
    one = escalate(agent)
    assert approve(person, one).approver == "person"
    refused(check(secured("other"), approval=one), "APPROVAL_MISMATCH")
    verdict = check(agent, approval=one)
    assert (verdict.decision, verdict.approval.approver) == (Decision.ACCEPT, "person")


# ---------------------------------------------------------------- who may resolve


def test_who_may_resolve(secured):
    agent, person, both = secured("agent"), secured("person"), secured("both")
    one, own = escalate(agent), escalate(both)
    digest = pending(person)[one].digest
    for name in ("agent", "viewer"):
        with pytest.raises(PermissionDenied):
            secured(name).resolve_escalation(one, digest=digest, approve=True)
    with pytest.raises(EscalationNotFound):
        secured("elsewhere").resolve_escalation(one, digest=digest, approve=True)
    for yes in (True, False):
        with pytest.raises(PermissionDenied) as caught:
            approve(both, own, yes=yes)
        assert caught.value.reason == "SELF_APPROVAL"
    with pytest.raises(EscalationMismatch):
        person.resolve_escalation(one, digest="f" * 64, approve=True)
    with pytest.raises(EscalationNotFound):
        person.resolve_escalation("0" * 32, digest=digest, approve=True)
    with pytest.raises(InvalidInput):
        person.resolve_escalation(one, digest="short", approve=True)
    with pytest.raises(InvalidInput):
        person.resolve_escalation(one, digest=digest, approve=True, note="x" * 501)
    refused(check(agent, approval=one), "APPROVAL_PENDING")
    assert approve(both, one).approver == "both"
    assert approve(person, own).approver == "person"


def test_all_who_share_an_entry_count_as_one(service):
    one = approving.Escalation("e", "p", "r", "w", "agents/alice", "d", 0.0, 1.0)
    for name in ("agents", "agents/alice", "agents/bob"):
        with pytest.raises(PermissionDenied):
            approving.require_another(one, approving.Caller(name, ()))
    approving.require_another(one, approving.Caller("agents-2/alice", ()))
    approving.require_another(one, approving.ANYONE)


def test_what_nobody_can_look_at_nobody_approves(start_service, monkeypatch):
    """An escalation was kept, and its caller was gone before the decision was logged."""
    with start_service().client() as client:

        def gone(expires, what):
            if what == "the verdict was kept":
                raise DeadlinePassed("too late")

        with monkeypatch.context() as patch:
            patch.setattr("guardrail.server.service._require_in_time", gone)
            with pytest.raises(NoVerdict):
                check(client)
        (found,) = client.escalations()
        assert found.decision is None
        with pytest.raises(EscalationNotFound, match="decision"):
            client.resolve_escalation(found.escalation_id, digest=found.digest, approve=True)
        refused(check(client, approval=found.escalation_id), "APPROVAL_PENDING")
        denied = client.resolve_escalation(found.escalation_id, digest=found.digest, approve=False)
        assert denied.state is EscalationState.DENIED


def test_the_same_word_again_is_answered_as_before(service, client):
    one = escalate(client)
    first = approve(client, one, note="yes")
    assert approve(client, one, note="yes") == first
    with pytest.raises(EscalationClosed):
        approve(client, one, note="no")
    with pytest.raises(EscalationClosed):
        approve(client, one, yes=False, note="yes")
    check(client, approval=one)
    assert approve(client, one, note="yes").state is EscalationState.USED
    assert service.metric("guardrail_escalations_total", policy="gate", event="approved") == 1.0


def test_escalations_are_seen_by_whoever_may(secured):
    agent = secured("agent")
    one, two = escalate(agent), escalate(agent, world="v1")
    assert pending(secured("person")).keys() == pending(secured("viewer")).keys() == {one, two}
    found = pending(secured("elsewhere"))
    assert found.keys() == {two}
    assert (found[two].caller, found[two].decision.caller, found[two].world) == ("agent", "agent", "v1")
    assert pending(secured("person"), world="w").keys() == {one}
    assert pending(secured("person"), policy="coin") == {}
    with pytest.raises(PermissionDenied):
        pending(agent)


# ---------------------------------------------------------------- many, and at once


def test_a_thousand_wait_and_each_is_listed_once(service, client, monkeypatch):
    for _ in range(4):
        client.check_many(policy="gate", world="w", context={}, actions=[HIGH] * 250)
    found = [one.escalation_id for one in client.escalations()]
    assert len(found) == len(set(found)) == 1_000
    opened = [one.opened_at for one in client.escalations()]
    assert opened == sorted(opened, reverse=True)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = guardrail_pb2_grpc.GuardrailServiceStub(channel)
        first = stub.ListEscalations(pb.ListEscalationsRequest(page_size=1_000), timeout=20)
        assert first.ByteSize() < 1.2 * 2**20
        rest = stub.ListEscalations(
            pb.ListEscalationsRequest(page_size=1_000, page_token=first.next_page_token), timeout=20
        )
        assert [one.escalation_id for one in (*first.escalations, *rest.escalations)][: len(found)] == found
        for token in ("made up", "0x1p0", "nan\nx", "inf\nx"):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListEscalations(pb.ListEscalationsRequest(page_token=token), timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_whoever_may_see_few_of_many_gets_all_of_them(secured, monkeypatch):
    monkeypatch.setattr(approving, "SCANNED", 100)
    agent = secured("agent")
    two = escalate(agent, world="v1")
    for _ in range(2):
        agent.check_many(policy="gate", world="w", context={}, actions=[HIGH] * 250)
    assert pending(secured("elsewhere")).keys() == {two}


def test_of_checks_that_use_an_approval_at_once_one_passes(client):
    for _ in range(3):
        one = escalate(client)
        approve(client, one)
        with ThreadPoolExecutor(8) as pool:
            verdicts = list(pool.map(lambda _, one=one: check(client, approval=one), range(8)))
        assert sorted(verdict.decision.value for verdict in verdicts) == ["accept"] + ["reject"] * 7
        assert {v.reasons[0].code for v in verdicts if not v.accepted} == {"APPROVAL_USED"}


def test_of_replicas_that_use_an_approval_at_once_one_passes(start_service, postgres_url):
    services = [start_service(store=postgres_url) for _ in range(2)]
    with services[0].client() as left, services[1].client() as right:
        for _ in range(4):
            one = escalate(left)
            end = time.monotonic() + 30
            while pending(right)[one].decision is None:  # the other one writes it soon
                assert time.monotonic() < end
            approve(right, one)
            start = threading.Barrier(2)

            def ask(client, one=one, start=start):
                start.wait()
                return check(client, approval=one)

            with ThreadPoolExecutor(2) as pool:
                verdicts = list(pool.map(ask, (left, right)))
            assert sorted(verdict.decision.value for verdict in verdicts) == ["accept", "reject"]


def test_an_escalation_outlives_the_service(start_service):
    first = start_service()
    with first.client() as client:
        one = escalate(client)
        approve(client, one)
    first.stop()
    with start_service().client() as client:
        assert check(client, approval=one).accepted
        refused(check(client, approval=one), "APPROVAL_USED")


# ---------------------------------------------------------------- a store that fails


def broken(monkeypatch, method, *, after=False):
    """One method of the next store fails, before or after it has done its work."""

    def break_it(store):
        work = getattr(store, method)

        def fail(*arguments, **options):
            if after:
                work(*arguments, **options)
            raise StoreError("no space left")

        monkeypatch.setattr(store, method, fail)

    with_store(monkeypatch, break_it)


def test_an_escalation_that_cannot_be_kept_is_no_verdict(start_service, monkeypatch):
    broken(monkeypatch, "open_escalations")
    service = start_service()
    with service.client() as client:
        with pytest.raises(NoVerdict) as caught:
            check(client)
        assert caught.value.reason == "STORE_UNAVAILABLE"
        assert check(client, LOW).accepted
    assert service.metric("guardrail_escalations_total", policy="gate", event="opened") == 0.0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_approval_that_may_have_been_used_is_no_verdict(start_service, monkeypatch, after):
    broken(monkeypatch, "use_escalation", after=after)
    service = start_service()
    with service.client() as client:
        one = escalate(client)
        approve(client, one)
        with pytest.raises(NoVerdict) as caught:
            check(client, approval=one)
        assert caught.value.reason == "STORE_UNAVAILABLE"
        assert pending(client, state="used" if after else "approved").keys() == {one}


# ---------------------------------------------------------------- waiting for a person


def test_a_guarded_function_waits_for_a_person(service, client, monkeypatch):
    monkeypatch.setattr("guardrail.client._escalations.APPROVAL_POLL_SECONDS", 0.02)
    ran = []

    @client.guarded("gate", "w", approval_wait=60)
    def act(kind):
        ran.append(kind)
        return kind

    def answer(yes):
        with service.client() as person:
            waiting = {}
            while not waiting:
                waiting = pending(person)
            approve(person, next(iter(waiting)), yes=yes)

    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(answer, True)
        assert act("high") == "high"
        answered.result(60)
        answered = pool.submit(answer, False)
        with pytest.raises(ActionBlocked) as caught:
            act("high")
        answered.result(60)
    assert caught.value.verdict.reasons[0].code == "APPROVAL_DENIED"
    assert ran == ["high"]


def test_a_guarded_function_does_not_wait_for_ever(client):
    ran = []
    for patience in (None, 0, 0.05):
        with pytest.raises(ActionBlocked) as caught:
            client.guarded("gate", "w", approval_wait=patience)(lambda kind: ran.append(kind))("high")
        assert caught.value.reason == "ACTION_ESCALATE"
    with pytest.raises(ActionBlocked) as caught:
        client.guarded("gate", "w", approval_wait=60)(lambda kind: ran.append(kind))("odd")
    assert caught.value.reason == "ACTION_REJECT"
    for patience in (-1, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match="approval_wait"):
            client.guarded("gate", "w", approval_wait=patience)
    assert ran == []
