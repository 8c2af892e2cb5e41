"""A toy suite on the command line: in this process, or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from simulations.__main__ import Entry, main

HERE = Path(__file__).parent
SUITES = {"toy": Entry("toy_suite:SUITE", "sums of random numbers")}
PROGRAM = (
    "import sys; from simulations.__main__ import Entry, main; "
    "sys.exit(main(sys.argv[1:], {'toy': Entry('toy_suite:SUITE', 'sums of random numbers')}))"
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def environment(tmp_path):
    """Of processes that find the toy suite and leave the user's cache alone."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[2])])
    return os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def toy(work, monkeypatch, capsys):
    """Run `python -m simulations toy ...` in this process, without its process-wide settings."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr("simulations.runner.command.prepare_process", lambda device: None)

    def run(*arguments):
        capsys.readouterr()
        status = main(["toy", *map(str, arguments)], SUITES)
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def toy_process(work, environment):
    """Run `python -m simulations toy ...` in a process of its own; a negative status is the signal that ended it."""

    def run(*arguments, stdout=subprocess.PIPE):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "toy", *map(str, arguments)],
            cwd=work,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
