import fcntl
import io
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from guardrail.store import open_store
from simulations.demo import __main__ as demo
from simulations.demo import bandit, challenger
from simulations.demo.service import DemoServiceError, service

FLIGHTS = demo.POLICIES[0].with_name("flights.csv")


def test_the_flights_are_the_record():
    temperatures = [66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58]
    damaged = {2, 9, 10, 11, 14, 21, 23}
    flights = challenger.read_flights(FLIGHTS)
    assert [f.joint_temperature_f for f in flights] == temperatures
    assert {f.number for f in flights if f.damaged} == damaged
    assert [f.number for f in flights] == list(range(1, 24))


def test_the_agent_expects_what_it_has_learned():
    agent = bandit.BoltzmannAgent(3, seed=0)
    weights, random = np.array([1.0, 0.0, 1.0]), np.random.default_rng(0)
    arms = np.eye(3)
    for _ in range(2_000):
        arm = arms[random.integers(3)]
        agent.learn(arm, float(arm @ weights + random.standard_normal()))
    chosen = [agent.choose(arms, (0, 1)) for _ in range(2_000)]
    # P(arm 0) = e^0.5 / (e^0.5 + 1) = 0.622, with a standard deviation of 0.011.
    assert abs(np.mean(np.array(chosen) == 0) - 0.622) < 0.05


def test_a_service_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(DemoServiceError, match="POLICY_INVALID"),
        service([tmp_path / "no.yaml"], tmp_path / "a.db", tmp_path / "log"),
    ):
        pass


@pytest.mark.slow
def test_the_demo_rejects_the_launch_and_stops_by_itself(tmp_path):
    command = [sys.executable, "-m", "simulations.demo", "--directory", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TERM")}
    environment["COLUMNS"] = "160"
    result = subprocess.run(command, capture_output=True, text=True, cwd=os.sep, env=environment, timeout=240)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    screen = result.stdout
    assert "\x1b" not in screen
    assert len(re.findall(r"^│ \d+ +│ \d\d ", screen, re.MULTILINE)) == 23
    launch = screen[screen.index("joint temperature 31 °F") :]
    for part in ("REJECT", "HARM_BOUND_ABOVE_REJECT", "predictive harm", "without guarantee", "cautious hypothesis"):
        assert part in launch
    assert re.search(r"confidence +0\.95", launch)
    assert "The launch at 31 °F: reject." in launch
    assert f"The bandit (seed {demo.SEED}): 25 pulls" in launch
    # The service is gone, and the printed commands work.
    open_store(tmp_path / "guardrail.db").close()
    commands = re.findall(r"^  (\S*guardrail (?:replay|decisions) .*)$", screen, re.MULTILINE)
    assert len(commands) == 2
    shown = [subprocess.run(c.split(), capture_output=True, text=True, cwd=os.sep) for c in commands]
    assert [s.returncode for s in shown] == [0, 0]
    assert shown[0].stdout == f"{2 * 12 + 25 * 10} decisions recomputed, none differ\n"
    assert "REJECT" in shown[1].stdout


@pytest.mark.slow
def test_a_launch_that_is_not_rejected_fails_the_demo(tmp_path, monkeypatch):
    policies = []
    for path in demo.POLICIES:
        text = path.read_text().replace(
            "reject_above: 0.5, escalate_above: 0.2", "reject_above: 1.0, escalate_above: 0.2"
        )
        folder = tmp_path / path.parent.name
        folder.mkdir()
        (folder / "policy.yaml").write_text(text)
        policies.append(folder / "policy.yaml")
    (policies[0].with_name("flights.csv")).write_text("\n".join(FLIGHTS.read_text().splitlines()[:3]))
    monkeypatch.setattr(demo, "POLICIES", tuple(policies))
    screen = io.StringIO()
    assert demo._run(tmp_path, demo.SEED, Console(file=screen, width=160)) == 1
    assert "the launch at 31 °F was not rejected but escalate" in screen.getvalue()


@pytest.mark.slow
def test_a_demo_that_is_told_to_stop_stops_its_service(tmp_path):
    command = [sys.executable, "-m", "simulations.demo", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "answers on" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    open_store(tmp_path / "guardrail.db").close()


def test_two_demos_do_not_share_a_directory(tmp_path):
    with (tmp_path / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "simulations.demo", "--directory", str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "")
    assert "another demo is running" in result.stdout
    assert not (tmp_path / "guardrail.db").exists()
