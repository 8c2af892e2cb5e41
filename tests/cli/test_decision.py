import json

import pytest


@pytest.fixture(scope="module")
def asked(service):
    from guardrail import Client

    with Client(service.target, timeout=20) as client:
        return client.check(
            policy="coin", world="decision", context={"level": float("nan")}, action={"kind": "low", "size": 1.0}
        )


def test_a_decision_is_explained(cli, service, asked):
    result = cli("decision", asked.decision_id, "--target", service.target, "--json")
    assert result.code == 0
    assert list(result.json) == ["verdict", "context", "action", "decided_at"]
    assert result.json["verdict"]["decision_id"] == asked.decision_id
    # NaN has no form in JSON; what was asked is shown all the same.
    assert result.json["context"] == {"level": "NaN"}
    text = cli("decision", asked.decision_id, "--target", service.target).out
    for part in ("REJECT", "NOT_FINITE", '{"level": "NaN"}', '{"kind": "low", "size": 1.0}'):
        assert part in text


def test_the_database_says_the_same_without_a_service(cli, policy_file, tmp_path):
    from guardrail import Guard
    from guardrail.records import verdict_to_dict
    from guardrail.store import open_store
    from guardrail.store.decisions import LoggedDecision

    action = {"kind": "low", "size": float("inf")}
    verdict = Guard.from_file(policy_file).check({}, action)
    store = open_store(tmp_path / "log.db")
    store.append_decisions([LoggedDecision(verdict, {}, action, 1.5).to_record()])
    store.close()
    result = cli("decision", verdict.decision_id, "--store", tmp_path / "log.db", "--json")
    assert result.code == 0
    assert result.json == {
        "verdict": verdict_to_dict(verdict),
        "context": {},
        "action": {"kind": "low", "size": "Infinity"},
        "decided_at": "1970-01-01T00:00:01.500000+00:00",
    }


@pytest.mark.parametrize("place", ["target", "store"])
def test_an_unknown_decision_is_an_error(cli, service, place):
    result = cli("decision", "nothing", f"--{place}", getattr(service, place), "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] == "DECISION_NOT_FOUND"


def test_a_store_that_is_not_there_is_an_error(cli, tmp_path):
    result = cli("decision", "nothing", "--store", tmp_path / "none.db")
    assert result.code == 3
    assert result.err.startswith("error [STORE_UNAVAILABLE]: ")
