"""Harm budgets of a real service: what is accepted is durably set aside first, whoever asks and whatever fails."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from budget_policies import HIGH, LOW, MID, SESSION, WINDOW, budgeted

from guardrail.domain import Decision, GuaranteeKind, ReasonCode
from guardrail.errors import InvalidInput, NoVerdict, PolicyNotFound, SessionNotFound, StoreCorrupt, StoreError
from guardrail.replay import replay
from guardrail.server import app, servicer
from guardrail.server.world import World
from guardrail.store import open_store

POLICIES = {
    "sessions": budgeted("sessions", SESSION),
    "windows": budgeted("windows", WINDOW),
    "watched": budgeted("watched", SESSION, "shadow"),
    "gate": budgeted("gate", SESSION, more="escalate_above: 0.2, "),
    "wear": """
schema: guardrail/v1
name: wear
description: A machine that wears out.
hypotheses:
  family: hidden-markov
  table:
    - {name: slow, initial: [1, 0], transitions: [[0.98, 0.02], [0, 1]], rates: [0.01, 0.5]}
    - {name: fast, initial: [1, 0], transitions: [[0.8, 0.2], [0, 1]], rates: [0.01, 0.5]}
outcome: {name: fault, type: bool}
harm: outcome.fault
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.15, budget: {per: window, window: 24h, total: 0.9}}
""",
}


@pytest.fixture
def policy_folder(policy_folder):
    for name, document in POLICIES.items():
        (policy_folder / name).mkdir()
        (policy_folder / name / "policy.yaml").write_text(document)
    return policy_folder


def check(client, action=MID, policy="sessions", session="s", world="w"):
    return client.check(policy=policy, world=world, context={}, action=action, session=session)


def code(verdict):
    """The first, most important reason."""
    return verdict.reasons[0].code


def break_reserve(monkeypatch, error):
    """Opens the next service's store so that `reserve` raises what `error` makes of its batch, if anything."""
    real = app.open_store

    def open_broken(*arguments, **options):
        store = real(*arguments, **options)
        reserve = store.reserve

        def fail(batch):
            raised = error(batch)
            if raised is not None:
                raise raised
            return reserve(batch)

        store.reserve = fail
        return store

    monkeypatch.setattr(app, "open_store", open_broken)


# ---------------------------------------------------------------- accepting and refusing


def test_accepts_add_up_to_the_total_and_no_further(service, client):
    verdicts = [check(client) for _ in range(3)]
    assert [v.decision for v in verdicts] == [Decision.ACCEPT, Decision.ACCEPT, Decision.REJECT]
    assert [(v.budget.spent, v.budget.total, v.budget.session) for v in verdicts] == [
        (0.25, 0.5, "s"),
        (0.5, 0.5, "s"),
        (0.5, 0.5, "s"),
    ]
    assert code(verdicts[2]) == ReasonCode.BUDGET_EXHAUSTED
    assert verdicts[2].harm_bound == verdicts[0].harm_bound == 0.25
    assert check(client, session="another").accepted
    assert check(client, world="v").accepted
    assert check(client, HIGH, session="third").budget is None
    assert service.metric("guardrail_budget_refusals_total", policy="sessions", reason="BUDGET_EXHAUSTED") == 1
    assert service.metric("guardrail_checks_total", policy="sessions", decision="reject") == 2


def test_a_check_without_a_session_is_rejected(service, client):
    verdict = check(client, session="")
    assert (verdict.decision, code(verdict), verdict.budget) == (Decision.REJECT, ReasonCode.SESSION_MISSING, None)
    assert code(check(client, HIGH, session="")) == ReasonCode.HARM_BOUND_ABOVE_REJECT
    assert service.metric("guardrail_budget_refusals_total", policy="sessions", reason="SESSION_MISSING") == 1


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 129, "é", "a\n"])
def test_what_is_no_name_of_a_session_gets_no_verdict(client, name):
    with pytest.raises(NoVerdict) as caught:
        check(client, session=name)
    assert caught.value.reason == "INVALID_REQUEST"
    with pytest.raises(InvalidInput):
        client.session("sessions", "w", name)


def test_a_window_counts_whatever_session_a_check_names(client):
    verdicts = [check(client, policy="windows", session=session) for session in ("", "a", "b")]
    assert [v.accepted for v in verdicts] == [True, True, False]
    assert client.session("windows", "w").budget == verdicts[1].budget


def test_a_policy_without_a_budget_takes_no_notice_of_a_session(client):
    verdict = client.check(policy="coin", world="w", context={}, action={"kind": "low"}, session="s")
    assert verdict.budget is None
    with pytest.raises(SessionNotFound):
        client.session("coin", "w", "s")


def test_the_safest_candidates_are_accepted_first(client):
    checked = client.check_many(
        policy="sessions", world="w", context={}, actions=[MID, LOW, MID, HIGH, LOW], session="s"
    )
    assert checked.allowed == (1, 4, 0)
    assert [v.accepted for v in checked.verdicts] == [True, True, False, False, True]
    assert [None if v.budget is None else v.budget.spent for v in checked.verdicts] == [0.5, 0.125, 0.5, None, 0.25]


def test_shadow_mode_reserves_what_it_would_accept_and_lets_everything_through(service, client):
    verdicts = [check(client, policy="watched") for _ in range(3)]
    assert all(v.accepted and v.shadow for v in verdicts)
    assert [v.found for v in verdicts] == [Decision.ACCEPT, Decision.ACCEPT, Decision.REJECT]
    assert code(verdicts[2]) == ReasonCode.BUDGET_EXHAUSTED
    assert "it would reject" in verdicts[2].notices[0].message
    assert client.session("watched", "w", "s").guarantee.kind is GuaranteeKind.NONE


# ---------------------------------------------------------------- what a session promises


def test_a_session_says_what_it_spent_and_what_that_promises(client):
    check(client)
    check(client, LOW)
    state = client.session("sessions", "w", "s")
    assert (state.budget.spent, state.budget.total, state.accepts, state.changed) == (0.375, 0.5, 2, False)
    assert state.guarantee.kind is GuaranteeKind.THEOREM
    assert state.guarantee.confidence == pytest.approx(0.45)
    assert state.started_at is not None
    with pytest.raises(SessionNotFound):
        client.session("sessions", "w", "other")
    with pytest.raises(PolicyNotFound):
        client.session("nobody", "w", "s")


def test_a_session_of_two_generations_promises_less(client):
    client.report(policy="sessions", world="w", context={}, action=LOW, outcome=False)
    check(client, LOW)
    client.reset_world("sessions", "w", generation=1, reason="test")
    check(client, LOW)
    assert client.session("sessions", "w", "s").guarantee.confidence == pytest.approx(0.4)


def test_what_shadow_mode_let_through_is_promised_nothing_of_once_the_policy_enforces(client, policy_folder):
    assert check(client, policy="watched").shadow
    assert check(client, HIGH, policy="watched").decision is Decision.ACCEPT
    path = policy_folder / "watched" / "policy.yaml"
    path.write_text(POLICIES["watched"].replace("mode: shadow", "mode: enforce"))
    client.reload_policies(timeout=60)
    assert not check(client, policy="watched").shadow
    assert client.session("watched", "w", "s").guarantee.kind is GuaranteeKind.NONE
    check(client, policy="watched", session="new")
    promised = client.session("watched", "w", "new").guarantee
    assert promised.kind is GuaranteeKind.THEOREM
    assert any("enforced" in assumption for assumption in promised.assumptions)


def test_a_window_with_a_lower_total_promises_no_more_than_what_it_holds(client, policy_folder):
    check(client, policy="windows", session="")
    check(client, policy="windows", session="")
    path = policy_folder / "windows" / "policy.yaml"
    path.write_text(POLICIES["windows"].replace("total: 0.5", "total: 0.125"))
    client.reload_policies(timeout=60)
    assert code(check(client, LOW, policy="windows", session="")) == ReasonCode.BUDGET_EXHAUSTED
    state = client.session("windows", "w", "")
    assert (state.budget.spent, state.budget.total) == (0.5, 0.125)
    assert state.guarantee.confidence == pytest.approx(0.45)


def test_a_changed_budget_ends_the_sessions_that_began_before(client, policy_folder):
    assert check(client).accepted
    path = policy_folder / "sessions" / "policy.yaml"
    for total in ("0.3", "0.9"):
        path.write_text(POLICIES["sessions"].replace("total: 0.5", f"total: {total}"))
        client.reload_policies(timeout=60)
        verdict = check(client)
        assert (code(verdict), verdict.budget.total) == (ReasonCode.BUDGET_CHANGED, 0.5)
        assert client.session("sessions", "w", "s").changed
        assert check(client, session=f"new-{total}").budget.total == float(total)
    path.write_text(POLICIES["sessions"])
    client.reload_policies(timeout=60)
    assert check(client).budget.spent == 0.5


# ---------------------------------------------------------------- durability and faults


def test_what_is_spent_is_spent_after_a_restart_and_the_log_replays(start_service, tmp_path):
    service = start_service()
    with service.client() as client:
        for action in (MID, HIGH, MID, MID):
            check(client, action)
        check(client, session="")
        check(client, policy="watched")
        before = client.session("sessions", "w", "s")
    service.stop()
    service = start_service()
    with service.client() as client:
        assert client.session("sessions", "w", "s") == before
        assert code(check(client)) == ReasonCode.BUDGET_EXHAUSTED
        logged = client.decision(check(client).decision_id).verdict
        assert logged.budget == before.budget
    service.stop()
    store = open_store(tmp_path / "guardrail.db", read_only=True)
    replayed = list(replay(store))
    store.close()
    assert len(replayed) == 8
    assert [r.differences for r in replayed] == [()] * 8


def test_a_log_that_hides_a_refusal_replays_with_a_difference(start_service, tmp_path):
    """Only what the log calls a reject for want of budget is taken at its word."""
    service = start_service()
    with service.client() as client:
        check(client, HIGH)
    service.stop()
    store = open_store(tmp_path / "guardrail.db", read_only=True)
    (record,) = store.decisions()
    store.close()
    forged = record.verdict.replace("HARM_BOUND_ABOVE_REJECT", "BUDGET_EXHAUSTED")

    class Forged:
        def __getattr__(self, name):
            return getattr(reopened, name)

        def decisions(self, *_):
            return iter([replace(record, verdict=forged)])

    reopened = open_store(tmp_path / "guardrail.db", read_only=True)
    (replayed,) = replay(Forged())
    reopened.close()
    assert [d.field for d in replayed.differences] == ["reasons"]


def test_a_store_that_cannot_set_aside_gives_no_verdict(start_service, monkeypatch):
    break_reserve(monkeypatch, lambda batch: StoreError("no space left"))
    with start_service().client() as client:
        for policy in ("sessions", "windows", "watched"):
            with pytest.raises(NoVerdict) as caught:
                check(client, policy=policy)
            assert caught.value.reason == "STORE_UNAVAILABLE"
        assert code(check(client, HIGH)) == ReasonCode.HARM_BOUND_ABOVE_REJECT


def test_a_defect_in_the_store_gives_no_verdict(start_service, monkeypatch):
    break_reserve(monkeypatch, lambda batch: RuntimeError("a defect"))
    with start_service().client() as client, pytest.raises(NoVerdict):
        check(client)


def test_a_damaged_budget_refuses_its_own_checks_only(start_service, monkeypatch):
    """Checks that are written together with one of a damaged budget get their answer."""
    gate, sizes = threading.Event(), []

    def error(batch):
        gate.wait(30)
        sizes.append(len(batch))
        return StoreCorrupt("damaged") if any(new.session == "bad" for new in batch) else None

    break_reserve(monkeypatch, error)
    service = start_service()
    with service.client() as client, ThreadPoolExecutor(6) as pool:
        names = ["first", "bad", "a", "b", "c", "d"]
        asked = [pool.submit(check, client, LOW, "sessions", name) for name in names]
        deadline = time.monotonic() + 30
        while service.metric("guardrail_checks_in_flight") < len(names) and time.monotonic() < deadline:
            time.sleep(0.01)
        gate.set()
        for name, future in zip(names, asked, strict=True):
            if name == "bad":
                with pytest.raises(NoVerdict) as caught:
                    future.result(30)
                assert caught.value.reason == "STORE_CORRUPT"
            else:
                assert future.result(30).accepted
    assert max(sizes) > 1


def test_a_caller_that_is_gone_by_then_has_spent_it(start_service, monkeypatch):
    entered, gate = threading.Event(), threading.Event()

    def error(batch):
        entered.set()
        gate.wait(30)

    break_reserve(monkeypatch, error)
    service = start_service()
    with service.client() as client:
        with pytest.raises(NoVerdict) as caught:
            client.check(policy="sessions", world="w", context={}, action=MID, session="s", timeout=0.5)
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        assert entered.is_set()
        gate.set()
        assert check(client, LOW).budget.spent == 0.375
        assert service.metric("guardrail_checks_total", policy="sessions", decision="accept") == 1


def test_an_accept_that_comes_too_late_is_none(start_service, monkeypatch):
    """The transport ends a call at its deadline; should it be late with that, nothing is accepted all the same."""
    gone = threading.Event()
    monkeypatch.setattr(servicer, "_deadlines", lambda context: (None, time.monotonic() + 0.3))
    break_reserve(monkeypatch, lambda batch: gone.wait(0.4) or None)
    service = start_service()
    with service.client() as client:
        with pytest.raises(NoVerdict, match="before the verdict was kept"):
            check(client)
        assert client.session("sessions", "w", "s").accepts == 1
        assert service.metric("guardrail_checks_total", policy="sessions", decision="accept") == 0


def test_many_callers_at_once_never_exceed_the_total(client):
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda i: check(client, LOW, session=f"s{i % 2}"), range(40)))
    for session in ("s0", "s1"):
        assert sum(v.accepted for v in verdicts[int(session[1]) :: 2]) == 4
        assert client.session("sessions", "w", session).budget.spent == 0.5


# ---------------------------------------------------------------- what a person approved


def approved(client):
    """Asks, lets a person approve, and asks again; the verdict."""
    asked = check(client, policy="gate")
    assert (asked.decision, asked.budget) == (Decision.ESCALATE, None)
    waiting = {"policy": "gate", "world": "w", "context": {}, "action": MID, "session": "s"}
    assert code(client.check(**waiting, approval=asked.decision_id)) == ReasonCode.APPROVAL_PENDING
    (one,) = [e for e in client.escalations(policy="gate") if e.escalation_id == asked.decision_id]
    client.resolve_escalation(one.escalation_id, digest=one.digest, approve=True)
    return client.check(**waiting, approval=asked.decision_id)


def test_what_a_person_approved_takes_its_share_and_finds_no_more_than_there_is(start_service, tmp_path):
    service = start_service()
    with service.client() as client:
        verdicts = [approved(client) for _ in range(3)]
        assert [v.accepted for v in verdicts] == [True, True, False]
        assert [v.budget.spent for v in verdicts] == [0.25, 0.5, 0.5]
        assert [v.approval is None for v in verdicts] == [False, False, True]
        assert code(verdicts[2]) == ReasonCode.BUDGET_EXHAUSTED
        assert "is used up" in verdicts[2].reasons[0].message
        assert client.session("gate", "w", "s").accepts == 2
    service.stop()
    store = open_store(tmp_path / "guardrail.db", read_only=True)
    differences = [r.differences for r in replay(store)]
    store.close()
    assert differences == [()] * 9


# ---------------------------------------------------------------- worlds with memory


def test_an_outcome_that_comes_while_the_share_is_set_aside_makes_the_answer_stale(start_service, monkeypatch):
    """The reservation is an await: what was current before it need not be afterwards."""
    asked = []
    real = World.bounds

    async def bounds(self, *arguments, **options):
        asked.append(self)
        return await real(self, *arguments, **options)

    def error(batch):
        # As if its report had been committed just before; the thread that writes is busy with this here.
        asked[-1]._committed = 1

    monkeypatch.setattr(World, "bounds", bounds)
    break_reserve(monkeypatch, error)
    service = start_service()
    with service.client() as client:
        verdict = check(client, {}, policy="wear", session="")
        assert code(verdict) == ReasonCode.STALE_POSTERIOR
        assert verdict.decision is Decision.REJECT
        assert 0.0 < verdict.budget.spent < 0.15
        assert client.session("wear", "w").accepts == 1


def test_without_one_it_is_accepted(client):
    verdict = check(client, {}, policy="wear", session="")
    assert verdict.accepted
    assert verdict.budget.spent == verdict.harm_bound
