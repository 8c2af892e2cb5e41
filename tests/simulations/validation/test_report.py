"""The report page and the figures."""

import re
from html.parser import HTMLParser

import pytest

from simulations.validation import report
from simulations.validation.config import ValidateConfig
from simulations.validation.suite import SUITE

PARAMETERS = {"classes": ("fifty",), "bounds": ("ratio", "ratio-running", "map"), "runs": 200, "horizon_scale": 0.3}


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would load and the text it would show."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.loaded, self.text, self.rows = [], [], [], 0
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag not in {"script", "link", "iframe", "object", "form"}
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.rows += tag == "tr"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def rows(table):
    return table(**PARAMETERS)


@pytest.fixture(scope="module")
def pictures(rows):
    return SUITE.pictures(ValidateConfig(**PARAMETERS), rows)


def test_the_first_picture_is_the_main_figure_and_the_page_is_among_them(pictures):
    assert list(pictures) == ["validation.png", "refutation.png", "report.html"]
    assert all(pictures[name].startswith(b"\x89PNG") for name in ("validation.png", "refutation.png"))


def test_pictures_are_a_function_of_the_table(pictures, rows):
    assert SUITE.pictures(ValidateConfig(**PARAMETERS), rows) == pictures


def test_the_page_holds_all_it_needs(pictures):
    page = pictures["report.html"].decode()
    found = Reader(page)
    assert len(found.loaded) == 2
    assert all(value.startswith("data:image/png;base64,") for value in found.loaded)
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_page_shows_every_row(pictures, rows):
    page = pictures["report.html"].decode()
    full = Reader(page[page.index("<h2>Every row") : page.index("<h2>How this was made")])
    assert full.rows == len(rows) + 1  # one class, one heading
    text = " ".join(full.text)
    for row in rows:
        assert f"{row['failures']:,} of {row['runs']:,}" in text
        assert row["verdict"] in text


def test_the_summary_counts(rows):
    counts = report.tally(rows)
    held = sum(row["expected"] == "holds" for row in rows)
    assert counts["holds"] == (held, held)
    assert report.summary(rows).startswith(f"{held} of {held} promised rows hold.")
    assert "deliberate failures were seen" in report.summary(rows)


def test_a_violation_is_seen_at_once(rows):
    broken = [dict(row) for row in rows]
    broken[0]["verdict"] = "VIOLATED"
    page = report.page(ValidateConfig(**PARAMETERS), broken, {})
    assert '<div class="banner bad"' in page
    matrix = page[page.index("At a glance") : page.index("What is tried")]
    assert "VIOLATED" in matrix
    good = report.page(ValidateConfig(**PARAMETERS), rows, {})
    assert '<div class="banner good"' in good


def test_text_is_escaped(rows):
    strange = [dict(row) | {"class": "<b>&", "truth": "<script>alert(1)</script>"} for row in rows]
    page = report.page(ValidateConfig(**PARAMETERS), strange, {})
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page


def test_the_page_says_how_it_was_made():
    config = ValidateConfig(runs=10, horizon_scale=0.5, agents=("random", "greedy"))
    command = report.command(config)
    assert command == "python -m simulations validate --runs 10 --horizon-scale 0.5 --agents random greedy"
    assert report.command(ValidateConfig()) == "python -m simulations validate"


def test_a_table_without_alarms_or_budgets_has_pictures_too(rows):
    few = [row for row in rows if row["case"] == "bound at all times"][:1]
    assert SUITE.pictures(ValidateConfig(**PARAMETERS), few)["validation.png"].startswith(b"\x89PNG")
