import json
import uuid

import pytest


@pytest.fixture
def report(cli, service):
    def run(world, outcome, *arguments):
        asked = ["report", "--policy", "coin", "--world", world, "--action", '{"kind": "high"}', "--outcome", outcome]
        return cli(*asked, "--target", service.target, *arguments)

    return run


def test_a_report_counts_once(report):
    world = f"once-{uuid.uuid4()}"
    first = report(world, '{"hurt": false}', "--observation-id", "a", "--json")
    assert first.code == 0
    assert first.json == {"observation_id": "a", "posterior_revision": 1, "duplicate": False, "generation": 1}
    again = report(world, '{"hurt": false}', "--observation-id", "a", "--json")
    assert again.json == {"observation_id": "a", "posterior_revision": 1, "duplicate": True, "generation": 1}
    other = report(world, "true", "--observation-id", "a")
    assert other.code == 3
    assert other.err.startswith("error [REPORT_CONFLICT]: ")


def test_a_fresh_id_is_said_before_the_call(report):
    text = report(f"fresh-{uuid.uuid4()}", "false")
    assert text.code == 0
    name = text.err.removeprefix("observation id ").strip()
    assert uuid.UUID(name)
    assert name in text.out
    as_json = report(f"fresh-{uuid.uuid4()}", "false", "--json")
    assert json.loads(as_json.err)["observation_id"] == as_json.json["observation_id"]


def test_what_does_not_fit_is_not_counted(report, cli, service):
    world = f"bad-{uuid.uuid4()}"
    for outcome in ("2", '"yes"', '{"hurt": null}', '{"other": true}', "NaN", "null"):
        result = report(world, outcome)
        assert (result.code, result.out) == (3, "")
        assert "error [" in result.err
        assert "Traceback" not in result.err
    assert report(world, "not json").code == 2
    assert cli("worlds", world, "--policy", "coin", "--target", service.target).code == 3


def test_a_report_moves_the_posterior(report, cli, service):
    world = f"moves-{uuid.uuid4()}"

    def bound():
        asked = ["check", "--policy", "coin", "--world", world, "--action", '{"kind": "high"}', "--json"]
        return cli(*asked, "--target", service.target).json["harm_bound"]

    before = bound()
    for _ in range(12):
        assert report(world, "false").code == 0
    assert bound() < before
