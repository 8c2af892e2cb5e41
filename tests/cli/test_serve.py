import json
import signal
import subprocess
import sys
import time

import pytest

import guardrail

COMMAND = [sys.executable, "-m", "guardrail.cli.main", "serve"]


def run(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_it_serves_until_it_is_told_to_stop(service_parts, policy_file, tmp_path):
    start, stop = service_parts
    process, serving = start(policy_file, tmp_path / "a.db", "--snapshot-every", "5", "--drain-seconds", "1")
    assert list(serving) == ["event", "listen", "port", "pid"]
    assert serving["listen"] == f"127.0.0.1:{serving['port']}"
    assert serving["pid"] == process.pid
    status, out, err = stop(process)
    assert (status, out) == (0, "")
    events = [json.loads(line) for line in err.splitlines()]
    start = ["callers_not_told_apart", "decisions_unsigned", "policy_loaded", "serving"]
    assert [e["event"] for e in events] == [*start, "draining"]
    assert all({"event", "level", "timestamp"} <= e.keys() for e in events)


def test_hanging_up_reads_the_policies_again(service_parts, policy_file, tmp_path):
    start, stop = service_parts
    good, mine = policy_file.read_text(), tmp_path / "policy.yaml"
    mine.write_text(good)
    process, serving = start(mine, tmp_path / "a.db")
    with guardrail.Client(serving["listen"], timeout=20) as client:
        (policy,) = client.policies()

        def until(condition):
            deadline = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < deadline

        def notices():
            return client.check(policy=policy.name, world="w", context={}, action={}).notices

        mine.write_text("no policy")
        process.send_signal(signal.SIGHUP)
        until(notices)
        mine.write_text(good.replace("delta: 0.05", "delta: 0.04"))
        process.send_signal(signal.SIGHUP)
        until(lambda: not notices())
        assert client.policy(policy.name).revision != policy.revision
    status, _, err = stop(process)
    assert status == 0
    assert {"policies_not_reloaded", "policies_reloaded"} <= {json.loads(line)["event"] for line in err.splitlines()}


def test_a_store_has_one_service(service, policy_file):
    result = run("--policies", policy_file, "--store", service.store, "--listen", "127.0.0.1:0")
    assert (result.returncode, result.stdout) == (3, "")
    assert "error [STORE_UNAVAILABLE]: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_that_is_taken_is_an_error(service, policy_file, tmp_path):
    result = run("--policies", policy_file, "--store", tmp_path / "b.db", "--listen", service.target)
    assert (result.returncode, result.stdout) == (3, "")
    assert "error [NOT_SERVING]: " in result.stderr
    assert "Traceback" not in result.stderr


def test_policies_that_are_wrong_do_not_start(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("schema: guardrail/v1\nname: coin\n")
    result = run("--policies", file, "--store", tmp_path / "c.db", "--listen", "127.0.0.1:0", "--json")
    assert (result.returncode, result.stdout) == (3, "")
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["reason"] == "POLICY_INVALID"
    assert error["problems"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nonsense"],
        ["--metrics", "nonsense"],
        ["--max-pending-calls", "0"],
        ["--max-checks-in-flight", "0"],
        ["--max-check-wait-seconds", "0"],
        ["--max-connection-age-seconds", "0"],
        ["--stall-seconds", "nan"],
        ["--snapshot-every", "0"],
        ["--max-request-bytes", "1"],
        ["--drain-seconds", "nan"],
        ["--listen", ":7410"],
    ],
)
def test_impossible_settings_are_a_wrong_command_line(cli, policy_file, tmp_path, arguments):
    result = cli("serve", "--policies", policy_file, "--store", tmp_path / "d.db", *arguments)
    assert (result.code, result.out) == (2, "")
    assert arguments[0] in result.err
    assert not (tmp_path / "d.db").exists()


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["--listen", "0.0.0.0:7410"], "--tls-certificate"),
        (["--tls-key", "key.pem"], "--tls-certificate"),
        (["--client-ca", "ca.pem"], "--tls-certificate"),
        (["--callers", "callers.yaml"], "callers.yaml"),
    ],
)
def test_partial_security_settings_do_not_start(cli, policy_file, tmp_path, arguments, missing):
    result = cli("serve", "--json", "--policies", policy_file, "--store", tmp_path / "d.db", *arguments)
    assert (result.code, result.out) == (3, "")
    error = json.loads(result.err.splitlines()[-1])["error"]
    assert error["reason"] == "SECURITY_INVALID"
    assert missing in error["message"]
    assert not (tmp_path / "d.db").exists()
