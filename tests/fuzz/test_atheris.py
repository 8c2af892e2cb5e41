"""Each fuzz target, guided by coverage, for a while with a fixed seed: nothing breaks it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fuzz_targets import ROOT, TARGETS

SECONDS = 15


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_found_breaks_the_target(target, tmp_path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or system")
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), target, "--seconds", str(SECONDS)]
    result = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-5_000:]
    assert "DONE" in result.stderr, result.stderr[-5_000:]
    runs = int(result.stderr.rpartition("stat::number_of_executed_units:")[2].split()[0])
    assert runs > 200
