import fcntl
import json
import signal

import pytest


def marks(toy):
    return sorted(mark.name for mark in (toy.work / "marks").iterdir())


def test_a_killed_run_goes_on_where_it_stopped(toy):
    (toy.work / "marks").mkdir()
    options = ["--output", "run", "--marks", "marks", "--killed-at", "2"]
    assert toy(*options).status == -signal.SIGKILL
    assert marks(toy) == ["0.0", "1.0", "2.0"]
    assert not (toy.work / "run" / "rows.csv").exists()

    ran = toy(*options)
    assert ran.status == 0
    assert "20 of 40 numbers were there already" in ran.err
    assert marks(toy) == ["0.0", "1.0", "2.0", "2.1", "3.0"], "a chunk that was done is not done again"
    uninterrupted = toy("--csv", "-", "--quiet").out
    assert (toy.work / "run" / "rows.csv").read_text() == uninterrupted
    assert json.loads((toy.work / "run" / "rows.json").read_text())["config"]["killed_at"] == 2


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_another_configuration_is_refused_and_nothing_is_touched(toy):
    toy("--output", "run", "--quiet")
    before = contents(toy.work)
    ran = toy("--output", "run", "--seed", "1", "--factors", "3")
    assert ran.status == 2
    assert "OTHER_CONFIGURATION" in ran.err
    assert "seed 0 there, 1 here" in ran.err
    assert "factors [1.0, 2.0] there, [3.0] here" in ran.err
    assert contents(toy.work) == before


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "not a result"])
def test_a_damaged_result_is_named_and_nothing_is_overwritten(toy, damage):
    toy("--output", "run", "--quiet")
    (file,) = (toy.work / "run" / "chunks").glob("part-1*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    new = {"truncated": content[:-9], "one bit": content, "empty": b"", "not a result": b"x" * 70 + b"\n"}[damage]
    file.write_bytes(bytes(new))
    before = contents(toy.work)
    ran = toy("--output", "run")
    assert ran.status == 2
    assert "CORRUPT_RESULT" in ran.err
    assert f"{file.relative_to(toy.work)} is damaged" in ran.err
    assert contents(toy.work) == before

    file.unlink()
    assert toy("--output", "run").status == 0


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 1, "suite": "toy"}'])
def test_a_damaged_configuration_is_refused(toy, content):
    toy("--output", "run", "--quiet")
    (toy.work / "run" / "config.json").write_bytes(content)
    ran = toy("--output", "run")
    assert ran.status == 2
    assert "config" in ran.err
    assert (toy.work / "run" / "config.json").read_bytes() == content


def test_a_folder_is_written_by_one_process_at_a_time(toy):
    toy("--output", "run", "--quiet")
    with (toy.work / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "OUTPUT_IN_USE" in toy("--output", "run").err
    assert toy("--output", "run").status == 0
