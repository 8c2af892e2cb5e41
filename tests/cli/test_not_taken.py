"""`guardrail not-taken`, and what `guardrail worlds show` says of outcomes that are owed."""

import pytest
from running_service import Service
from timed_policies import timed

from guardrail.cli.worlds import awaited_lines
from guardrail.client.results import AwaitedOutcomes
from guardrail.server.settings import ServerSettings


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    (folder / "strict").mkdir()
    (folder / "strict" / "policy.yaml").write_text(timed("strict"))
    service = Service(ServerSettings(listen="127.0.0.1:0", policies=(folder,), store=folder / "guardrail.db")).start()
    yield f"127.0.0.1:{service.port}"
    service.stop()


def accepted(cli, target, world):
    found = cli(
        "check", "--policy", "strict", "--world", world, "--action", '{"kind": "low"}', "--target", target, "--json"
    )
    assert found.code == 0
    return found.json["decision_id"]


def test_what_was_not_taken_is_awaited_no_longer(cli, target):
    one, two = (accepted(cli, target, "w") for _ in range(2))
    shown = cli("worlds", "show", "w", "--policy", "strict", "--target", target)
    assert "2, each within 600 s of its decision" in shown.out
    assert "overdue" not in shown.out
    assert ["strict", "0", "w"] in [line.split() for line in cli("worlds", "--target", target).out.splitlines()]
    said = cli("not-taken", "strict", "w", one, two, "--target", target)
    assert said.code == 0
    assert "2 of 2 outcomes were awaited, and are not any more\n" in said.out  # the service's log is beside it
    assert cli("not-taken", "strict", "w", one, "--target", target, "--json").json == {"released": 0}


def test_an_unknown_decision_is_an_error(cli, target):
    said = cli("not-taken", "strict", "w", "none", "--target", target)
    assert said.code == 3
    assert "was ever awaited" in said.err


def test_overdue_outcomes_are_shown_with_their_decisions():
    from datetime import UTC, datetime

    due = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    lines = awaited_lines(AwaitedOutcomes(600.0, "reject", 1, 3, due, ("a", "b"), 2))
    assert lines == [
        ("outcomes awaited", "1, each within 600 s of its decision"),
        ("outcomes overdue", "3 since 2026-01-02T03:04:05+00:00 (reject)"),
        ("of decisions", "a"),
        ("", "b"),
        ("", "and 1 more"),
        ("taken for harm", "2 outcomes that nobody reported in time"),
    ]
