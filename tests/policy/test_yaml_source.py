import math

import pytest

from guardrail.errors import PolicyError
from guardrail.policy.yaml_source import MAX_DEPTH, MAX_DOCUMENT_BYTES, read_document, read_file


def data(text):
    document = read_document(text, "d.yaml")
    assert document.problems == []
    return document.root.data()


def failure(text):
    with pytest.raises(PolicyError) as caught:
        read_document(text, "d.yaml")
    return str(caught.value)


def test_scalars_follow_the_core_schema():
    text = (
        "a: yes\nb: true\nc: ~\nd: 010\ne: 0x1F\nf: 1e3\ng: -.inf\nh: '1'\ni: 1_000\nj: 0o17\nk: .5\nl:\nm: \"\\x41\"\n"
    )
    values = data(text)
    assert values == {
        "a": "yes",
        "b": True,
        "c": None,
        "d": 10,
        "e": 31,
        "f": 1000.0,
        "g": -math.inf,
        "h": "1",
        "i": "1_000",
        "j": 15,
        "k": 0.5,
        "l": None,
        "m": "A",
    }
    assert math.isnan(data("a: .nan")["a"])


def test_mappings_come_sorted_and_sequences_as_tuples():
    assert list(data("b: 1\na: [1, [2]]\n2: x\n1: y\n").items()) == [(1, "y"), (2, "x"), ("a", (1, (2,))), ("b", 1)]


def test_a_long_number_stays_text():
    digits = "9" * 10_000
    assert data(f"a: {digits}") == {"a": digits}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\n", "d.yaml:2:1: not YAML: while parsing a flow sequence expected ',' or ']'"),
        ("a: b ? c : d\n", "d.yaml:1:10: not YAML: mapping values are not allowed here; quote a value that holds ': '"),
        ("x: 1\na: %z\n", "d.yaml:2:4: not YAML: while scanning for the next token found character '%'"),
        ("a: 1\nb: \x01\n", "d.yaml:2:4: character U+0001 is not allowed in YAML; remove it"),
        ("a: 1\n---\nb: 2\n", "d.yaml:2:1: a second document; keep one per file"),
        ("", "d.yaml:1:1: needs a mapping of fields at the top"),
        ("\n- 1\n", "d.yaml:2:1: needs a mapping of fields at the top"),
        ("a: " + "[" * MAX_DEPTH, f"d.yaml:1:{3 + MAX_DEPTH}: nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "x" * MAX_DOCUMENT_BYTES, f"d.yaml:0:0: larger than {MAX_DOCUMENT_BYTES} bytes; make it smaller"),
        ("a: \ud800", "d.yaml:1:4: character U+D800 is not allowed in YAML; remove it"),
    ],
)
def test_what_is_not_yaml_has_a_position(text, message):
    assert failure(text).startswith(message)


def test_form_errors_are_collected():
    text = "a: 1\nb: {c: &x 1, c: 2}\nd: *x\ne: !has(x)\n[1]: 2\ntrue: 3\na: 4\n"
    assert [str(problem) for problem in read_document(text, "d.yaml").problems] == [
        "d.yaml:2:8: anchors (&name) are not supported; write the value out",
        "d.yaml:2:14: key 'c' is given twice, first in line 2; keep one",
        "d.yaml:3:4: aliases (*name) are not supported; write the value out",
        "d.yaml:4:4: tags are not supported, and '!has(x)' reads as one; quote a value that starts with '!'",
        "d.yaml:5:1: a mapping key must be a string or an integer; quote it",
        "d.yaml:6:1: a mapping key must be a string or an integer; quote it",
        "d.yaml:7:1: key 'a' is given twice, first in line 1; keep one",
    ]


def test_an_alias_bomb_expands_to_nothing():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    document = read_document("\n".join(lines), "d.yaml")
    assert len(document.problems) == 20 + 19 * 10
    assert len(str(document.root.data())) < 10_000


@pytest.mark.parametrize(
    ("text", "offset", "position"),
    [
        ("a: bcd", 2, (1, 6)),
        ("a: 'bcd'", 2, (1, 7)),
        ("a: 'b''d'", 2, (1, 8)),
        ('a: "b\\"d"', 2, (1, 8)),
        ("a: |\n  bc\n  de\n", 4, (3, 4)),
        ("a: >-\n  bc\n  de\n", 3, (3, 3)),
        ("a: bc\n  de", 3, (2, 3)),
        ("a: 'é\n\n  de'", 3, (3, 4)),
        ("a: bcd", 3, (1, 7)),
    ],
)
def test_a_character_of_a_value_is_found_in_the_source(text, offset, position):
    problem = read_document(text, "d.yaml").problem_inside(("a",), offset, "m")
    assert (problem.line, problem.column) == position


def test_unreadable_files_are_problems(tmp_path):
    with pytest.raises(PolicyError, match=r"absent.yaml:0:0: cannot be read: No such file"):
        read_file(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("é: 1\nb: é".encode("latin-1"))
    with pytest.raises(PolicyError, match=r"latin.yaml:1:1: byte 0xe9 is not UTF-8"):
        read_file(tmp_path / "latin.yaml")
    (tmp_path / "half.yaml").write_bytes("é: é\nb: ".encode() + b"\xff")
    with pytest.raises(PolicyError, match=r"half.yaml:2:4: byte 0xff is not UTF-8"):
        read_file(tmp_path / "half.yaml")
    (tmp_path / "large.yaml").write_bytes(b"a" * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(PolicyError, match="larger than"):
        read_file(tmp_path / "large.yaml")
