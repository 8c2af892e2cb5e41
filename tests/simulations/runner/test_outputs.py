"""The table as JSON, CSV and text."""

import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.runner.outputs import as_csv, as_json, as_table


def test_json_has_no_numbers_that_json_lacks():
    rows = [{"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5, "e": None, "f": "NaN", "g": True, "h": 2}]
    text = as_json({"limits": [math.inf, 1.0]}, rows)
    answer = json.loads(text, parse_constant=pytest.fail)
    assert answer == {
        "config": {"limits": [None, 1.0]},
        "rows": [{"a": None, "b": None, "c": None, "d": 1.5, "e": None, "f": "NaN", "g": True, "h": 2}],
    }


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)))


@given(st.lists(st.tuples(st.floats(), TEXTS), min_size=1))
def test_csv_reads_back_exactly(cells):
    text = as_csv([{"number": number, "text": text} for number, text in cells])
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [repr(float(row["number"])) for row in read] == [repr(number) for number, _ in cells]
    assert [row["text"] for row in read] == [text for _, text in cells]


def test_csv_wants_one_set_of_columns():
    with pytest.raises(ValueError, match="same keys"):
        as_csv([{"a": 1}, {"b": 2}])


def test_text_shows_what_differs_and_tells_the_rest_once():
    text = as_table([{"kind": "[bold]a[/]", "rate": 0.123456, "seed": 0}, {"kind": "b", "rate": None, "seed": 0}])
    assert "[bold]a[/]" in text
    assert "0.1235" in text
    assert "seed 0" in text
    assert text.count("seed") == 1
    assert "seed" in as_table([{"seed": 0}])
    assert as_table([]) == "no rows\n"
