"""A real service in a subprocess, and the command line in this process and in others."""

import json
import os
import select
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app

POLICY = """\
schema: guardrail/v1
name: coin
description: Three coins; an action picks how it is thrown.
context:
  level: {type: number, optional: true}
action:
  kind: string
  size: {type: number, optional: true}
hypotheses:
  family: finite-table
  category: action.kind
  table:
    - {name: fair, prior: 0.5, rates: {low: 0.02, high: 0.5}}
    - {name: mild, prior: 0.3, rates: {low: 0.01, high: 0.1}}
    - {name: wild, prior: 0.2, rates: {low: 0.04, high: 0.9}}
outcome: {name: hurt, type: bool}
harm: outcome.hurt
bound: {kind: ratio, delta: 0.05, running: true}
decision: {reject_above: 0.2, escalate_above: 0.06}
rules:
  - when: has(action.size) && action.size > 10.0
    decide: reject
    reason: too large
  - when: has(action.size) && action.size > 5.0
    decide: escalate
    reason: large
"""


@pytest.fixture(autouse=True)
def no_target_from_outside(monkeypatch):
    for name in ("TARGET", "TOKEN", "TOKEN_FILE", "TLS_CA", "TLS_CERT", "TLS_KEY"):
        monkeypatch.delenv(f"GUARDRAIL_{name}", raising=False)
    # Help and errors are not broken into short lines.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="session")
def policy_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def cli():
    """Run a command in this process; `.json` is what it printed, as JSON."""

    def run(*arguments, **options):
        result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="guardrail", **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        lines = result.stdout.splitlines()
        parsed = json.loads(result.stdout) if "--json" in arguments and len(lines) == 1 else None
        return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr, json=parsed)

    return run


def start(policies, store, *extra):
    """Start `guardrail serve --json` on a free port; the process and its serving line (None if it ended)."""
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += ["--policies", str(policies), "--store", str(store), *extra]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=os.sep)
    readable, _, _ = select.select([process.stdout], [], [], 120)
    line = process.stdout.readline() if readable else ""
    return process, json.loads(line) if line else None


def stop(process):
    """Stop a service; its exit status, and the rest of its stdout and stderr."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def service_parts():
    """`start` and `stop`, for tests that want a service of their own."""
    return start, stop


@pytest.fixture(scope="session")
def service(policy_file, tmp_path_factory):
    store = tmp_path_factory.mktemp("service") / "guardrail.db"
    process, serving = start(policy_file, store)
    if serving is None:
        pytest.fail(process.communicate()[1])
    yield SimpleNamespace(target=serving["listen"], store=store)
    status, out, err = stop(process)
    assert (status, out) == (0, ""), err
    assert "Traceback" not in err
