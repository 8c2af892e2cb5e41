"""Chunks on Ray: the same table, whatever happens to workers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from simulations.runner.errors import NoDevice, RayUnavailable
from simulations.runner.on_ray import _import_path, _workers

ray_runs = pytest.mark.slow


def descendants_named(name):
    """Processes of this test, under any parent, whose command line holds a name."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    line = file.read()
            except OSError:
                continue
            if name in line:
                found.append(line)
    return found


@ray_runs
def test_ray_gives_the_same_bytes_though_a_worker_is_killed(toy_process, work):
    (work / "marks").mkdir()
    here = toy_process("--csv", "-", "--quiet", "--chunks", "6").out
    options = ["--chunks", "6", "--marks", work / "marks", "--killed-at", "3", "--output", "run"]
    ran = toy_process("--ray", "local", "--csv", "-", *options)
    assert ran.status == 0, ran.err
    assert ran.out == here
    assert (work / "run" / "rows.csv").read_text() == here
    assert "60 of 60 numbers" in ran.err
    marks = sorted(mark.name for mark in (work / "marks").iterdir())
    assert marks == ["0.0", "1.0", "2.0", "3.0", "3.1", "4.0", "5.0"], (
        "only the chunk whose worker was killed ran twice"
    )
    results = sorted((work / "run" / "chunks").glob("*.npz"))
    assert [path.stem for path in results] == [f"part-{place}" for place in range(6)]
    for path in results:
        assert np.load(path)["processors"], "a worker computes with the one CPU of its task"
    assert descendants_named(str(work).encode()) == [], "Ray is shut down"


@ray_runs
def test_ray_goes_on_where_a_local_run_stopped(toy_process, work):
    (work / "marks").mkdir()
    options = ["--marks", work / "marks", "--killed-at", "2", "--output", "run", "--csv", "-"]
    assert toy_process(*options).status < 0
    ran = toy_process(*options, "--ray", "local")
    assert ran.status == 0, ran.err
    assert "going on: 2 of 4 chunks are there already" in ran.err
    assert sorted(mark.name for mark in (work / "marks").iterdir()) == ["0.0", "1.0", "2.0", "2.1", "3.0"]
    assert ran.out == toy_process("--csv", "-", "--quiet").out


@ray_runs
def test_an_error_on_a_worker_is_one_sentence(toy_process):
    ran = toy_process("--ray", "local", "--fails-at", "1", "--quiet")
    assert ran.status == 2
    assert ran.err.startswith("error [CHUNK_FAILED]: chunk part-1 failed: ValueError: the sum is too hard (")
    assert "toy_suite.py:" in ran.err
    assert ran.err.count("\n") == 1


@ray_runs
def test_a_gpu_that_ray_lacks_is_told_at_once(toy_process, environment):
    environment["CUDA_VISIBLE_DEVICES"] = ""
    ran = toy_process("--ray", "local", "--device", "gpu", "--quiet")
    assert (ran.status, ran.err) == (2, "error [NO_DEVICE]: Ray at local has no GPU; use --device cpu\n")


def test_no_ray_at_the_address_is_told_at_once(toy_process):
    ran = toy_process("--ray", "127.0.0.1:1", "--quiet")
    assert ran.status == 2
    assert ran.err.startswith("error [RAY_UNAVAILABLE]: no Ray at 127.0.0.1:1: ")
    assert ran.err.count("\n") == 1


def test_without_ray_installed_it_says_what_to_install(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = toy("--ray", "local")
    assert ran.status == 2
    assert (
        ran.err.splitlines()[-1] == "error [MISSING_EXTRA]: --ray needs the 'sim' extra: pip install 'guardrail[sim]'"
    )


def test_resources_say_how_many_tasks_run_at_once():
    cpu, gpu = {"CPU": 1}, {"CPU": 1, "GPU": 1}
    assert _workers({"CPU": 8.0}, cpu, "x") == 8
    assert _workers({"CPU": 8.0, "GPU": 2.0}, gpu, "x") == 2
    with pytest.raises(NoDevice):
        _workers({"CPU": 8.0}, gpu, "x")
    with pytest.raises(RayUnavailable):
        _workers({"CPU": 0.5}, cpu, "x")


def test_workers_import_the_project_and_not_another_ones_library(environment):
    code = "import json; from simulations.runner.on_ray import _import_path as p; print(json.dumps(p()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    folders = json.loads(done.stdout)
    assert set(environment["PYTHONPATH"].split(os.pathsep)) <= set(folders)
    assert not any("site-packages" in folder or folder.endswith("lib-dynload") for folder in folders)
    assert _import_path()
