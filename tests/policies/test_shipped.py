"""The shipped policies: their suites pass and reach everything, and their READMEs say what happens."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from guardrail.cli.app import app
from guardrail.policy import load_policy
from guardrail.policy.lint import lint

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "policies"
NAMES = ("cliff-walking", "exploding-bandit", "frozen-lake", "oring-launch", "reactor-temperature", "tool-calls")
READMES = sorted([FOLDER / "README.md", *FOLDER.glob("*/README.md")])
BOUND = re.compile(r"(?<=harm bound )[0-9.e+-]+")


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    """Commands and paths of the READMEs are relative to the root."""
    monkeypatch.chdir(ROOT)


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(path):
    return [line[2:] for block in blocks(path, "console") for line in block.splitlines() if line.startswith("$ ")]


def test_these_are_all():
    assert tuple(sorted(path.parent.name for path in FOLDER.glob("*/policy.yaml"))) == NAMES
    assert [path.parent.name for path in READMES] == ["policies", *NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_is_named_as_its_folder_and_nothing_in_it_is_doubtful(name):
    policy = load_policy(FOLDER / name / "policy.yaml")
    assert policy.name == name
    assert lint(policy) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_suite_passes_reaches_everything_and_prints_what_the_readme_shows(name):
    command = f"guardrail policy test policies/{name}"
    (shown,) = (block for block in blocks(FOLDER / name / "README.md", "console") if command in block)
    # --strict fails if any rule or decision is not reached by a case.
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--strict"])
    assert done.exit_code == 0, done.stdout
    expected = shown.removeprefix(f"$ {command}\n")
    assert BOUND.sub("", done.stdout) == BOUND.sub("", expected)
    bounds = [[float(number) for number in BOUND.findall(text)] for text in (done.stdout, expected)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-3)
    # A missing field that a rule answers first cannot be reported as a missing feature.
    reasons = re.findall(r"no case reaches reason (\w+)", done.stdout)
    assert reasons == (["FEATURE_MISSING"] if name in ("oring-launch", "reactor-temperature") else [])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_command_of_a_readme_exists(readme):
    assert commands(readme)
    inline = re.findall(r"`(guardrail [^`]+)`", readme.read_text(encoding="utf-8"))
    for line in [*commands(readme), *inline]:
        program, *words = shlex.split(line)
        assert program in ("guardrail", "python")
        if program == "guardrail":
            words = arguments_of_a_command(words)
        assert all((ROOT / word).exists() for word in words), line


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_link_of_a_readme_leads_to_a_file(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8")):
        assert (readme.parent / target).is_file(), target


def test_the_commands_of_the_index_succeed():
    lint_all, test_all = commands(FOLDER / "README.md")
    assert lint_all == "guardrail policy lint policies"
    assert test_all == "guardrail policy test policies"  # each suite is run above
    done = CliRunner().invoke(app, [*shlex.split(lint_all)[1:], "--strict"])
    assert done.exit_code == 0, done.stdout


def test_the_program_in_the_oring_readme_rejects_the_launch(tmp_path, capsys):
    (program,) = blocks(FOLDER / "oring-launch" / "README.md", "python")
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    runpy.run_path(str(file))
    assert capsys.readouterr().out.startswith("reject the harm bound ")


@pytest.mark.parametrize("name", ["cliff-walking", "frozen-lake"])
def test_the_kernels_are_what_the_script_beside_them_prints(name, capsys):
    runpy.run_path(str(FOLDER / name / "make_kernels.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    assert printed in (FOLDER / name / "policy.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cliff-walking", "frozen-lake"])
def test_the_program_in_a_gridworld_readme_takes_a_checked_step(name, tmp_path, capsys):
    (program,) = blocks(FOLDER / name / "README.md", "python")
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    runpy.run_path(str(file))
    assert "'carried_out': " in capsys.readouterr().out


def test_the_index_names_the_thresholds_of_each_policy():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        spec = load_policy(FOLDER / name / "policy.yaml").spec
        assert (spec.bound.kind, spec.bound.delta) == ("ratio", 0.05)
        escalate = "never" if spec.decision.escalate_above is None else f"{spec.decision.escalate_above:g}"
        (row,) = (line for line in index.splitlines() if line.startswith(f"| [{name}]"))
        assert row.endswith(f"| {spec.decision.reject_above:g} | {escalate} |")


def arguments_of_a_command(words):
    """What is left of a command line after the command's name; fails if there is no such command."""
    command = get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, words[0]
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
    return [word for word in words if not word.startswith("-")]
