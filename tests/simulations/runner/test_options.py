"""Options from a configuration's fields, and configurations from options and files."""

import argparse
import importlib
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from simulations.__main__ import SUITES
from simulations.runner.errors import BadConfiguration
from simulations.runner.options import Parser, add_options, configuration
from simulations.runner.suite import SuiteConfig

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "simulations" / "configs"


class Config(SuiteConfig):
    runs: int = Field(10, ge=1, description="number of runs, 100% of them")
    alphas: Annotated[tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...], Field(min_length=1)] = Field(
        (0.1, 0.5), description="levels"
    )
    kinds: tuple[Literal["weak", "strong"], ...] = Field(("weak",), description="kinds")
    order: Literal["up", "down"] = Field("up", description="order")
    limit: float | None = Field(None, description="limit; default: none")
    running: bool = Field(True, description="running versions too")
    label: str = Field("x", description="label")

    @field_validator("kinds")
    @classmethod
    def _some(cls, kinds):
        if not kinds:
            raise ValueError("name at least one")
        return kinds

    @model_validator(mode="after")
    def _possible(self):
        if self.runs == 13:
            raise ValueError("13 runs bring bad luck; choose 12")
        return self


def parser():
    made = Parser(prog="toy", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=200))
    add_options(made.add_argument_group("parameters"), Config)
    return made


def config(*arguments, file=None):
    return configuration(Config, vars(parser().parse_args(list(arguments))), file)


@pytest.mark.parametrize(
    "spelling",
    [
        ["--alphas", "1e-5,3e-5"],
        ["--alphas", "1e-5", "3e-5"],
        ["--alphas", "1e-5", "--alphas", "3e-5"],
        ["--alphas=1e-5", "--alphas", "3e-5"],
        ["--alphas", "1e-5,", "3e-5"],
    ],
)
def test_lists_are_taken_in_every_usual_spelling(spelling):
    assert config(*spelling).alphas == (1e-5, 3e-5)


def test_values_get_their_types():
    made = config("--runs", "5", "--limit", "2", "--no-running", "--order", "down", "--label", "7", "--kinds", "strong")
    assert made == Config(runs=5, limit=2.0, running=False, order="down", label="7", kinds=("strong",))
    assert config("--running").running
    assert config("--limit=-1e-5").limit == -1e-5
    assert config() == Config()


def test_help_shows_every_field_with_its_type_and_default():
    text = " ".join(parser().format_help().split())
    for shown in (
        "--runs INT number of runs, 100% of them (default: 10)",
        "--alphas [NUMBER ...] levels (default: 0.1 0.5)",
        "--order {up,down} order (default: up)",
        "--limit NUMBER limit; default: none",
        "--running, --no-running running versions too (default: True)",
        "--label TEXT label (default: x)",
    ):
        assert shown in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "--runs: runs is 0; needs a number of at least 1"),
        (["--runs", "many"], "--runs: runs is 'many'; needs an integer"),
        (["--runs", "1.5"], "--runs: runs is '1.5'; needs an integer"),
        (["--alphas", "0.5", "2"], "--alphas: the value is 2.0; needs a number of at most 1.0"),
        (["--alphas"], "--alphas: alphas is a list; must not be empty"),
        (["--alphas="], "--alphas: alphas is a list; must not be empty"),
        (["--kinds"], "--kinds: name at least one"),
        (["--kinds", "weka"], "--kinds: the value is 'weka'; needs 'weak' or 'strong'; did you mean 'weak'?"),
        (["--order", "left"], "--order: order is 'left'; needs up or down"),
        (["--runs", "13"], "13 runs bring bad luck; choose 12"),
        (["--runs", "0", "--order", "left"], "needs a number of at least 1; --order: order is 'left'"),
        (["--alphas", "-1e-5"], "-1e-5 is not known here; a negative number is written --option=-1e-5"),
        (["--alpha", "1"], "--alpha is not known here; did you mean '--alphas'?"),
        (["noniid"], "noniid is not known here; options begin with --"),
    ],
)
def test_what_is_impossible_is_told_in_words(arguments, message):
    with pytest.raises(BadConfiguration) as caught:
        config(*arguments)
    assert message.replace("'", "") in str(caught.value).replace("'", "")
    assert "\n" not in str(caught.value)


def test_a_file_configures_and_options_win(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text("runs: 3\nalphas: [0.25, 1]\nlimit: null\nrunning: false\n")
    assert config(file=file) == Config(runs=3, alphas=(0.25, 1.0), running=False)
    assert config("--runs", "5", "--alphas", "1", file=file) == Config(runs=5, alphas=(1.0,), running=False)
    file.write_text("runs: 0\n")
    assert config("--runs", "5", file=file).runs == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("order: up\nrun: 3\n", "toy.yaml:2:1: unknown field run; did you mean runs?"),
        ("order: up\nruns: 0\n", "toy.yaml:2:7: runs is 0; needs a number of at least 1"),
        ('runs: "5"\n', "toy.yaml:1:7: runs is 5; needs an integer"),
        ("runs: true\n", "toy.yaml:1:7: runs is true; needs an integer"),
        ("alphas: [0.5, 2]\n", "toy.yaml:1:15: the value is 2; needs a number of at most 1.0"),
        ("alphas: []\n", "toy.yaml:1:9: alphas is a list; must not be empty"),
        ("alphas: 0.5\n", "toy.yaml:1:9: alphas is 0.5; needs a list"),
        ("\nkinds: []\n", "toy.yaml:2:8: kinds: name at least one"),
        ("runs: 1\nruns: 2\n", "toy.yaml:2:1: key runs is given twice, first in line 1; keep one"),
        ("alphas: [0.5\n", "not YAML"),
        ("- 3\n", "toy.yaml:1:1: needs a mapping of fields at the top"),
        ("runs: &a 3\n", "anchors"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path, text, message):
    file = tmp_path / "toy.yaml"
    file.write_text(text)
    with pytest.raises(BadConfiguration) as caught:
        config(file=file)
    told = str(caught.value).replace("'", "")
    assert message in told
    assert told.startswith(str(file))
    assert "\n" not in told


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_files_fit_the_suites_that_they_name(file):
    (command,) = re.findall(r"python -m simulations (\w+) --config (\S+)", file.read_text())
    assert Path(command[1]) == file.relative_to(ROOT)
    module, _, attribute = SUITES[command[0]].path.partition(":")
    assert configuration(getattr(importlib.import_module(module), attribute).config_type, {}, file)


def test_there_are_shipped_files():
    assert list(CONFIGS.glob("*.yaml"))
