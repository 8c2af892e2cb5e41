"""Redacted values reach no log and nobody who watches, and worlds are rebuilt and decisions recomputed without them."""

import json
import threading
from contextlib import closing

import pytest
from running_service import POLICY

from guardrail import Decision
from guardrail.calibration_log import Calibration
from guardrail.errors import ReportConflict
from guardrail.replay import replay
from guardrail.store import open_store

SECRET = "078-05-1120"
MARK = {"redacted": True}


@pytest.fixture(autouse=True)
def redacting(policy_folder):
    text = POLICY.replace("action:\n", "context: {ssn: string}\nredact: {context: [ssn], action: [note]}\naction:\n", 1)
    text = text.replace("  kind: string\n", "  kind: string\n  note: {type: string, optional: true}\n")
    text = text.replace("reject_above: 0.2", "reject_above: 0.5")  # so that `low` escalates
    (policy_folder / "coin" / "policy.yaml").write_text(text)


def asked(secret=SECRET):
    return {
        "policy": "coin",
        "world": "w",
        "context": {"ssn": secret},
        "action": {"kind": "low", "note": f"for {secret}"},
    }


def report(client, name, secret=SECRET, hurt=False):
    return client.report(**asked(secret), outcome={"hurt": hurt}, observation_id=name)


def test_nothing_that_is_written_or_told_holds_them(start_service, tmp_path, capfd):
    service = start_service()
    with service.client() as client, client.watch() as watch:
        told = []
        reader = threading.Thread(target=lambda: told.append(next(iter(watch))), daemon=True)
        reader.start()
        verdict = client.check(**asked())
        reader.join(30)
        misspelt = client.check(**{**asked(), "context": {"snn": SECRET}})
        report(client, verdict.decision_id)
        found = [told[0], client.decision(verdict.decision_id), client.decision(misspelt.decision_id)]
    service.stop()
    assert [one.context for one in found] == [{"ssn": MARK}, {"ssn": MARK}, {"snn": MARK}]
    assert [one.action for one in found] == [{"kind": "low", "note": MARK}] * 3
    for file in tmp_path.rglob("*"):
        assert not (file.is_file() and SECRET.encode() in file.read_bytes()), file
    assert SECRET not in "".join(capfd.readouterr())


def test_worlds_are_rebuilt_and_decisions_recomputed_from_what_is_kept(start_service, tmp_path):
    service = start_service()
    with service.client() as client:
        first = client.check(**asked())
        report(client, first.decision_id)
        before = client.check(**asked())
        client.check(**asked(secret="x" * 20_000))
    service.stop()
    service = start_service()
    with service.client() as client:
        after = client.check(**asked())
    service.stop()
    assert (after.harm_bound, after.posterior_revision) == (before.harm_bound, 1)
    with closing(open_store(tmp_path / "guardrail.db", read_only=True)) as store:
        replayed = list(replay(store))
        assert (len(replayed), [r.differences for r in replayed if r.differences]) == (4, [])
        (kept,) = store.observations("coin", "w")
        assert json.loads(kept.content)["context"] == {"ssn": MARK}
        calibration = Calibration(store)
        list(calibration.run())
        assert [row.outcomes for row in calibration.rows] == [1]


def test_an_approver_sees_marks_and_an_approval_binds_the_values(start_service):
    service = start_service()
    with service.client() as client:
        verdict = client.check(**asked())
        assert verdict.decision is Decision.ESCALATE
        (found,) = client.escalations()
        assert (found.decision.context, found.decision.action["note"]) == ({"ssn": MARK}, MARK)
        client.resolve_escalation(verdict.decision_id, approve=True, digest=found.digest)
        assert not client.check(**asked("another"), approval=verdict.decision_id).accepted
        assert client.check(**asked(), approval=verdict.decision_id).accepted


def test_reports_that_differ_in_what_is_not_kept_are_the_same_report(start_service):
    service = start_service()
    with service.client() as client:
        assert not report(client, "a").duplicate
        assert report(client, "a", secret="another").duplicate
        with pytest.raises(ReportConflict):
            report(client, "a", hurt=True)
