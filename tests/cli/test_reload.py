import json
import signal
import subprocess
import sys

import pytest


@pytest.fixture
def own_service(tmp_path, policy_file):
    """A service over a copy of the policy that the test may change."""
    (tmp_path / "policy.yaml").write_text(policy_file.read_text())
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += ["--policies", str(tmp_path / "policy.yaml"), "--store", str(tmp_path / "guardrail.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield json.loads(process.stdout.readline())["listen"], tmp_path / "policy.yaml"
        process.send_signal(signal.SIGTERM)


def test_a_changed_policy_is_loaded_and_a_broken_one_is_not(cli, own_service):
    target, path = own_service
    same = cli("policy", "reload", "--target", target, "--json")
    assert (same.code, same.json["changed"]) == (0, [])
    path.write_text(path.read_text().replace("delta: 0.05", "delta: 0.01"))
    changed = cli("policy", "reload", "--target", target)
    assert changed.code == 0
    assert "a new guarantee starts" in changed.out
    path.write_text(path.read_text().replace("delta: 0.01", "delta: 7"))
    broken = cli("policy", "reload", "--target", target, "--json")
    assert broken.code == 3
    assert json.loads(broken.err)["error"]["reason"] == "POLICY_INVALID"
    still = cli("policy", "reload", "--target", target, "--json")
    assert still.code == 3
