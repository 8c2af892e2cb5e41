"""`guardrail top` against a real service."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import guardrail
from guardrail.server.security.keys import hash_line, new_key


class Top:
    """`guardrail top --json` in a process of its own; its frames are waited for."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "guardrail.cli.main", "top", "--json", "--interval", "0.2", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._guard = threading.Timer(90, self.process.kill)
        self._guard.start()

    def until(self, condition):
        """The first frame of which a condition holds."""
        for line in self.process.stdout:
            frame = json.loads(line)
            if condition(frame):
                return frame
        raise AssertionError(f"no such frame came: {self.process.stderr.read()}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=30)
        self._guard.cancel()
        return self.process.returncode, err


@pytest.fixture
def top():
    started = []

    def start(*arguments):
        started.append(Top(*arguments))
        return started[-1]

    yield start
    for each in started:
        each._guard.cancel()
        each.process.kill()
        each.process.communicate()


def check(target, world="w", **action):
    with guardrail.Client(target, timeout=20) as client:
        return client.check(policy="coin", world=world, context={}, action=action)


def test_it_sees_decisions_and_comes_back_after_a_restart(top, service_parts, policy_file, tmp_path):
    start, stop = service_parts
    process, serving = start(policy_file, tmp_path / "a.db")
    target = serving["listen"]
    shown = top("--target", target)
    frame = shown.until(lambda f: f["link"]["connected"])
    assert frame["health"][""] == "SERVING"
    assert [p["policy"] for p in frame["policies"]] == ["coin"]
    verdict = check(target, kind="low", size=20.0)
    frame = shown.until(lambda f: f["seen"])
    assert frame["policies"][0]["reject"] == 1
    assert frame["worlds"] == [{"policy": "coin", "world": "w", "decisions": 1, "notices": []}]
    (decision,) = frame["decisions"]
    assert decision["decision_id"] == verdict.decision_id
    assert (decision["decision"], decision["reason"]) == ("reject", "RULE_MATCHED")
    assert stop(process)[0] == 0
    frame = shown.until(lambda f: not f["link"]["connected"])
    assert frame["link"]["why"]
    assert frame["decisions"]
    process, _ = start(policy_file, tmp_path / "a.db", "--listen", target)
    frame = shown.until(lambda f: f["link"]["connected"])
    assert frame["link"]["reconnects"] == 1
    check(target, kind="low")
    assert shown.until(lambda f: f["seen"] == 2)["policies"][0]["accept"] == 1
    assert shown.stop() == (0, "")
    assert stop(process)[0] == 0


def test_filters(top, service):
    shown = top("--target", service.target, "--policy", "coin", "--world", "mine")
    shown.until(lambda f: f["link"]["connected"])
    check(service.target, "other", kind="low")
    check(service.target, "mine", kind="low")
    frame = shown.until(lambda f: f["seen"])
    assert [d["world"] for d in frame["decisions"]] == ["mine"]
    assert (
        top("--target", service.target, "--policy", "absent").until(lambda f: f["link"]["connected"])["policies"] == []
    )


def test_in_a_pipe_it_prints_one_frame(cli, service):
    result = cli("top", "--target", service.target, "--interval", "0.2")
    assert result.code == 0
    assert "connected for" in result.out
    assert "service serving" in result.out
    assert "\x1b" not in result.out
    assert cli("top", "--once", "--json", "--target", service.target, "--interval", "0.2").json["link"]["connected"]


def test_without_a_service_the_frame_says_so(cli):
    result = cli("top", "--once", "--target", "127.0.0.1:1", "--interval", "0.1", "--deadline", "0.5")
    assert result.code == 3
    assert "NOT CONNECTED" in result.out


def test_in_a_terminal_it_draws_until_ctrl_c_and_leaves_the_terminal_as_it_was(service):
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "guardrail.cli.main", "top", "--target", service.target, "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=environment)
    os.close(terminal)
    guard = threading.Timer(60, process.kill)
    guard.start()
    shown = b""
    while b"connected for" not in shown:
        shown += os.read(controller, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while piece := os.read(controller, 65536):
            shown += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    assert process.communicate()[1] == b""
    guard.cancel()
    os.close(controller)
    assert process.returncode == 0
    assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == 1


def test_who_may_not_look_is_told_so(cli, service_parts, policy_file, tmp_path, monkeypatch):
    start, stop = service_parts
    viewer, agent = new_key(), new_key()
    callers = tmp_path / "callers.yaml"
    callers.write_text(
        "schema: guardrail/callers/v1\ncallers:\n"
        + "".join(
            f"  - name: {role}\n    keys: ['{hash_line(key)}']\n"
            f"    grants: [{{roles: [{role}], policies: ['*'], worlds: ['*']}}]\n"
            for role, key in (("viewer", viewer), ("agent", agent))
        )
    )
    process, serving = start(policy_file, tmp_path / "a.db", "--callers", str(callers))
    arguments = ("top", "--once", "--json", "--interval", "1", "--target", serving["listen"])
    for key, code, reason in (
        (None, 3, "CREDENTIALS_MISSING"),
        (agent, 3, "PERMISSION_DENIED"),
        (viewer, 0, None),
    ):
        if key is not None:
            monkeypatch.setenv("GUARDRAIL_TOKEN", key)
        result = cli(*arguments)
        assert result.code == code
        if reason is None:
            assert result.json["link"]["connected"]
        else:
            assert json.loads(result.err)["error"]["reason"] == reason
    assert stop(process)[0] == 0
