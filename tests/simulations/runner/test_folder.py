"""Output folders: going on after a kill, and what is refused."""

import fcntl
import hashlib
import io
import json
import signal

import numpy as np
import pytest

import guardrail
from simulations.runner import folder as folders
from simulations.runner.errors import CorruptResult, OtherConfiguration, OutputInUse, UnwritableOutput
from simulations.runner.folder import open_folder


def marks(work):
    return sorted(mark.name for mark in (work / "marks").iterdir())


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_killed_run_goes_on_where_it_stopped(toy_process, work):
    (work / "marks").mkdir()
    options = ["--output", "run", "--marks", "marks", "--killed-at", "2"]
    assert toy_process(*options).status == -signal.SIGKILL
    assert marks(work) == ["0.0", "1.0", "2.0"]
    assert not (work / "run" / "rows.csv").exists()

    ran = toy_process(*options)
    assert ran.status == 0
    assert "going on: 2 of 4 chunks are there already\n" in ran.err
    assert marks(work) == ["0.0", "1.0", "2.0", "2.1", "3.0"], "a chunk that was done is not done again"
    uninterrupted = toy_process("--csv", "-", "--quiet").out
    assert (work / "run" / "rows.csv").read_text() == uninterrupted


def test_a_finished_run_is_only_put_together_again(toy, work):
    (work / "marks").mkdir()
    first = toy("--output", "run", "--marks", "marks", "--json")
    again = toy("--output", "run", "--marks", "marks", "--json")
    assert again.out == first.out
    assert marks(work) == ["0.0", "1.0", "2.0", "3.0"]


def test_the_configuration_is_kept_in_full(toy, work):
    toy("--output", "run", "--factors", "3", "--quiet")
    kept = json.loads((work / "run" / "config.json").read_text())
    assert (kept["suite"], kept["format"], kept["version"]) == ("toy", 1, guardrail.__version__)
    assert kept["config"]["factors"] == [3.0]
    assert kept["config"]["chunks"] == 4


def test_another_configuration_is_refused_and_nothing_is_touched(toy, work):
    toy("--output", "run")
    before = contents(work)
    ran = toy("--output", "run", "--seed", "1", "--factors", "3")
    assert ran.status == 2
    assert ran.err == (
        "error [OTHER_CONFIGURATION]: run holds results of another configuration "
        "(factors [1.0, 2.0] there, [3.0] here, seed 0 there, 1 here); choose another --output\n"
    )
    assert contents(work) == before


@pytest.mark.parametrize(("key", "value"), [("suite", "noniid"), ("format", 0), ("version", "0.0.9")])
def test_another_suite_format_or_version_is_refused(toy, work, key, value):
    toy("--output", "run")
    file = work / "run" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    before = contents(work)
    ran = toy("--output", "run")
    assert ran.status == 2
    assert f"OTHER_CONFIGURATION]: run holds results of another configuration ({key} {value!r} there, " in ran.err
    assert contents(work) == before


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "another file", "no checksum", "pickle"])
def test_a_damaged_result_is_named_and_nothing_is_overwritten(toy, work, damage):
    uninterrupted = toy("--csv", "-", "--output", "run").out
    file = work / "run" / "chunks" / "part-1.npz"
    checksum = file.with_name("part-1.npz.sha256")
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:-9])
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "another file":
        file.write_bytes((work / "run" / "chunks" / "part-2.npz").read_bytes())
    elif damage == "no checksum":
        checksum.unlink()
    else:
        buffer = io.BytesIO()
        np.savez(buffer, sum=np.array([print], dtype=object))
        file.write_bytes(buffer.getvalue())
        checksum.write_text(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  part-1.npz\n")
    before = contents(work)
    ran = toy("--output", "run")
    assert ran.status == 2
    assert ran.err.startswith("error [CORRUPT_RESULT]: run/chunks/part-1.npz is damaged (")
    assert ran.err.endswith("; delete this file and run again, the rest is kept\n")
    assert contents(work) == before

    file.unlink()
    assert toy("--csv", "-", "--output", "run").out == uninterrupted


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1}', b"[" * 10**5])
def test_a_damaged_configuration_is_refused(toy, work, content):
    toy("--output", "run")
    (work / "run" / "config.json").write_bytes(content)
    before = contents(work)
    ran = toy("--output", "run")
    assert ran.status == 2
    assert ran.err.startswith("error [CORRUPT_RESULT]: run/config.json is damaged (")
    assert contents(work) == before


def test_results_without_a_configuration_are_refused(toy, work):
    toy("--output", "run")
    for name in ("config.json", "rows.csv", "rows.json"):
        (work / "run" / name).unlink()
    ran = toy("--output", "run")
    assert "OTHER_CONFIGURATION" in ran.err
    assert "run holds chunks/part-0.npz and no config.json" in ran.err


def test_what_a_run_killed_at_its_very_start_leaves_is_no_hindrance(toy, work):
    (work / "run" / "chunks").mkdir(parents=True)
    (work / "run" / ".lock").touch()
    (work / "run" / ".config.json.123.partial").write_text("{")
    assert toy("--output", "run").status == 0
    (work / "run" / "chunks" / ".part-0.npz.123.partial").write_text("half")
    assert toy("--output", "run").status == 0
    assert not list((work / "run").rglob("*.partial"))


def test_a_folder_is_written_by_one_process_at_a_time(toy, work):
    toy("--output", "run", "--quiet")
    before = contents(work)
    with (work / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert toy("--output", "run").err.startswith("error [OUTPUT_IN_USE]: run is in use by another run")
        assert contents(work) == before
    assert toy("--output", "run").status == 0


def test_a_run_that_came_and_went_before_the_lock_was_had_is_seen(tmp_path, monkeypatch):
    path, lock = tmp_path / "run", folders.fcntl.flock

    def late(file, how):
        monkeypatch.setattr(folders.fcntl, "flock", lock)
        with open_folder(path, "toy", {"seed": 1}):
            pass
        lock(file, how)

    monkeypatch.setattr(folders.fcntl, "flock", late)
    with pytest.raises(OtherConfiguration, match="seed 1 there, 0 here"), open_folder(path, "toy", {"seed": 0}):
        raise AssertionError("results of two configurations would mix")


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"number": np.array(1.5), "table": np.arange(6).reshape(2, 3), "yes": np.array([True]), "f": np.float32(2)}
    with open_folder(tmp_path, "toy", {}) as folder:
        folder.write("a", arrays)
        read = folder.read("a")
        with pytest.raises(OutputInUse), open_folder(tmp_path, "toy", {}):
            raise AssertionError("it has an owner")
        with pytest.raises(ValueError, match="allow_pickle"):
            folder.write("b", {"object": np.array([None])})
        assert not folder.has("b")
        with pytest.raises(CorruptResult):
            folder.read("b")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    file.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    with pytest.raises(UnwritableOutput, match=r"rows\.csv: No space left on device"):
        folders.replace_file(file, b"new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
