"""`guardrail check --session` and `guardrail session`."""

import pytest
from budget_policies import HIGH, MID, SESSION, WINDOW, budgeted
from running_service import Service

from guardrail.server.settings import ServerSettings


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets")
    for name, budget in (("sessions", SESSION), ("windows", WINDOW)):
        (folder / name).mkdir()
        (folder / name / "policy.yaml").write_text(budgeted(name, budget))
    settings = ServerSettings(listen="127.0.0.1:0", policies=(folder,), store=folder / "guardrail.db")
    service = Service(settings).start()
    yield f"127.0.0.1:{service.port}"
    service.stop()


def check(cli, target, policy, *more, kind="mid"):
    return cli(
        "check", "--policy", policy, "--world", "w", "--action", f'{{"kind": "{kind}"}}', "--target", target, *more
    )


def test_a_session_is_spent_and_shown(cli, target):
    first = check(cli, target, "sessions", "--session", "s")
    assert first.code == 0
    assert "[##########..........] 0.25 of 0.5 spent of session s" in first.out
    assert check(cli, target, "sessions", "--session", "s", "--json").json["budget"]["spent"] == 0.5
    refused = check(cli, target, "sessions", "--session", "s")
    assert refused.code == 1
    assert "BUDGET_EXHAUSTED" in refused.out
    shown = cli("session", "sessions", "w", "s", "--target", target)
    assert "[####################] 0.5 of 0.5 spent of session s" in shown.out
    assert "confidence" in shown.out
    told = cli("session", "sessions", "w", "s", "--target", target, "--json").json
    assert (told["accepts"], told["budget"]["spent"], told["changed"]) == (2, 0.5, False)


def test_a_window_has_no_name(cli, target):
    assert check(cli, target, "windows").code == 0
    assert "0.25 of 0.5 spent of the window" in cli("session", "windows", "w", "--target", target).out


def test_a_session_that_never_was(cli, target):
    missing = cli("session", "sessions", "w", "never", "--target", target)
    assert missing.code == 3
    assert "SESSION_NOT_FOUND" in missing.err
    assert "SESSION_MISSING" in check(cli, target, "sessions").out


def test_in_process(cli, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(budgeted("sessions", SESSION))
    arguments = ("check", "--policy-file", str(path), "--actions", str([MID, MID, MID, HIGH]).replace("'", '"'))
    assert cli(*arguments, "--session", "s", "--json").json["allowed"] == [0, 1]
    assert cli(*arguments, "--json").json["allowed"] == []
