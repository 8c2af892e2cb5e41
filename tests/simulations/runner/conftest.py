import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = "import sys; from simulations.__main__ import main; sys.exit(main(sys.argv[1:], {'toy': 'toy_suite:SUITE'}))"


class Ran:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr


@pytest.fixture
def toy(tmp_path):
    """Run `python -m simulations toy ...` in a process of its own, in an empty folder."""
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments):
        path = os.pathsep.join([str(HERE), str(HERE.parents[2])])
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "toy", *map(str, arguments)],
            cwd=work,
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200", "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Ran(done)

    run.work = work
    return run
