import json
import random
import sqlite3
import time

import pytest

import guardrail
from guardrail import Guard
from guardrail.canonical import canonical_json, digest
from guardrail.policy import parse_policy
from guardrail.store import open_store
from guardrail.store.base import NewObservation
from guardrail.store.decisions import LoggedDecision

POLICY = parse_policy("""
schema: guardrail/v1
name: tools
description: For a test.
action: {tool: string}
hypotheses:
  family: finite-table
  category: action.tool
  table:
    - {name: low, prior: 0.5, rates: {a: 0.01, b: 0.05}}
    - {name: high, prior: 0.5, rates: {a: 0.03, b: 0.3}}
outcome: {name: harmful, type: bool}
harm: outcome.harmful
bound: {kind: ratio, delta: 0.05}
decision: {reject_above: 0.15}
""")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Two worlds: in `wrong` harm is far more frequent than any hypothesis says."""
    path = tmp_path_factory.mktemp("log") / "log.db"
    store, prior = open_store(path), Guard(POLICY)
    store.record_policy(POLICY.name, POLICY.revision, POLICY.document)
    for world, rate in (("sound", 0.01), ("wrong", 0.3)):
        guard, chance = prior.fork(world=world), random.Random(5)
        for step in range(80):
            action = {"tool": "ab"[step % 4 == 0]}
            verdict = guard.check({}, action)
            store.append_decisions([LoggedDecision(verdict, {}, action, float(step)).to_record()])
            if verdict.accepted and step % 10:
                outcome = {"harmful": chance.random() < rate}
                guard.observe({}, action, outcome)
                content = canonical_json({"action": action, "context": {}, "outcome": outcome})
                new = NewObservation("tools", world, verdict.decision_id, digest(content), content)
                store.append_observations([new])
    store.close()
    return path


def test_an_alarm_is_a_no(cli, database):
    result = cli("calibration", "--log", database)
    assert result.code == 1
    sound, wrong = result.out.split("tools, world wrong")
    assert "no alarm" in sound
    assert "of these without report" in sound
    assert "ALARM at outcome" in wrong
    assert "1 alarm in 2 rows" in wrong
    assert "If outcomes were withheld because of their value, these numbers mean nothing." in wrong
    calm = cli("calibration", "--log", database, "--world", "sound")
    assert calm.code == 0
    assert "no alarm in 1 rows" in calm.out


def test_one_document_for_programs(cli, database):
    result = cli("calibration", "--log", database, "--policy", "tools", "--alpha", "0.05", "--json")
    assert result.code == 1
    assert result.err == ""
    assert list(result.json) == [
        "alpha", "alarm_log_e_value", "alarms", "worlds", "reports_without_decision", "unusable"
    ]  # fmt: skip
    sound, wrong = result.json["worlds"]
    assert list(sound) == [
        "policy", "policy_revision", "world", "generation", "decisions", "accepted", "accepted_unreported", "outcomes",
        "harms", "mean_bound", "steps", "log_e_value", "largest_log_e_value", "alarm", "alarm_at_outcome",
        "predictions",
    ]  # fmt: skip
    assert (sound["alarm"], wrong["alarm"]) == (False, True)
    assert wrong["largest_log_e_value"] >= result.json["alarm_log_e_value"]
    assert sound["accepted_unreported"] == sound["accepted"] - sound["outcomes"] > 0
    low, high = wrong["predictions"]["mean_harm_interval"]
    assert low < wrong["predictions"]["mean_harm"] < high


def test_a_picture(cli, database, tmp_path):
    file = tmp_path / "calibration.png"
    assert cli("calibration", "--log", database, "--plot", file).code == 1
    assert file.read_bytes().startswith(b"\x89PNG")
    result = cli("calibration", "--log", database, "--plot", tmp_path / "no" / "picture.png")
    assert result.code == 2
    assert "cannot be written" in result.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(("--policy", "other"), "OTHER_POLICY"), (("--world", "other"), "LOG_EMPTY")],
)
def test_a_log_of_something_else_has_no_answer(cli, database, arguments, reason):
    result = cli("calibration", "--log", database, *arguments, "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] == reason


@pytest.mark.parametrize("alpha", ["0", "1", "nan"])
def test_a_level_that_is_none_is_a_wrong_command_line(cli, database, alpha):
    assert cli("calibration", "--log", database, "--alpha", alpha).code == 2


def test_a_damaged_record_is_a_no(cli, database, tmp_path):
    copy = tmp_path / "copy.db"
    source, target = sqlite3.connect(database), sqlite3.connect(copy)
    source.backup(target)
    target.execute("UPDATE observations SET content = replace(content, 'false', 'true') WHERE sequence = 7")
    target.commit()
    source.close()
    target.close()
    result = cli("calibration", "--log", copy, "--json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err)["error"]["reason"] == "STORE_CORRUPT"


def test_what_guarded_reports_is_joined(cli, service):
    """A real service and client: every call is checked, carried out and reported under its decision's id."""
    with guardrail.Client(service.target, timeout=20.0) as client:

        @client.guarded("coin", world="calibrated", report=lambda hurt: {"hurt": hurt})
        def throw(kind):
            return kind == "never"

        for _ in range(5):
            assert throw("low") is False
        with pytest.raises(guardrail.NoVerdict):
            throw("high")
        # Carried out without a report.
        assert client.check(policy="coin", world="calibrated", context={}, action={"kind": "low"}).accepted
    asked = ("calibration", "--log", service.store, "--policy", "coin", "--world", "calibrated", "--json")
    row, deadline = None, time.monotonic() + 60
    # Decisions are written a moment after they are answered.
    while (row is None or row["decisions"] < 7) and time.monotonic() < deadline:
        result = cli(*asked)
        row = result.json["worlds"][0] if result.json else None
    assert result.code == 0
    assert (row["decisions"], row["accepted"], row["accepted_unreported"]) == (7, 6, 1)
    assert (row["outcomes"], row["harms"], row["alarm"]) == (5, 0, False)
