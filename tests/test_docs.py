"""Documentation that cannot rot: its commands are run, its Python compiles, its tables match the code."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from guardrail import errors
from guardrail.cli.app import app
from guardrail.server.reasons import REASONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PORT = "7410"


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands(text):
    return [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]


def test_every_python_block_compiles():
    for block in blocks(README, "python"):
        ast.parse(block)


def test_the_python_of_the_page_on_logs_runs():
    (block,) = blocks((ROOT / "docs" / "logs.md").read_text(), "python")
    exec(compile(block, "docs/logs.md", "exec"), {})


def test_the_example_policy_loads():
    from guardrail.policy import parse_policy

    (document,) = blocks(README, "yaml")
    assert parse_policy(document).name == "oring-launch"


def test_every_reason_of_an_error_is_documented_unless_no_caller_can_see_it():
    reasons = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    not_sent = {"NO_VERDICT", "SERVICE_ERROR", "MISSING_EXTRA", "SNAPSHOT_INVALID", "STORE_SCHEMA_MISMATCH"}
    not_sent.add("DEADLINE_EXCEEDED")  # the transport has told the caller before
    assert reasons - not_sent <= REASONS.keys()


def test_every_command_of_the_cli_is_documented():
    named = " ".join([README, *(p.read_text() for p in ROOT.glob("policies/**/README.md"))])
    for name, command in get_command(app).commands.items():
        for sub in [None, *getattr(command, "commands", ())]:
            words = f"guardrail {name}" if sub is None else f"{name} {sub}"
            assert words in named, f"no documentation names `{words}`"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"(?:`|^|\$ )make ([a-z-]+)", README, flags=re.M)) <= targets


@pytest.mark.slow
def test_the_tour_runs_as_written(tmp_path):
    """Every console command of the README, in order, in a copy of the shipped files."""
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m guardrail.cli.main "$@"\n'
    (bin_folder / "guardrail").write_text(script)
    (bin_folder / "guardrail").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    serve = [".venv/bin/guardrail", "serve", "--json", "--listen", f"127.0.0.1:{PORT}"]
    serve += ["--policies", "policies", "--store", "var/guardrail.db"]
    server, output = None, {}
    try:
        for command in commands(README):
            if command == "make serve":
                server = subprocess.Popen(
                    serve, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                assert json.loads(server.stdout.readline())["event"] == "serving"
                continue
            if " replay " in command and server is not None:
                server.send_signal(signal.SIGINT)
                assert server.wait(60) == 0
            done = subprocess.run(command, cwd=tmp_path, env=environment, shell=True, capture_output=True, text=True)
            assert "Traceback" not in done.stderr, done.stderr
            assert done.returncode == (1 if " check " in command else 0), (command, done.stdout, done.stderr)
            output[command] = done.stdout
    finally:
        if server is not None:
            server.kill()
            server.communicate()
    assert any("reject" in text.lower() for text in output.values())
