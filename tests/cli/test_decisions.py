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
    result = cli("decisions", "show", asked.decision_id, "--target", service.target, "--json")
    assert result.code == 0
    assert list(result.json) == ["verdict", "context", "action", "decided_at", "caller", "generation"]
    assert result.json["verdict"]["decision_id"] == asked.decision_id
    # NaN has no form in JSON; what was asked is shown all the same.
    assert result.json["context"] == {"level": "NaN"}
    text = cli("decisions", "show", asked.decision_id, "--target", service.target).out
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
    store.append_decisions([LoggedDecision(verdict, {}, action, 1.5, "agent").to_record()])
    store.close()
    result = cli("decisions", "show", verdict.decision_id, "--store", tmp_path / "log.db", "--json")
    assert result.code == 0
    assert result.json == {
        "verdict": verdict_to_dict(verdict),
        "context": {},
        "action": {"kind": "low", "size": "Infinity"},
        "decided_at": "1970-01-01T00:00:01.500000+00:00",
        "caller": "agent",
        "generation": 1,
    }
    text = cli("decisions", "show", verdict.decision_id, "--store", tmp_path / "log.db").out.split()
    assert text[text.index("asked") : text.index("asked") + 3] == ["asked", "by", "agent"]
    assert "generation" not in text


@pytest.mark.parametrize("place", ["target", "store"])
def test_an_unknown_decision_is_an_error(cli, service, place):
    result = cli("decisions", "show", "nothing", f"--{place}", getattr(service, place), "--json")
    assert (result.code, result.out) == (3, "")
    assert json.loads(result.err)["error"]["reason"] == "DECISION_NOT_FOUND"


def test_a_store_that_is_not_there_is_an_error(cli, tmp_path):
    result = cli("decisions", "show", "nothing", "--store", tmp_path / "none.db")
    assert result.code == 3
    assert result.err.startswith("error [STORE_UNAVAILABLE]: ")


# ---------------------------------------------------------------- lists


@pytest.fixture(scope="module")
def many(service):
    """Ids of decisions in two worlds, in the order of time."""
    from guardrail import Client

    with Client(service.target, timeout=20) as client:
        return {
            world: [
                client.check(policy="coin", world=f"listed/{world}", context={}, action=action).decision_id
                for action in ({"kind": "low"}, {"kind": "high"}, {"kind": "low", "size": 6.0})
            ]
            for world in ("red", "blue")
        }


def test_decisions_are_listed_newest_first(cli, service, many):
    result = cli("decisions", "list", "--world", "listed/red", "--target", service.target, "--json")
    assert (result.code, list(result.json)) == (0, ["decisions"])
    found = result.json["decisions"]
    assert [one["verdict"]["decision_id"] for one in found] == many["red"][::-1]
    assert found[0] == cli("decisions", "show", many["red"][-1], "--target", service.target, "--json").json
    both = cli("decisions", "list", "--policy", "coin", "--limit", 6, "--target", service.target, "--json").json
    assert [one["verdict"]["decision_id"] for one in both["decisions"]] == [*many["blue"][::-1], *many["red"][::-1]]
    text = cli("decisions", "list", "--world", "listed/blue", "--limit", 3, "--target", service.target).out
    lines = [line.split() for line in text.splitlines()]
    assert [(line[2], line[3]) for line in lines] == list(
        zip(many["blue"][::-1], ["escalate", "reject", "accept"], strict=True)
    )
    assert lines[0][5:7] == ["coin", "listed/blue"]
    assert text.splitlines()[0].endswith('{"kind": "low", "size": 6.0}  {}')
    assert "SHADOW" not in text


def test_no_decisions_are_no_error(cli, service):
    arguments = ("decisions", "list", "--policy", "nobody", "--target", service.target)
    assert cli(*arguments, "--json").json == {"decisions": []}
    text = cli(*arguments)
    assert (text.code, text.out, text.err) == (0, "", "nothing was decided\n")


def test_what_shadow_mode_let_through_is_marked(cli, policy_file, tmp_path, monkeypatch):
    """Nobody takes what was only watched for an accept, nor for a rejection that kept anything from happening."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from guardrail import Decision, Guard
    from guardrail.client.results import LoggedDecision
    from guardrail.client.sync import Client

    rejected = Guard.from_file(policy_file).check({}, {"kind": "high"})
    watched = replace(rejected, decision=Decision.ACCEPT, shadow=True, enforced_decision=Decision.REJECT)
    logged = [LoggedDecision(one, {}, {}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) for one in (watched, rejected)]
    monkeypatch.setattr(Client, "decisions", lambda self, *of, limit: iter(logged))
    lines = cli("decisions", "list").out.splitlines()
    assert [line.split()[3:5] for line in lines] == [["SHADOW", "reject"], ["reject", f"{rejected.harm_bound:.4g}"]]
    assert lines[0].startswith("2026-01-02 03:04:05  ")
    assert lines[0].index("reject") == lines[1].index("reject")
