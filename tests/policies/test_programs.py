"""The shipped policies with programs: nothing in them is doubtful, and their suites print what their READMEs show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app
from guardrail.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "policies" / "programs"
NAMES = ("insulin-dosing", "reactor-kinetics", "refund-abuse", "robot-dynamics")
BOUND = re.compile(r"(?<=harm bound )[0-9.e+-]+")


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_these_are_all():
    assert tuple(sorted(path.parent.name for path in FOLDER.glob("*/policy.yaml"))) == NAMES
    index = (ROOT / "policies" / "README.md").read_text()
    for name in NAMES:
        assert load_policy(FOLDER / name / "policy.yaml").name == name
        assert f"[{name}](programs/{name}/README.md)" in index
        for target in re.findall(r"\]\(([^)#]+)\)", (FOLDER / name / "README.md").read_text()):
            assert (FOLDER / name / target).is_file(), target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_suite_passes_reaches_everything_and_prints_what_the_readme_shows(name):
    command = f"guardrail policy test policies/programs/{name}"
    (shown,) = re.findall(r"^```console\n(.*?)^```", (FOLDER / name / "README.md").read_text(), flags=re.M | re.S)
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--strict"])
    assert done.exit_code == 0, done.stdout
    expected = shown.removeprefix(f"$ {command}\n")
    assert BOUND.sub("", done.stdout) == BOUND.sub("", expected)
    numbers = [[float(number) for number in BOUND.findall(text)] for text in (done.stdout, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing_doubtful(name):
    done = CliRunner().invoke(app, ["policy", "lint", f"policies/programs/{name}", "--strict"])
    assert done.exit_code == 0, done.stdout
