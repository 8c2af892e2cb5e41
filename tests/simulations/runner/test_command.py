"""What a suite's command line does: the table in every form, pictures, and mistakes."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest


def rows(ran):
    return json.loads(ran.out)["rows"]


# ---------------------------------------------------------------- the table


def test_json_is_one_object_with_config_and_rows_and_nothing_else(toy):
    ran = toy("--json", "--chunks", "2")
    assert ran.status == 0
    answer = json.loads(ran.out)
    assert list(answer) == ["config", "rows"]
    assert answer["config"]["chunks"] == 2
    assert [row["factor"] for row in answer["rows"]] == [1.0, 2.0]
    assert answer["rows"][0]["note"] is None
    assert answer["rows"][0]["count"] == 20
    assert "20 of 20 numbers" in ran.err
    assert "noise of a library" in ran.err


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(toy):
    first, again, other = toy("--json"), toy("--json"), toy("--json", "--seed", "1")
    assert first.out == again.out
    assert rows(first) != rows(other)


def test_the_csv_reads_back_exactly(toy):
    ran = toy("--csv", "-")
    read = list(csv.DictReader(io.StringIO(ran.out)))
    exact = rows(toy("--json"))
    assert [float(row["sum"]) for row in read] == [row["sum"] for row in exact]
    assert read[0]["note"] == ""
    assert toy("--csv", "table.csv").status == 0
    assert Path("table.csv").read_text() == ran.out


def test_the_table_is_for_people(toy):
    ran = toy()
    assert ran.status == 0
    assert "factor" in ran.out
    assert "count 40" in ran.out


def test_quiet_leaves_only_what_was_asked_for(toy_process):
    ran = toy_process("--quiet", "--json", "--chunks", "1")
    assert ran.err == "noise of a library\n"
    assert json.loads(ran.out)


def test_the_output_folder_holds_the_table_twice_and_the_results(toy, work):
    printed = toy("--csv", "-", "--output", "run").out
    assert (work / "run" / "rows.csv").read_text() == printed
    assert json.loads((work / "run" / "rows.json").read_text())["rows"] == rows(toy("--json"))
    assert len(list((work / "run" / "chunks").glob("part-?.npz"))) == 4
    done = subprocess.run("sha256sum -c *.sha256", shell=True, cwd=work / "run" / "chunks", capture_output=True)
    assert done.returncode == 0


def test_a_table_that_is_there_is_replaced_on_success_only(toy):
    Path("table.csv").write_text("precious")
    assert toy("--csv", "table.csv", "--fails-at", "2").status == 2
    assert Path("table.csv").read_text() == "precious"
    assert [path.name for path in Path().iterdir()] == ["table.csv"]
    Path("link.csv").symlink_to("table.csv")
    assert toy("--csv", "link.csv").status == 0
    assert Path("table.csv").read_text().startswith("factor,sum")
    assert Path("link.csv").is_symlink()


def test_a_reader_that_has_seen_enough_is_no_failure(toy_process):
    reader, writer = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE), None
    writer = reader.stdin
    reader.wait()
    ran = toy_process("--json", "--quiet", stdout=writer)
    writer.close()
    assert ran.status == 0
    assert "BrokenPipe" not in ran.err


def test_a_full_disk_is_told(toy_process):
    with open("/dev/full", "w") as full:
        ran = toy_process("--json", "--quiet", stdout=full)
    assert ran.status == 2
    assert "error [UNWRITABLE_OUTPUT]: cannot write to standard output: No space left" in ran.err
    assert "Traceback" not in ran.err


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--plot"], ["more.txt", "toy.png"]),
        (["--plot", "new/pictures"], ["new/pictures/more.txt", "new/pictures/toy.png"]),
        (["--plot", "mine.png"], ["mine.png"]),
        (["--plot", "--output", "run"], ["run/more.txt", "run/toy.png"]),
        (["--plot", "mine.png", "--output", "run"], ["mine.png"]),
    ],
)
def test_pictures_go_where_they_were_asked_for(toy, work, arguments, files):
    ran = toy(*arguments)
    assert ran.status == 0
    found = [path for kind in ("*.png", "more.txt") for path in work.rglob(kind)]
    assert sorted(str(path.relative_to(work)) for path in found) == files
    assert b"main" in next(work.rglob("*.png")).read_bytes()
    for file in files:
        assert f"wrote {file}\n" in ran.err


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "reason", "message"),
    [
        (["--chunks", "0"], "BAD_CONFIGURATION", "--chunks: chunks is 0; needs a number of at least 1"),
        (["--factors"], "BAD_CONFIGURATION", "--factors: factors is a list; must not be empty"),
        (["--factors", ","], "BAD_CONFIGURATION", "--factors: factors is a list; must not be empty"),
        (["--impossible"], "BAD_CONFIGURATION", "nothing is left to run"),
        (["--chunk", "3"], "BAD_CONFIGURATION", "--chunk is not known here; did you mean '--chunks'?"),
        (["--chunks"], "BAD_CONFIGURATION", "argument --chunks: expected one argument"),
        (["--device", "tpu"], "BAD_CONFIGURATION", "argument --device: invalid choice: 'tpu'"),
        (["--config", "absent.yaml"], "BAD_CONFIGURATION", "absent.yaml: cannot be read: No such file or directory"),
        (["--json", "--csv", "-"], "BAD_CONFIGURATION", "choose one"),
        (["--csv", "file/rows.csv"], "UNWRITABLE_OUTPUT", "cannot write file/rows.csv"),
        (["--csv", "."], "UNWRITABLE_OUTPUT", ". is a folder; name a file"),
        (["--csv", "/dev/null"], "UNWRITABLE_OUTPUT", "/dev/null is not a regular file"),
        (["--csv", "/proc/rows.csv"], "UNWRITABLE_OUTPUT", "cannot write /proc/rows.csv"),
        (["--csv", "x" * 300], "UNWRITABLE_OUTPUT", "File name too long"),
        (["--plot", "file/figure.png"], "UNWRITABLE_OUTPUT", "cannot write file/figure.png"),
        (["--plot", "file"], "UNWRITABLE_OUTPUT", "cannot write file/picture.png"),
        (["--output", "file"], "UNWRITABLE_OUTPUT", "file is not a folder"),
        (["--output", "file/run"], "UNWRITABLE_OUTPUT", "cannot write to file/run"),
        (["--output", "/proc/run"], "UNWRITABLE_OUTPUT", "cannot write to /proc/run"),
        (["--output", "x" * 300], "UNWRITABLE_OUTPUT", "File name too long"),
        (["--output", "."], "OTHER_CONFIGURATION", "and no config.json; choose an empty --output"),
        (["--device", "gpu", "--output", "run"], "NO_DEVICE", "use --device cpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_work_is_done(toy, work, arguments, reason, message):
    (work / "file").write_text("precious")
    (work / "marks").mkdir()
    before = sorted(work.rglob("*"))
    ran = toy("--marks", "marks", *arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith(f"error [{reason}]: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert sorted(work.rglob("*")) == before
    assert (work / "file").read_text() == "precious"


def test_a_failing_chunk_is_told_with_its_place_and_the_finished_part_kept(toy, work):
    ran = toy("--fails-at", "2", "--output", "run", "--quiet")
    assert ran.status == 2
    told = ran.err.splitlines()[-1]
    assert told.startswith("error [CHUNK_FAILED]: chunk part-2 failed: ValueError: the sum is too hard (")
    assert "toy_suite.py:" in told
    assert "Traceback" not in ran.err
    assert sorted(path.name for path in (work / "run" / "chunks").glob("*.npz")) == ["part-0.npz", "part-1.npz"]
    assert not (work / "run" / "rows.csv").exists()
