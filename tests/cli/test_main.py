import subprocess
import sys

import pytest

from guardrail.cli import main
from guardrail.errors import StoreError

COMMANDS = [
    ["serve"],
    ["check"],
    ["report"],
    ["worlds", "show"],
    ["worlds", "outcomes"],
    ["worlds", "reset"],
    ["session"],
    ["not-taken"],
    ["decisions", "list"],
    ["decisions", "show"],
    ["health"],
    ["top"],
    ["replay"],
    ["calibration"],
    ["audit", "verify"],
    ["audit", "head"],
    ["audit", "export"],
    ["policy", "lint"],
    ["policy", "test"],
    ["policy", "schema"],
    ["policy", "diff"],
    ["policy", "compare"],
    ["policy", "init"],
    ["policy", "reload"],
    ["approvals", "list"],
    ["approvals", "show"],
    ["approvals", "approve"],
    ["approvals", "deny"],
    ["callers", "check"],
    ["keys", "new"],
    ["keys", "signing"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(cli, command):
    result = cli(*command, "--help")
    assert result.code == 0
    assert f"Example: guardrail {' '.join(command)}" in result.out
    assert "--json" in result.out


def test_the_commands_are_those_that_are_documented(cli):
    from guardrail.cli.app import app

    names = {(c.name or c.callback.__name__,) for c in app.registered_commands}
    for group in app.registered_groups:
        names |= {(group.name, c.name or c.callback.__name__) for c in group.typer_instance.registered_commands}
    assert names == {tuple(c) for c in COMMANDS}


def test_the_help_says_what_exit_statuses_mean(cli):
    assert "Exit status: 0" in cli("--help").out


def test_the_version(cli):
    import guardrail

    assert cli("--version").out == f"guardrail {guardrail.__version__}\n"


def test_help_loads_no_numerics():
    code = "import sys, guardrail.cli.app; sys.exit(bool({'jax', 'torch', 'grpc', 'sqlalchemy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_get_it(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from guardrail.cli.main import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "")
    assert "error [MISSING_EXTRA]: " in result.stderr
    assert "guardrail[server]" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_that_lacks_a_library_says_how_to_get_it(policy_file):
    code = (
        "import sys; sys.modules['jax'] = None; from guardrail.cli.main import main; "
        f"sys.argv = ['guardrail', 'check', '--policy-file', {str(policy_file)!r}]; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "")
    assert "error [MISSING_EXTRA]: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("odd"), "error [INTERNAL]: RuntimeError: odd ("),
        (StoreError("full"), "error [STORE_UNAVAILABLE]: full"),
    ],
)
def test_an_unexpected_error_is_a_sentence(monkeypatch, capsys, error, told):
    def fail():
        raise error

    monkeypatch.setattr("guardrail.cli.app.app", fail)
    with pytest.raises(SystemExit) as status:
        main.main()
    assert status.value.code == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(told)
    assert len(captured.err.splitlines()) == 1
