"""The misspecification watch of a running service: what callers, metrics and the command say of the same reports."""

from __future__ import annotations

import sqlite3
import time

import numpy as np
import pytest
from failure_budget import FAILURE_BUDGET
from scipy import stats

from guardrail.calibration_log import Calibration
from guardrail.domain import ReasonCode
from guardrail.outcomes import Outcome
from guardrail.promises import ALPHA, Compared, predictions
from guardrail.server import unanswered
from guardrail.store import open_store

LOW = {"kind": "low"}


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def wrong(policy_folder):
    """A policy without running sets, so that nothing but the watch notices a class that is wrong."""
    path = policy_folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace(", running: true", "").replace("reject_above: 0.2", "reject_above: 0.9"))


def act(client, outcome, world="w", kind=LOW):
    verdict = client.check(policy="coin", world=world, context={}, action=kind)
    client.report(
        policy="coin", world=world, context={}, action=kind, outcome=outcome, observation_id=verdict.decision_id
    )
    return verdict


def compared(client, outcomes, world="w"):
    """What GetWorld says once so many outcomes are compared."""

    def read():
        found = client.world("coin", world).calibration
        return found if found is not None and found.outcomes == outcomes else None

    return until(read)


def test_an_alarm_is_told_wherever_one_looks_and_survives_a_restart(wrong, start_service, tmp_path):
    service = start_service()
    with service.client() as client:
        assert act(client, True).notices == ()
        for _ in range(39):
            act(client, True)
        act(client, False, world="sound")
        found = compared(client, 40)
        assert (found.harms, found.alarm) == (40, True)
        assert found.log_e_peak >= found.log_e_alarm == pytest.approx(np.log(100))
        assert found.predicted < found.harm_low < found.harm_high == 1.0
        verdict = client.check(policy="coin", world="w", context={}, action=LOW)
        assert [notice.code for notice in verdict.notices] == [ReasonCode.CALIBRATION_ALARM]
        assert client.check(policy="coin", world="sound", context={}, action=LOW).notices == ()
        assert compared(client, 1, "sound").alarm is False
        assert service.metric("guardrail_calibration_alarms", policy="coin") == 1
        assert service.metric("guardrail_calibration_log_e_peak", policy="coin") == found.log_e_peak
        assert service.metric("guardrail_calibration_reports", policy="coin", result="compared") == 41
        until(lambda: service.metric("guardrail_calibration_waiting_worlds") == 0)
        assert service.metric("guardrail_health", service="") == 1
    service.stop()
    store = open_store(tmp_path / "guardrail.db", read_only=True)
    offline = Calibration(store)
    assert sum(1 for _ in offline.run()) > 0
    store.close()
    row = next(row for row in offline.rows if row.world == "w")
    with start_service().client() as client:
        again = compared(client, 40)
    assert again == found
    told = predictions(row, ALPHA)
    assert (again.log_e_value, again.log_e_peak, again.bounds) == (
        row.evidence.log_e_value,
        row.evidence.peak,
        row.bounds,
    )
    assert (again.predicted, again.harm_low, again.harm_high) == (told.predicted, *told.interval)


def test_reports_of_their_own_ids_say_nothing_and_no_decision_is_guessed(service, client):
    client.check(policy="coin", world="w", context={}, action=LOW)
    client.report(policy="coin", world="w", context={}, action=LOW, outcome=True, observation_id="mine")
    until(lambda: service.metric("guardrail_calibration_reports", policy="coin", result="unnamed") == 1)
    assert client.world("coin", "w").calibration is None


def test_decisions_of_every_kind_count(service, client):
    """Whoever carries out what was rejected, and says so, tells something of the bound, too."""
    kinds = [{"kind": "low"}, {"kind": "high"}]
    decided = {act(client, False, kind=kind).decision for kind in kinds * 3}
    assert len(decided) > 1
    assert compared(client, 6).harms == 0


def test_a_reset_world_starts_anew(wrong, start_service):
    with start_service().client() as client:
        for _ in range(40):
            act(client, True)
        assert compared(client, 40).alarm
        client.reset_world("coin", "w", generation=1, reason="for a test")
        assert client.check(policy="coin", world="w", context={}, action=LOW).notices == ()
        assert client.world("coin", "w").calibration is None
        act(client, False)
        assert not compared(client, 1).alarm


def test_a_true_model_raises_no_more_alarms_than_alpha():
    """As harmful as the bounds allow, to the last bit; each world is looked at after every outcome."""
    generator, worlds, outcomes = np.random.default_rng(20250605), 2_000, 150
    alarms = 0
    for _ in range(worlds):
        bounds = generator.choice([0.01, 0.05, 0.2, 0.6, 1.0], outcomes)
        harms = generator.random(outcomes) < bounds
        found = Compared()
        told = [Outcome(None, bound, bound, harm) for bound, harm in zip(bounds.tolist(), harms.tolist(), strict=True)]
        for start in range(0, outcomes, 50):
            found.take(told[start : start + 50], ALPHA)
        alarms += found.alarm_at is not None
    assert stats.binomtest(alarms, worlds, ALPHA, alternative="greater").pvalue > FAILURE_BUDGET
    assert alarms > 0  # the test could have seen some


def test_escalations_that_wait_are_counted(policy_folder, start_service, monkeypatch):
    monkeypatch.setattr(unanswered, "COUNT_SECONDS", 0.05)
    path = policy_folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace("reject_above: 0.2", "reject_above: 0.9"))
    service = start_service()
    with service.client() as client:
        before = time.time()
        first, second = (
            client.check(policy="coin", world="w", context={}, action={"kind": "high"}).decision_id for _ in range(2)
        )
        until(lambda: service.metric("guardrail_escalations_pending", policy="coin") == 2)
        opened = service.metric("guardrail_oldest_pending_escalation_seconds", policy="coin")
        assert before <= opened <= time.time()
        for one in client.escalations():
            if one.escalation_id == first:
                client.resolve_escalation(first, digest=one.digest, approve=True)
        until(lambda: service.metric("guardrail_escalations_pending", policy="coin") == 1)
        assert service.metric("guardrail_oldest_pending_escalation_seconds", policy="coin") > opened
        for one in client.escalations():
            if one.escalation_id == second:
                client.resolve_escalation(second, digest=one.digest, approve=False)
        until(lambda: service.metric("guardrail_escalations_pending", policy="coin") == 0)
        assert service.metric("guardrail_oldest_pending_escalation_seconds", policy="coin") == 0


def test_a_chain_of_receipts_that_somebody_changed_is_counted(service, client, tmp_path):
    client.check(policy="coin", world="w", context={}, action=LOW)
    until(lambda: service.metric("guardrail_decisions_written_total") == 1)
    assert service.metric("guardrail_decision_log_damaged_total") == 0
    database = sqlite3.connect(tmp_path / "guardrail.db", timeout=30)
    with database:
        database.execute("UPDATE chains SET head_position = 5")
    database.close()
    client.check(policy="coin", world="w", context={}, action=LOW)
    until(lambda: service.metric("guardrail_decision_log_damaged_total") > 0)


def test_replicas_over_one_database_find_the_same(wrong, start_service, postgres_url):
    """Each decides and reports what the other one decided; both compare everything in the order of the log."""
    one, other = (start_service(store=postgres_url) for _ in range(2))
    with one.client() as here, other.client() as there:
        for number in range(20):
            first, second = (here, there) if number % 2 else (there, here)
            verdict = first.check(policy="coin", world="w", context={}, action=LOW)
            second.report(
                policy="coin",
                world="w",
                context={},
                action=LOW,
                outcome=number > 0,
                observation_id=verdict.decision_id,
            )
        found = [compared(client, 20) for client in (here, there)]
        for client in (here, there):
            (notice,) = client.check(policy="coin", world="w", context={}, action=LOW).notices
            assert notice.code is ReasonCode.CALIBRATION_ALARM
    store = open_store(postgres_url, read_only=True)
    offline = Calibration(store)
    for _ in offline.run():
        pass
    store.close()
    (row,) = offline.rows
    assert found[0] == found[1]
    assert (found[0].log_e_value, found[0].log_e_peak) == (row.evidence.log_e_value, row.evidence.peak)
    assert (found[0].outcomes, found[0].harms, found[0].bounds) == (row.outcomes, row.harms, row.bounds)
