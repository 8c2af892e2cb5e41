"""Awaited outcomes of a real service: what is overdue, what it does, and what settles it."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from security_files import Clock
from timed_policies import HIGH, LOW, MID, timed

from guardrail.approvals import EscalationState
from guardrail.domain import Decision, GuaranteeKind, ReasonCode
from guardrail.errors import (
    DecisionNotFound,
    NoVerdict,
    PermissionDenied,
    PolicyNotFound,
    ReportConflict,
    StoreError,
    WorldNotFound,
)
from guardrail.replay import replay
from guardrail.server import app, awaiting, withdrawals
from guardrail.store import open_store
from guardrail.store.base import NewObservation

WEAR = """
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
decision: {reject_above: 0.6}
reporting: {within: 10m, overdue: assume_harm}
"""

POLICIES = {
    "strict": timed("strict"),
    "asks": timed("asks", "escalate", more=", escalate_above: 0.2"),
    "assumes": timed("assumes", "assume_harm"),
    "watched": timed("watched", mode="shadow"),
    "priced": timed("priced", more=", budget: {per: window, window: 24h, total: 0.25}"),
    "wear": WEAR,
}


@pytest.fixture
def policy_folder(policy_folder):
    for name, document in POLICIES.items():
        (policy_folder / name).mkdir()
        (policy_folder / name / "policy.yaml").write_text(document)
    return policy_folder


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The service's clock for awaited outcomes; sweeps come one upon the other."""
    clock = Clock(1e9)
    monkeypatch.setattr(awaiting, "Clock", lambda: lambda: clock.now)
    monkeypatch.setattr(awaiting, "SWEEP_SECONDS", 0.02)
    return clock


def check(client, action=LOW, policy="strict", world="w", **options):
    return client.check(policy=policy, world=world, context={}, action=action, **options)


def report(client, verdict, action=LOW, *, hurt=False, policy="strict", world="w"):
    return client.report(
        policy=policy, world=world, context={}, action=action, outcome=hurt, observation_id=verdict.decision_id
    )


def code(verdict):
    """The first, most important reason."""
    return verdict.reasons[0].code


def until(condition, seconds=20.0):
    """What a condition comes to, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)
    return found


def replayed(service):
    """Differences between the decision log and what follows from the logs; stops the service."""
    service.stop()
    store = open_store(service.settings.store, read_only=True)
    try:
        found = list(replay(store))
        assert found
        return [one.differences for one in found if one.differences]
    finally:
        store.close()


def broken_store(monkeypatch, **methods):
    """Opens the next service's store with other methods; each gets the real one first."""
    real = app.open_store

    def open_broken(*arguments, **options):
        store = real(*arguments, **options)
        for name, method in methods.items():
            setattr(store, name, functools.partial(method, getattr(store, name)))
        return store

    monkeypatch.setattr(app, "open_store", open_broken)


# ---------------------------------------------------------------- overdue, and settled


def test_an_overdue_outcome_rejects_everything_until_it_is_reported(clock, service, client):
    verdict = check(client)
    assert verdict.accepted
    assert any("withheld" in assumption for assumption in verdict.guarantee.assumptions)
    clock.now += 599.0
    assert check(client, world="other").accepted
    clock.now += 1.0
    late = check(client)
    assert (late.decision, code(late)) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)
    assert verdict.decision_id in late.reasons[0].message
    assert [n.code for n in late.notices] == [ReasonCode.OUTCOME_OVERDUE]
    assert late.harm_bound == 0.125
    assert check(client, world="new").accepted
    report(client, verdict, hurt=True)
    again = check(client)
    assert again.accepted
    assert again.notices == ()
    assert again.guarantee.kind is GuaranteeKind.THEOREM
    assert replayed(service) == []


def test_what_the_bound_rejects_keeps_its_own_reason_first(clock, client):
    check(client)
    clock.now += 600.0
    verdict = check(client, HIGH)
    assert code(verdict) == ReasonCode.HARM_BOUND_ABOVE_REJECT
    assert [n.code for n in verdict.notices] == [ReasonCode.OUTCOME_OVERDUE]


def test_reports_under_other_ids_settle_nothing(clock, client):
    check(client)
    client.report(policy="strict", world="w", context={}, action=LOW, outcome=False, observation_id="mine")
    clock.now += 600.0
    assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE


def test_every_accepted_candidate_is_awaited(clock, client):
    checked = client.check_many(policy="strict", world="w", context={}, actions=[LOW, HIGH, MID, LOW])
    assert checked.allowed == (0, 3, 2)
    assert client.world("strict", "w").awaited.awaited == 3
    clock.now += 600.0
    checked = client.check_many(policy="strict", world="w", context={}, actions=[LOW, HIGH, MID, LOW])
    assert checked.allowed == ()
    assert [code(v) for v in checked.verdicts] == [
        ReasonCode.OUTCOME_OVERDUE,
        ReasonCode.HARM_BOUND_ABOVE_REJECT,
        ReasonCode.OUTCOME_OVERDUE,
        ReasonCode.OUTCOME_OVERDUE,
    ]


def test_a_restart_forgets_nothing(clock, start_service):
    service = start_service()
    with service.client() as client:
        verdict = check(client)
    service.stop()
    clock.now += 600.0
    with start_service().client() as client:
        assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE
        assert client.world("strict", "w").awaited.overdue_decisions == (verdict.decision_id,)
        report(client, verdict)
        assert check(client).accepted


def test_a_policy_without_a_time_waits_for_nothing(clock, service, client, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("the store was asked")

    monkeypatch.setattr("guardrail.store.sql.SqlStore.await_outcomes", never)
    assert client.check(policy="coin", world="w", context={}, action={"kind": "mid"}) is not None
    assert client.policies()
    with pytest.raises(WorldNotFound):
        client.world("coin", "w")
    client.report(policy="coin", world="w", context={}, action=LOW, outcome=False)
    assert client.world("coin", "w").awaited is None


def test_shadow_mode_awaits_nothing(clock, client):
    verdict = check(client, policy="watched")
    assert verdict.accepted
    assert not any("withheld" in assumption for assumption in verdict.guarantee.assumptions)
    clock.now += 600.0
    assert [n.code for n in check(client, policy="watched").notices] == [ReasonCode.SHADOW_MODE]


# ---------------------------------------------------------------- escalating


def test_an_overdue_outcome_escalates_and_a_person_may_let_one_action_pass(clock, service, client):
    first = check(client, policy="asks")
    clock.now += 600.0
    verdict = check(client, policy="asks")
    assert (verdict.decision, code(verdict)) == (Decision.ESCALATE, ReasonCode.OUTCOME_OVERDUE)
    (waiting,) = client.escalations()
    client.resolve_escalation(verdict.decision_id, digest=waiting.digest, approve=True)
    passed = check(client, policy="asks", approval=verdict.decision_id)
    assert (passed.decision, code(passed)) == (Decision.ACCEPT, ReasonCode.APPROVED)
    assert [n.code for n in passed.notices] == [ReasonCode.OUTCOME_OVERDUE]
    assert client.world("asks", "w").awaited.awaited == 1  # the approved one is awaited, too
    assert check(client, policy="asks").decision is Decision.ESCALATE
    assert check(client, HIGH, policy="asks").decision is Decision.REJECT
    report(client, first, policy="asks")
    assert check(client, policy="asks").accepted
    assert replayed(service) == []


def test_no_approval_passes_where_overdue_outcomes_reject(clock, service, client, policy_folder):
    path = policy_folder / "asks" / "policy.yaml"
    path.write_text(path.read_text().replace("overdue: escalate", "overdue: reject"))
    client.reload_policies()
    check(client, policy="asks")
    escalated = check(client, MID, policy="asks")
    (waiting,) = client.escalations()
    client.resolve_escalation(escalated.decision_id, digest=waiting.digest, approve=True)
    clock.now += 600.0
    verdict = check(client, MID, policy="asks", approval=escalated.decision_id)
    assert (verdict.decision, code(verdict)) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)
    assert [one.state for one in client.escalations(state=None)] == [EscalationState.APPROVED]  # not used up
    assert replayed(service) == []


# ---------------------------------------------------------------- found in the transaction


@pytest.mark.parametrize(("policy", "found"), [("strict", Decision.REJECT), ("asks", Decision.ESCALATE)])
def test_what_memory_does_not_know_the_transaction_finds(clock, start_service, monkeypatch, policy, found):
    """As with a row that another replica wrote and no sweep has seen."""
    service = start_service()
    with service.client() as client:
        first = check(client, policy=policy)
        clock.now += 600.0

        async def nothing(self, policy, world):
            return None

        monkeypatch.setattr(awaiting.Awaiting, "look", nothing)
        verdict = check(client, policy=policy)
        assert (verdict.decision, code(verdict)) == (found, ReasonCode.OUTCOME_OVERDUE)
        assert len(list(client.escalations())) == (found is Decision.ESCALATE)
        state = client.world(policy, "w").awaited
        assert (state.awaited, state.overdue_decisions) == (0, (first.decision_id,))
    assert replayed(service) == []


def test_an_approval_that_an_overdue_outcome_overtakes_is_used_up(clock, start_service, monkeypatch, policy_folder):
    path = policy_folder / "asks" / "policy.yaml"
    path.write_text(path.read_text().replace("overdue: escalate", "overdue: reject"))
    service = start_service()
    with service.client() as client:
        check(client, policy="asks")
        escalated = check(client, MID, policy="asks")
        (waiting,) = client.escalations()
        client.resolve_escalation(escalated.decision_id, digest=waiting.digest, approve=True)
        clock.now += 600.0

        async def nothing(self, policy, world):
            return None

        monkeypatch.setattr(awaiting.Awaiting, "look", nothing)
        verdict = check(client, MID, policy="asks", approval=escalated.decision_id)
        assert [reason.code for reason in verdict.reasons][:2] == [ReasonCode.OUTCOME_OVERDUE, ReasonCode.APPROVED]
        assert "used up" in verdict.reasons[0].message
        assert verdict.decision is Decision.REJECT
        assert verdict.approval is None
    assert replayed(service) == []


@pytest.mark.parametrize("method", ["await_outcomes", "awaited"])
def test_a_store_that_fails_gives_no_accept(clock, start_service, monkeypatch, method):
    failing = threading.Event()

    def fail(real, *arguments, **options):
        if failing.is_set():
            raise StoreError("no space left")
        return real(*arguments, **options)

    broken_store(monkeypatch, **{method: fail})
    service = start_service()
    with service.client() as client:
        verdict = check(client)
        if method == "awaited":
            clock.now += 600.0  # something may be overdue, so the store must be asked
        failing.set()
        with pytest.raises(NoVerdict) as caught:
            check(client)
        assert caught.value.reason == "STORE_UNAVAILABLE"
        failing.clear()
        report(client, verdict)
        assert check(client).accepted


def test_what_nobody_was_told_is_not_awaited(clock, start_service, monkeypatch):
    """A caller whose deadline passes while its accept is being kept got no accept."""
    entered, leave = threading.Event(), threading.Event()

    def slow(real, batch, now):
        if batch[0].world == "w":
            entered.set()
            assert leave.wait(60)
        return real(batch, now)

    broken_store(monkeypatch, await_outcomes=slow)
    service = start_service()
    with service.client() as client:
        assert check(client, world="other").accepted  # from now on kernels are compiled
        with pytest.raises(NoVerdict):
            check(client, timeout=3.0)
        assert entered.is_set()
        leave.set()
        store = open_store(service.settings.store, read_only=True)
        try:
            until(lambda: _states(store) == ["awaited", "not_taken"])
        finally:
            store.close()
        clock.now += 600.0
        assert check(client).accepted


def test_an_accept_that_became_stale_is_not_awaited(clock, start_service, monkeypatch):
    """Outcomes came in while it was kept, and only the current posterior counts."""

    async def outdated(self, *_arguments):
        return False

    service = start_service()
    with service.client() as client:
        monkeypatch.setattr("guardrail.server.service.Service._still_current", outdated)
        verdict = check(client)
        assert (verdict.decision, code(verdict)) == (Decision.REJECT, ReasonCode.STALE_POSTERIOR)
        store = open_store(service.settings.store, read_only=True)
        try:
            until(lambda: _states(store) == ["not_taken"])
        finally:
            store.close()


def _states(store):
    import sqlalchemy as sa

    from guardrail.store.tables import awaited

    return sorted(row.state for row in store._sessions.read(sa.select(awaited.c.state)))


class _Writer:
    """Runs store work at once, unless it fails."""

    def __init__(self):
        self.calls, self.fails = 0, True

    async def run(self, work):
        self.calls += 1
        await asyncio.sleep(0)
        if self.fails:
            raise StoreError("the database is away")
        return work()


class _Released:
    def __init__(self):
        self.ids = []

    def release_outcomes(self, _policy, _world, decision_ids, _now):
        self.ids += decision_ids
        return len(decision_ids)


def test_what_cannot_be_withdrawn_is_tried_once_at_a_time_and_has_a_limit(monkeypatch):
    """While the store is away, each check that it refuses leaves something to withdraw."""
    monkeypatch.setattr(withdrawals, "MAX_WITHDRAWN", 5)
    ids = [str(i) for i in range(8)]

    async def main():
        writer, store = _Writer(), _Released()
        waiting = withdrawals.Withdrawals(writer, store, lambda: 0.0)
        for one in ids:
            waiting.add("policy", "world", [one])
        await waiting.close()
        assert writer.calls == 1
        waiting.add("policy", "world", ["later"])  # a check that the store refuses is no reason to try again
        assert waiting._task.done()
        task = asyncio.create_task(waiting.release())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        writer.fails = False
        await waiting.release()
        assert store.ids == ids[:5]
        await waiting.close()

    asyncio.run(main())


# ---------------------------------------------------------------- not taken


def test_actions_that_were_not_taken_are_awaited_no_longer(clock, service, client):
    verdicts = [check(client) for _ in range(3)]
    names = [verdict.decision_id for verdict in verdicts]
    assert client.report_not_taken("strict", "w", names[:2]) == 2
    assert client.report_not_taken("strict", "w", names[:2]) == 0
    clock.now += 600.0
    assert client.world("strict", "w").awaited.overdue_decisions == (names[2],)
    assert client.report_not_taken("strict", "w", names) == 1
    assert check(client).accepted
    with pytest.raises(DecisionNotFound):
        client.report_not_taken("strict", "w", ["none"])
    assert service.metric("guardrail_outcomes_total", policy="strict", event="not_taken") == 3


def test_what_is_said_of_unknown_or_reported_decisions_changes_nothing(clock, client):
    first, second = check(client), check(client)
    report(client, first)
    for others, error in (([first.decision_id], ReportConflict), (["none"], DecisionNotFound)):
        with pytest.raises(error):
            client.report_not_taken("strict", "w", [second.decision_id, *others])
    with pytest.raises(DecisionNotFound):
        client.report_not_taken("strict", "v", [second.decision_id])
    with pytest.raises(PolicyNotFound):
        client.report_not_taken("nobody", "w", [second.decision_id])
    with pytest.raises(TypeError):
        client.report_not_taken("strict", "w", second.decision_id)
    assert client.world("strict", "w").awaited.awaited == 1


def test_an_outcome_after_all_is_taken_up(clock, service, client):
    verdict = check(client)
    client.report_not_taken("strict", "w", [verdict.decision_id])
    assert report(client, verdict).posterior_revision == 1
    with pytest.raises(ReportConflict):
        client.report_not_taken("strict", "w", [verdict.decision_id])


# ---------------------------------------------------------------- taken for harm


def test_an_overdue_outcome_is_taken_for_harm(clock, service, client):
    verdict = check(client, policy="assumes")
    assert verdict.guarantee.kind is GuaranteeKind.THEOREM
    clock.now += 600.0
    state = until(lambda: (w := client.world("assumes", "w")).awaited.assumed_harms and w)
    assert state.posterior.revision == 1
    assert state.guarantee.kind is GuaranteeKind.NONE
    assert "taken for harm" in state.guarantee.assumptions[0]
    assert state.awaited.overdue == 0
    after = check(client, policy="assumes")
    assert (after.decision, after.posterior_revision) == (Decision.ACCEPT, 1)
    assert after.guarantee == state.guarantee
    assert [n.code for n in after.notices] == [ReasonCode.OUTCOME_OVERDUE]
    with pytest.raises(ReportConflict):
        report(client, verdict, policy="assumes", hurt=False)
    with pytest.raises(ReportConflict):
        client.report_not_taken("assumes", "w", [verdict.decision_id])
    same = client.report(
        policy="assumes",
        world="w",
        context={},
        action=LOW,
        outcome={"hurt": True},
        observation_id=verdict.decision_id,
    )
    assert same.duplicate
    assert service.metric("guardrail_outcomes_total", policy="assumes", event="assumed") == 1
    service.stop()
    store = open_store(service.settings.store, read_only=True)
    (one,) = store.observations("assumes", "w")
    store.close()
    assert (one.observation_id, one.reporter) == (verdict.decision_id, "guardrail")


def test_what_was_taken_for_harm_stays_so_through_restarts_and_in_the_replay(clock, start_service):
    service = start_service(snapshot_every=1)
    with service.client() as client:
        before = check(client, policy="assumes")
        clock.now += 600.0
        until(lambda: client.world("assumes", "w").awaited.assumed_harms)
        report(client, check(client, policy="assumes"), policy="assumes")
    service.stop()
    service = start_service()
    with service.client() as client:
        assert check(client, policy="assumes").guarantee.kind is GuaranteeKind.NONE
        assert client.world("assumes", "w").guarantee.kind is GuaranteeKind.NONE
        assert client.decision(before.decision_id).verdict.guarantee.kind is GuaranteeKind.THEOREM
    assert replayed(service) == []


def test_another_revision_of_the_policy_does_not_make_it_a_theorem_again(clock, service, client, policy_folder):
    check(client, policy="assumes")
    clock.now += 600.0
    until(lambda: client.world("assumes", "w").awaited.assumed_harms)
    path = policy_folder / "assumes" / "policy.yaml"
    path.write_text(path.read_text().replace("reporting: {within: 10m, overdue: assume_harm}", ""))
    client.reload_policies()
    verdict = check(client, policy="assumes")
    assert verdict.guarantee.kind is GuaranteeKind.NONE
    assert replayed(service) == []


def test_a_reset_ends_what_is_owed_and_what_was_assumed(clock, service, client):
    check(client, policy="assumes")
    check(client)
    clock.now += 600.0
    until(lambda: client.world("assumes", "w").awaited.assumed_harms)
    assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE
    for policy in ("assumes", "strict"):
        client.reset_world(policy, "w", generation=1, reason="nobody knows what came of it")
        # A sweep that began before the reset may speak of it once more.
        verdict = until(lambda policy=policy: (v := check(client, policy=policy)).notices == () and v)
        assert verdict.accepted
        assert verdict.guarantee.kind is GuaranteeKind.THEOREM
        state = client.world(policy, "w")
        assert (state.generation, state.awaited.overdue, state.awaited.assumed_harms) == (2, 0, 0)
    assert replayed(service) == []


def test_until_it_is_taken_for_harm_everything_is_rejected(clock, start_service, monkeypatch):
    def fail(real, *arguments, **options):
        raise StoreError("no space left")

    broken_store(monkeypatch, assume_outcomes=fail)
    with start_service().client() as client:
        check(client, policy="assumes")
        clock.now += 600.0
        verdict = check(client, policy="assumes")
        assert (verdict.decision, code(verdict)) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)


def test_what_a_new_revision_cannot_take_up_stays_overdue(clock, service, client, policy_folder):
    verdict = check(client, policy="assumes")
    path = policy_folder / "assumes" / "policy.yaml"
    path.write_text(path.read_text().replace("low: 0.125", "slow: 0.125"))
    client.reload_policies()
    clock.now += 600.0
    until(lambda: service.metric("guardrail_overdue_outcomes", policy="assumes"))
    assert client.world("assumes", "w").awaited.overdue_decisions == (verdict.decision_id,)
    assert code(check(client, MID, policy="assumes")) == ReasonCode.OUTCOME_OVERDUE


def test_nothing_is_taken_for_harm_by_a_policy_that_was_replaced_meanwhile(
    clock, start_service, monkeypatch, policy_folder
):
    """What the present revision cannot take up must not reach the log: the world could not be built from it."""
    entered, leave = threading.Event(), threading.Event()

    def slow(real, policy, world, now, limit):
        found = real(policy, world, now, limit)
        entered.set()
        assert leave.wait(60)
        return found

    broken_store(monkeypatch, overdue_outcomes=slow)
    service = start_service()
    with service.client() as client:
        assert check(client, policy="assumes").accepted
        clock.now += 600.0
        assert entered.wait(60)
        changed = timed("assumes", "assume_harm").replace("hurt", "harmed")
        changed = changed.replace("low: 0.125, ", "")
        (policy_folder / "assumes" / "policy.yaml").write_text(changed)
        assert client.reload_policies().changed == ("assumes",)
        leave.set()
        until(lambda: service.metric("guardrail_overdue_outcomes", policy="assumes") == 1)
        late = check(client, MID, policy="assumes")
        assert (late.decision, code(late)) == (Decision.REJECT, ReasonCode.OUTCOME_OVERDUE)
        assert client.world("assumes", "w").posterior.revision == 0


def test_what_was_taken_for_harm_counts_although_the_log_could_not_be_read_at_once(clock, start_service, monkeypatch):
    failing = threading.Event()

    def fail(real, *arguments):
        if failing.is_set():
            raise StoreError("the database is away")
        return real(*arguments)

    broken_store(monkeypatch, head=fail)
    service = start_service()
    with service.client() as client:
        check(client, policy="assumes")
        clock.now += 600.0
        until(lambda: client.world("assumes", "w").posterior.revision == 1)
        assert check(client, policy="assumes").accepted
        failing.set()
        clock.now += 600.0
        store = open_store(service.settings.store, read_only=True)
        try:
            until(lambda: store.observation_count("assumes", "w") == 2)
        finally:
            store.close()
        with pytest.raises(NoVerdict) as caught:
            check(client, policy="assumes")
        assert caught.value.reason == "STORE_UNAVAILABLE"
        failing.clear()
        assert check(client, policy="assumes").posterior_revision == 2
        failing.set()
        clock.now += 600.0
        until(lambda: service.metric("guardrail_outcomes_total", policy="assumes", event="assumed") == 3)
        failing.clear()
        until(lambda: client.world("assumes", "w").posterior.revision == 3)


def test_a_world_with_memory_takes_up_what_was_assumed(clock, service, client):
    for _ in range(3):
        verdict = client.check(policy="wear", world="w", context={}, action={})
        client.report(
            policy="wear", world="w", context={}, action={}, outcome=False, observation_id=verdict.decision_id
        )
    before = client.check(policy="wear", world="w", context={}, action={})
    assert before.guarantee.kind is GuaranteeKind.THEOREM
    clock.now += 600.0
    until(lambda: client.world("wear", "w").awaited.assumed_harms)
    after = client.check(policy="wear", world="w", context={}, action={})
    assert after.posterior_revision == 4
    assert after.harm_bound > before.harm_bound
    assert after.guarantee.kind is GuaranteeKind.NONE
    assert replayed(service) == []


def test_a_world_with_memory_accepts_nothing_while_it_lags_behind_what_was_assumed(clock, start_service, monkeypatch):
    """Whatever was known of it when the check began."""
    failing = threading.Event()

    def fail(real, *arguments):
        if failing.is_set():
            raise StoreError("the database is away")
        return real(*arguments)

    async def look(*_arguments):
        return None

    broken_store(monkeypatch, head=fail)
    service = start_service()
    with service.client() as client:
        assert check(client, {}, policy="wear").accepted
        clock.now += 600.0
        until(lambda: client.world("wear", "w").posterior.revision == 1)
        assert check(client, {}, policy="wear").accepted
        failing.set()
        clock.now += 600.0
        until(lambda: service.metric("guardrail_outcomes_total", policy="wear", event="assumed") == 2)
        monkeypatch.setattr(awaiting.Awaiting, "look", look)
        with pytest.raises(NoVerdict) as caught:
            check(client, {}, policy="wear")
        assert caught.value.reason == "STORE_UNAVAILABLE"
        failing.clear()
        assert check(client, {}, policy="wear").posterior_revision == 2


@pytest.mark.parametrize("first", ["report", "assumption"])
def test_a_report_and_an_assumption_at_once_are_one_outcome(clock, start_service, monkeypatch, first):
    """Whichever comes first counts; the other one is a conflict."""
    arrived, go = threading.Event(), threading.Event()

    def wait(real, batch, now):
        arrived.set()
        assert go.wait(60)
        return real(batch, now)

    if first == "report":
        broken_store(monkeypatch, overdue_outcomes=lambda real, *a: (arrived.set(), go.wait(60), real(*a))[2])
    service = start_service()
    with service.client() as client:
        verdict = check(client, policy="assumes")
        clock.now += 600.0
        if first == "report":
            assert arrived.wait(20)
            # The sweep has seen it overdue and has not taken it for harm yet.
            report(client, verdict, policy="assumes")
            go.set()
            assert client.world("assumes", "w").guarantee.kind is GuaranteeKind.THEOREM
        else:
            until(lambda: client.world("assumes", "w").awaited.assumed_harms)
            with pytest.raises(ReportConflict):
                report(client, verdict, policy="assumes")
        assert client.world("assumes", "w").posterior.revision == 1


def test_an_assumption_does_not_overtake_what_settled_the_outcome(clock, service, client):
    """The store is asked again in the transaction that would append it."""
    store = open_store(service.settings.store, read_only=True)
    store.close()
    taken, spared = check(client, policy="assumes"), check(client, policy="assumes")
    report(client, taken, policy="assumes")
    client.report_not_taken("assumes", "w", [spared.decision_id])
    clock.now += 600.0
    service.stop()
    store = open_store(service.settings.store)
    try:
        late = [NewObservation("assumes", "w", v.decision_id, "0" * 64, "{}", "guardrail") for v in (taken, spared)]
        assert store.assume_outcomes(late, clock.now) == [None, None]
        assert store.observation_count("assumes", "w") == 1
    finally:
        store.close()


# ---------------------------------------------------------------- seeing it


def test_a_world_that_only_owes_outcomes_can_be_seen(clock, client):
    verdict = check(client)
    state = client.world("strict", "w")
    assert state.posterior.revision == 0
    assert (state.awaited.within, state.awaited.overdue_action) == (600.0, "reject")
    assert (state.awaited.awaited, state.awaited.overdue, state.awaited.overdue_decisions) == (1, 0, ())
    assert state.awaited.oldest_due.timestamp() == clock.now + 600.0
    assert [(w.policy, w.world, w.observations) for w in client.worlds()] == [("strict", "w", 0)]
    clock.now += 600.0
    state = client.world("strict", "w")
    assert (state.awaited.awaited, state.awaited.overdue) == (0, 1)
    assert state.awaited.overdue_decisions == (verdict.decision_id,)
    with pytest.raises(WorldNotFound):
        client.world("strict", "nobody")


def test_metrics_and_health_tell_of_it(clock, service, client):
    from guardrail.cli.health import ask

    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:

        def health(name):
            return ask(channel, name, 10.0)[0]

        verdict = check(client)
        until(lambda: service.metric("guardrail_awaited_outcomes", policy="strict") == 1)
        assert health("guardrail.outcomes") == "SERVING"
        clock.now += 600.0
        until(lambda: service.metric("guardrail_overdue_outcomes", policy="strict") == 1)
        until(lambda: health("guardrail.outcomes") == "NOT_SERVING")
        assert health("") == "SERVING"
        report(client, verdict)
        until(lambda: service.metric("guardrail_overdue_outcomes", policy="strict") == 0)
        until(lambda: health("guardrail.outcomes") == "SERVING")
    events = {
        e: service.metric("guardrail_outcomes_total", policy="strict", event=e)
        for e in ("awaited", "overdue", "reported", "not_taken", "assumed")
    }
    assert events == {"awaited": 1, "overdue": 1, "reported": 1, "not_taken": 0, "assumed": 0}


def test_what_a_check_finds_overdue_before_a_sweep_does_is_told_as_well(clock, start_service, monkeypatch):
    monkeypatch.setattr(awaiting, "SWEEP_SECONDS", 3600.0)
    service = start_service()
    with service.client() as client:
        verdict = check(client)
        clock.now += 600.0
        assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE
        assert service.metric("guardrail_outcomes_total", policy="strict", event="overdue") == 1
        assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE
        assert service.metric("guardrail_outcomes_total", policy="strict", event="overdue") == 1
        report(client, verdict)
        assert check(client).accepted


def test_a_refused_budget_awaits_nothing(clock, client):
    assert [check(client, MID, policy="priced").accepted for _ in range(2)] == [True, False]
    assert client.world("priced", "w").awaited.awaited == 1


def test_an_agent_may_not_say_that_it_did_nothing(clock, start_service, tmp_path):
    from security_files import CallersFile

    callers = CallersFile(tmp_path / "callers.yaml")
    callers.add("both", "agent", "reporter")
    callers.add("agent", "agent")
    callers.add("clerk", "reporter")
    service = start_service(callers=callers.write())
    with (
        service.client(token=callers.keys["both"]) as both,
        service.client(token=callers.keys["agent"]) as agent,
        service.client(token=callers.keys["clerk"]) as clerk,
    ):
        verdict = check(agent)
        for client, reason in ((both, "SELF_REPORT"), (agent, "PERMISSION_DENIED")):
            with pytest.raises(PermissionDenied) as caught:
                client.report_not_taken("strict", "w", [verdict.decision_id])
            assert caught.value.reason == reason
        assert clerk.report_not_taken("strict", "w", [verdict.decision_id]) == 1


def test_many_at_once_are_each_awaited(clock, service, client):
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda n: check(client, world=f"w{n % 3}"), range(48)))
    assert all(verdict.accepted for verdict in verdicts)
    assert sum(client.world("strict", f"w{n}").awaited.awaited for n in range(3)) == 48


# ---------------------------------------------------------------- replicas


def test_replicas_see_what_any_of_them_accepted(clock, start_service, postgres_url):
    one, two = (start_service(store=postgres_url) for _ in range(2))
    with one.client() as first, two.client() as second:
        verdicts = [check(first), check(first)]
        clock.now += 600.0
        for client in (second, first):
            assert code(check(client)) == ReasonCode.OUTCOME_OVERDUE
        report(second, verdicts[0])
        assert first.report_not_taken("strict", "w", [verdicts[1].decision_id]) == 1
        for client in (second, first):
            verdict = check(client)
            assert verdict.accepted
            assert verdict.notices == ()


def test_replicas_take_an_outcome_for_harm_once(clock, start_service, postgres_url):
    services = [start_service(store=postgres_url) for _ in range(2)]
    with services[0].client() as first, services[1].client() as second:
        verdicts = [check(first if n % 2 else second, policy="assumes") for n in range(6)]
        clock.now += 600.0
        for client in (first, second):
            until(lambda client=client: client.world("assumes", "w").awaited.assumed_harms == 6)
            verdict = check(client, policy="assumes")
            assert verdict.accepted
            assert verdict.guarantee.kind is GuaranteeKind.NONE
            assert verdict.posterior_revision == 6
    assumed = [s.metric("guardrail_outcomes_total", policy="assumes", event="assumed") for s in services]
    assert sum(assumed) == 6
    for service in services:
        service.stop()
    store = open_store(postgres_url, read_only=True)
    try:
        assert {o.observation_id for o in store.observations("assumes", "w")} == {v.decision_id for v in verdicts}
        assert [one.differences for one in replay(store) if one.differences] == []
    finally:
        store.close()
