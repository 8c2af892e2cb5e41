"""`guardrail audit` and `guardrail keys signing`, on a store and on files."""

import json
import sqlite3
from contextlib import closing

import pytest

from guardrail.signing import read_private_key
from guardrail.store import open_store
from guardrail.testing.store_contract import decision


@pytest.fixture
def path(tmp_path, cli):
    """A store with a signed chain over seven decisions in two worlds; its public key lies beside it."""
    made = cli("keys", "signing", tmp_path / "key.pem")
    assert made.code == 0
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "public.pem").write_text(made.out)
    append(tmp_path / "store.db", read_private_key(tmp_path / "key.pem"), range(7))
    return tmp_path / "store.db"


def append(path, key, numbers):
    with closing(open_store(path, signing_key=key)) as store:
        for i in numbers:
            store.append_decisions([decision(f"d{i}", world=f"w{i % 2}")])


def change(path, statement):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount > 0


AFTER = "whether anything was cut off after the anchors, where {} of the present records stand"


def verify(cli, path, *more):
    done = cli("audit", "verify", "--store", path, "--public-key", path.parent / "public.pem", *more, "--json")
    return done.code, done.json and done.json["counts"]


def test_a_whole_log(cli, path):
    assert verify(cli, path) == (0, {})
    told = cli("audit", "verify", "--store", path)
    assert told.code == 0
    assert "7 records in 1 chains: nothing found" in told.out
    assert "not checked: without --anchor" in told.out
    assert "not checked: without --public-key" in told.out


CHANGES = {
    "edited": ("UPDATE decisions SET verdict = '{}' WHERE position = 3", "EDITED"),
    "edited, of another type": ("UPDATE decisions SET request = x'7b7d' WHERE position = 3", "EDITED"),
    "checksum": ("UPDATE decisions SET checksum = x'00' WHERE position = 3", "EDITED"),
    "link": ("UPDATE decisions SET link = x'00' WHERE position = 3", "EDITED"),
    "link is a text": ("UPDATE decisions SET link = 'text' WHERE position = 3", "EDITED"),
    "world": ("UPDATE decisions SET world_id = 2 WHERE position = 3", "EDITED"),
    "deleted": ("DELETE FROM decisions WHERE position = 3", "MISSING"),
    "cut": ("DELETE FROM decisions WHERE position > 5", "CUT"),
    "taken out of the chain": ("UPDATE decisions SET position = NULL WHERE position = 3", "MISSING"),
    "signature": ("UPDATE decisions SET signature = x'00' WHERE position = 3", "FOREIGN"),
    "last signature": ("UPDATE decisions SET signature = NULL WHERE position = 7", "UNSIGNED"),
    "moved": ("UPDATE decisions SET position = 99 WHERE position = 3", "MISSING"),
    "position is a text": ("UPDATE decisions SET position = 'x' WHERE position = 3", "EDITED"),
    "key": ("UPDATE chains SET public_key = NULL", "UNSIGNED"),
    "no row": ("DELETE FROM chains", "CUT"),
    "put in": (
        "INSERT INTO decisions (decision_id, world_id, policy_revision, posterior_revision, decision, request, "
        "verdict, decided_at, checksum) VALUES ('x', 1, 'r', 0, 'accept', '{}', '{}', 1.5, x'00')",
        "UNCHAINED",
    ),
}


@pytest.mark.parametrize(("statement", "code"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_found(cli, path, statement, code):
    change(path, statement)
    status, counts = verify(cli, path)
    assert status == 1
    assert code in counts


def test_two_records_that_are_exchanged(cli, path):
    change(path, "UPDATE decisions SET position = -1 WHERE position = 2")
    change(path, "UPDATE decisions SET position = 2 WHERE position = 5")
    change(path, "UPDATE decisions SET position = 5 WHERE position = -1")
    status, counts = verify(cli, path)
    assert status == 1
    assert "SWAPPED" in counts


def test_a_chain_of_somebody_else(cli, path, tmp_path):
    cli("keys", "signing", tmp_path / "other.pem")
    append(path, read_private_key(tmp_path / "other.pem"), [20])
    assert verify(cli, path) == (1, {"FOREIGN": 1})
    append(path, None, [21])
    status, counts = verify(cli, path)
    assert (status, counts) == (1, {"FOREIGN": 1, "UNSIGNED": 1})


def test_an_anchor_tells_of_an_end_that_was_cut_with_the_row_that_names_it(cli, path, tmp_path):
    anchor = tmp_path / "anchor.jsonl"
    anchor.write_text(cli("audit", "head", "--store", path).out)
    assert verify(cli, path, "--anchor", anchor) == (0, {})
    append(path, None, [21, 22])
    assert AFTER.format(2) in cli("audit", "verify", "--store", path, "--anchor", anchor).out
    (tmp_path / "empty.jsonl").touch()
    assert AFTER.format(9) in cli("audit", "verify", "--store", path, "--anchor", tmp_path / "empty.jsonl").out
    change(path, "DELETE FROM decisions WHERE decision_id IN ('d21', 'd22')")
    change(path, "DELETE FROM chains WHERE public_key IS NULL")
    change(path, "DELETE FROM decisions WHERE position > 5")
    change(
        path,
        "UPDATE chains SET (head_position, head_link, head_signature) = "
        "(SELECT position, link, signature FROM decisions WHERE position = 5)",
    )
    assert verify(cli, path) == (0, {})
    assert verify(cli, path, "--anchor", anchor) == (1, {"CUT": 1})


def test_decisions_from_before_chains_are_known_to_an_anchor(cli, path, tmp_path):
    change(path, "UPDATE decisions SET chain = NULL, position = NULL, link = NULL, signature = NULL")
    change(path, "DELETE FROM chains")
    append(path, read_private_key(path.parent / "key.pem"), [30])
    assert verify(cli, path) == (1, {"UNCHAINED": 1})
    anchor = tmp_path / "anchor.jsonl"
    anchor.write_text(cli("audit", "head", "--store", path).out)
    assert verify(cli, path, "--anchor", anchor) == (0, {})
    change(path, "DELETE FROM decisions WHERE decision_id = 'd0'")
    assert verify(cli, path, "--anchor", anchor) == (1, {"UNCHAINED": 1})


def test_what_was_put_in_before_the_second_head_was_taken_is_found_by_the_first(cli, path, tmp_path):
    anchor = tmp_path / "anchor.jsonl"
    first = cli("audit", "head", "--store", path).out
    change(path, "UPDATE decisions SET chain = NULL, position = NULL, link = NULL, signature = NULL")
    change(path, "DELETE FROM chains")
    anchor.write_text(first + cli("audit", "head", "--store", path).out)
    status, counts = verify(cli, path, "--anchor", anchor)
    assert (status, counts["UNCHAINED"]) == (1, 1)


# ------------------------------------------------------------ exports


def export(cli, path, *more):
    file = path.parent / f"export{len(more)}.jsonl"
    done = cli("audit", "export", "--store", path, *more, file, "--json")
    assert done.code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    return file, done.json["decisions"]


def verify_file(cli, file, *more):
    done = cli("audit", "verify", "--file", file, "--public-key", file.parent / "public.pem", *more, "--json")
    return done.code, done.json


def test_an_export_is_verified_without_the_store(cli, path):
    file, written = export(cli, path)
    assert written == 7
    anchor = path.parent / "anchor.jsonl"
    anchor.write_text(cli("audit", "head", "--store", path).out)
    path.unlink()
    status, told = verify_file(cli, file, "--anchor", anchor)
    assert (status, told["counts"], told["records"], told["not_checked"]) == (0, {}, 7, [AFTER.format(0)])


def test_an_export_of_one_world_holds_the_digests_of_the_others(cli, path):
    file, written = export(cli, path, "--world", "w1", "--policy", "policy")
    assert written == 3
    assert "w0" not in file.read_text()
    status, told = verify_file(cli, file)
    assert (status, told["counts"], told["without_content"]) == (0, {}, 4)
    assert any("the content of 4 records" in note for note in told["not_checked"])


def test_an_export_replaces_nothing_and_damage_is_not_exported(cli, path):
    file, _ = export(cli, path)
    again = cli("audit", "export", "--store", path, file)
    assert (again.code, "File exists" in again.err) == (3, True)
    change(path, "UPDATE decisions SET verdict = '{}' WHERE position = 3")
    other = cli("audit", "export", "--store", path, path.parent / "other.jsonl")
    assert (other.code, "damaged" in other.err) == (3, True)
    assert not (path.parent / "other.jsonl").exists()


def changed_lines(lines):
    """Every way to delete, repeat, exchange or change one line of an export."""
    for at in range(len(lines)):
        yield f"without {at}", lines[:at] + lines[at + 1 :]
        yield f"{at} twice", lines[: at + 1] + lines[at:]
        yield f"only {at}", lines[:at]
        if at > 1:  # with what is told of the only chain, too
            yield f"{at} exchanged", [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]]
        yield f"{at} cut", [*lines[:at], lines[at][:-9]]


def test_no_line_of_an_export_may_change(cli, path):
    file, _ = export(cli, path)
    lines = file.read_text().splitlines(keepends=True)
    for name, changed in changed_lines(lines):
        file.write_text("".join(changed))
        status, _ = verify_file(cli, file)
        assert status in (1, 3), name


def test_no_value_of_an_export_may_change(cli, path):
    file, _ = export(cli, path)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, line in enumerate(lines):
        for name in {**line, **line.get("record", {})}:
            if line["kind"] == "export" and name in ("policy", "world"):
                continue  # what it was limited to changes nothing that is checked
            changed = json.loads(json.dumps(line))
            owner = changed if name in changed and name != "decision" else changed.get("record", changed)
            owner[name] = "7" if owner.get(name) != "7" else "8"
            file.write_text("".join(json.dumps(c) + "\n" for c in [*lines[:number], changed, *lines[number + 1 :]]))
            status, _ = verify_file(cli, file)
            assert status in (1, 3), (number, name)


# ------------------------------------------------------------ what cannot be read


def test_what_cannot_be_read_is_said(cli, path, tmp_path):
    text = tmp_path / "text"
    text.write_text("no json\n")
    for arguments in (
        ["--store", tmp_path / "none.db"],
        ["--file", tmp_path / "none"],
        ["--file", text],
        ["--store", path, "--anchor", text],
        ["--store", path, "--public-key", text],
        ["--store", path, "--public-key", path.parent / "key.pem"],
    ):
        done = cli("audit", "verify", *arguments)
        assert (done.code, done.out) == (3, ""), arguments
        assert done.err.startswith("error [")
    assert cli("audit", "verify").code == 2
    again = cli("keys", "signing", path.parent / "key.pem")
    assert (again.code, "File exists" in again.err) == (3, True)
