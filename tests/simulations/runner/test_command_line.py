import csv
import io
import json
import os

import pytest


def test_json_is_one_object_with_config_and_rows_and_nothing_else(toy):
    ran = toy("--json", "--chunks", "2")
    assert ran.status == 0
    answer = json.loads(ran.out)
    assert set(answer) == {"config", "rows"}
    assert answer["config"]["chunks"] == 2
    assert [row["factor"] for row in answer["rows"]] == [1.0, 2.0]
    assert answer["rows"][0]["note"] is None
    assert "20 of 20 numbers" in ran.err


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(toy):
    first, again, other = toy("--json"), toy("--json"), toy("--json", "--seed", "1")
    assert first.out == again.out
    assert first.out != other.out


@pytest.mark.parametrize(
    "spelling", [["3,4"], ["3", "4"], ["3", "--factors", "4"], ["3,", "4"]], ids=["commas", "apart", "again", "mixed"]
)
def test_lists_are_taken_in_every_usual_spelling(toy, spelling):
    rows = json.loads(toy("--json", "--factors", *spelling).out)["rows"]
    assert [row["factor"] for row in rows] == [3.0, 4.0]


def test_the_table_is_for_people_and_the_csv_reads_back_exactly(toy):
    table = toy("--quiet")
    assert "factor" in table.out
    assert table.err == ""
    ran = toy("--csv", "-", "--quiet")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    exact = json.loads(toy("--json").out)["rows"]
    assert [float(row["sum"]) for row in rows] == [row["sum"] for row in exact]
    assert rows[0]["note"] == ""


def test_a_file_configures_and_options_win(toy):
    (toy.work / "toy.yaml").write_text("chunks: 3\nfactors: [7]\n")
    answer = json.loads(toy("--json", "--config", "toy.yaml", "--chunks", "5").out)
    assert answer["config"]["chunks"] == 5
    assert [row["factor"] for row in answer["rows"]] == [7.0]


def test_pictures_go_where_they_were_asked_for(toy):
    assert toy("--plot", "--quiet").status == 0
    assert (toy.work / "toy.png").read_bytes() == b"\x89PNG main"
    (toy.work / "pictures").mkdir()
    toy("--plot", "pictures", "--quiet")
    assert sorted(p.name for p in (toy.work / "pictures").iterdir()) == ["more.txt", "toy.png"]
    toy("--plot", "mine.png", "--quiet")
    assert (toy.work / "mine.png").exists()
    toy("--plot", "--output", "kept", "--quiet")
    assert (toy.work / "kept" / "toy.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chunks", "0"], "--chunks: Input should be greater than or equal to 1, got '0'"),
        (["--chunks", "many"], "--chunks: Input should be a valid integer"),
        (["--factors"], "--factors: Tuple should have at least 1 item"),
        (["--factors", ","], "--factors: Tuple should have at least 1 item"),
        (["--config", "missing.yaml"], "cannot read missing.yaml: No such file"),
        (["--config", "unknown.yaml"], "unknown parameter chunk; did you mean chunks?"),
        (["--config", "broken.yaml"], "broken.yaml is not YAML"),
        (["--config", "list.yaml"], "must hold one value for each parameter"),
        (["--json", "--csv", "-"], "choose one"),
        (["--csv", "nowhere/rows.csv"], "nowhere does not exist"),
        (["--plot", "nowhere/figure.png"], "nowhere does not exist"),
        (["--plot", "nowhere"], "nowhere does not exist"),
        (["--output", "unknown.yaml"], "is not a folder"),
        (["--output", "."], "and no config.json; choose an empty --output"),
        (["--device", "gpu"], "use --device cpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_work_is_done(toy, arguments, message):
    (toy.work / "unknown.yaml").write_text("chunk: 3\n")
    (toy.work / "broken.yaml").write_text("chunks: [3\n")
    (toy.work / "list.yaml").write_text("- 3\n")
    (toy.work / "marks").mkdir()
    before = sorted(toy.work.iterdir())
    ran = toy("--marks", "marks", *arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("error [")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    assert list((toy.work / "marks").iterdir()) == []
    assert sorted(toy.work.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(toy):
    (toy.work / "closed").mkdir(mode=0o500)
    assert "UNWRITABLE_OUTPUT" in toy("--output", "closed/run").err
