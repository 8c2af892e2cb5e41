import json
import sqlite3
from contextlib import closing

import pytest

from guardrail import Guard
from guardrail.canonical import canonical_json, digest
from guardrail.policy import load_policy
from guardrail.store import open_store
from guardrail.store.base import DecisionRecord, NewObservation
from guardrail.store.decisions import LoggedDecision
from guardrail.store.records import decision_checksum

STEPS = 6


@pytest.fixture(scope="session")
def prior(policy_file):
    return Guard(load_policy(policy_file))


@pytest.fixture
def database(prior, tmp_path):
    """An honest log of two worlds; the second check of each step is one that no posterior is needed for."""
    path = tmp_path / "log.db"
    store = open_store(path)
    policy = prior.policy
    store.record_policy(policy.name, policy.revision, policy.document)
    for world in ("blue", "red"):
        guard = prior.fork(world=world)
        for step in range(STEPS):
            for context, action in (({}, {"kind": "high"}), ({"level": float("nan")}, {"kind": "low"})):
                verdict = guard.check(context, action)
                store.append_decisions([LoggedDecision(verdict, context, action, float(step)).to_record()])
            guard.observe({}, {"kind": "high"}, False)
            content = canonical_json({"action": {"kind": "high"}, "context": {}, "outcome": False})
            store.append_observations([NewObservation("coin", world, str(step), digest(content), content)])
    store.close()
    return path


def tamper(path, *, forge_checksum):
    """Turn a rejection into an accept, as somebody with write access to the file could."""
    connection = sqlite3.connect(path)
    row = connection.execute(
        "SELECT d.id, d.decision_id, w.policy, d.policy_revision, w.world, d.posterior_revision, d.request, d.verdict,"
        " d.decided_at FROM decisions d JOIN worlds w ON w.id = d.world_id WHERE d.decision = 'reject' LIMIT 1"
    ).fetchone()
    verdict = json.loads(row[7])
    verdict["decision"] = "accept"
    text = json.dumps(verdict, separators=(",", ":"))
    record = DecisionRecord(*row[1:6], "accept", row[6], text, row[8])
    connection.execute("UPDATE decisions SET decision = 'accept', verdict = ? WHERE id = ?", (text, row[0]))
    if forge_checksum:
        connection.execute("UPDATE decisions SET checksum = ? WHERE id = ?", (decision_checksum(record), row[0]))
    connection.commit()
    connection.close()
    return record.decision_id


def test_an_honest_log_has_no_difference(cli, database):
    result = cli("replay", "--store", database, "--json")
    assert result.code == 0
    assert result.json == {"decisions": 4 * STEPS, "differing": [], "damage": None}
    assert result.err == ""
    text = cli("replay", "--store", database)
    assert (text.code, text.out) == (0, f"{4 * STEPS} decisions recomputed, none differ\n")


def test_only_some_decisions_are_replayed(cli, database):
    result = cli("replay", "--store", database, "--policy", "coin", "--world", "red", "--json")
    assert (result.code, result.json["decisions"]) == (0, 2 * STEPS)
    assert cli("replay", "--store", database, "--policy", "nobody", "--json").json["decisions"] == 0


def test_a_tampered_decision_is_found(cli, database):
    victim = tamper(database, forge_checksum=True)
    result = cli("replay", "--store", database, "--json")
    assert result.code == 1
    assert result.json["decisions"] == 4 * STEPS
    (found,) = result.json["differing"]
    assert list(found) == ["decision_id", "policy", "policy_revision", "world", "posterior_revision", "differences"]
    assert found["decision_id"] == victim
    assert found["differences"] == [{"field": "decision", "logged": "accept", "recomputed": "reject"}]
    text = cli("replay", "--store", database)
    assert text.code == 1
    assert victim in text.out
    assert "decision: logged 'accept', recomputed 'reject'" in text.out
    assert text.out.endswith(f"{4 * STEPS} decisions recomputed, 1 differs\n")


def test_a_record_whose_checksum_does_not_fit_is_damage(cli, database):
    victim = tamper(database, forge_checksum=False)
    result = cli("replay", "--store", database, "--json")
    assert result.code == 1
    assert result.json["damage"]["reason"] == "STORE_CORRUPT"
    assert victim in result.json["damage"]["message"]
    text = cli("replay", "--store", database)
    assert text.code == 1
    assert text.err.startswith("error [STORE_CORRUPT]: ")


def test_a_tampered_observation_is_damage(cli, database):
    connection = sqlite3.connect(database)
    connection.execute("UPDATE observations SET content = replace(content, 'false', 'true') WHERE sequence = 3")
    connection.commit()
    connection.close()
    result = cli("replay", "--store", database, "--json")
    assert (result.code, result.json["damage"]["reason"]) == (1, "STORE_CORRUPT")


@pytest.mark.parametrize("content", [None, b"not a database, but long enough to be looked at"])
def test_without_a_readable_store_there_is_no_answer(cli, tmp_path, content):
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    result = cli("replay", "--store", path, "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] in ("STORE_UNAVAILABLE", "STORE_CORRUPT")


def test_the_log_of_a_running_service_replays(cli, service):
    for action in ('{"kind": "high"}', '{"kind": "low", "size": NaN}'):
        for world in ("replayed", "other"):
            asked = ["--policy", "coin", "--world", world, "--action", action, "--target", service.target]
            assert cli("check", *asked).code == 1
            assert cli("report", *asked[:4], "--action", '{"kind": "low"}', "--outcome", "false", *asked[6:]).code == 0
    result = cli("replay", "--store", service.store, "--json")
    assert result.code == 0, result.json
    assert result.json["differing"] == []


def test_the_store_may_be_postgresql_named_in_the_environment(cli, postgres_url, monkeypatch):
    with closing(open_store(postgres_url)):
        pass
    monkeypatch.setenv("GUARDRAIL_STORE", postgres_url)
    result = cli("replay")
    assert (result.code, result.out) == (0, "0 decisions recomputed, none differ\n")
    monkeypatch.setenv("GUARDRAIL_STORE", postgres_url.replace("@", "nonsense@"))
    result = cli("replay")
    assert result.code == 3
    assert "pass" not in result.err.replace("password", "")
