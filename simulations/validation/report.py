"""The report page: one HTML file with everything in it, from the table alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

from simulations.runner.suite import Row
from simulations.validation import words
from simulations.validation.catalogue import BOUNDS
from simulations.validation.config import ValidateConfig
from simulations.validation.page_tables import classes_of, full_table, matrix

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 0 auto; max-width: 1600px; padding: 1.5rem; }
h1 { margin: 0 0 .3rem; } h2 { margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d0d7de; padding-bottom: .2rem; }
h3 { margin: 1.6rem 0 .4rem; } p, dl, ul { max-width: 75rem; }
.banner { border: 2px solid; border-radius: 8px; padding: .8rem 1.1rem; font-size: 1.15rem; margin: 1rem 0; }
.banner.good { border-color: #0072b2; background: #eaf4fb; } .banner.bad { border-color: #000; background: #ffe9dc; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .5rem; text-align: left; border-bottom: 1px solid #e4e8ec; white-space: nowrap; }
thead th { position: sticky; top: 0; background: #f3f5f7; border-bottom: 2px solid #aab3bc; vertical-align: bottom; }
td.number, th.number { text-align: right; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .45rem; font-weight: 600; }
.holds { background: #d7ecfa; } .seen { background: #fde4cf; } .open { background: #eceff1; font-weight: 400; }
.wrong { background: #000; color: #fff; }
.matrix td.none { color: #98a1aa; text-align: center; } .matrix thead th { white-space: normal; min-width: 6.5em; }
td.text { white-space: normal; }
.wide { overflow-x: auto; } figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .45rem 1.2rem; } small { color: #6a737d; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
pre { background: #f3f5f7; padding: .7rem; overflow-x: auto; border-radius: 6px; font-size: 13px; }
"""

_EXPECTED = {"holds": "holds", "fails": "fails as expected", "alarms": "caught"}


def tally(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """For each expectation that a row can meet or miss: how many rows met it, of how many."""
    return {
        expected: (
            sum(row["expected"] == expected and row["verdict"] == verdict for row in rows),
            sum(row["expected"] == expected for row in rows),
        )
        for expected, verdict in _EXPECTED.items()
    }


def summary(rows: Sequence[Row]) -> str:
    """The result in a few sentences."""
    counts = tally(rows)
    texts = {
        "holds": "{0} of {1} promised rows hold.",
        "fails": "{0} of {1} deliberate failures were seen.",
        "alarms": "The class was refuted in {0} of {1} rows in which it must be.",
    }
    return " ".join(texts[name].format(*counts[name]) for name in texts if counts[name][1])


def page(config: ValidateConfig, rows: Sequence[Row], pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        config: the parameters, shown on it.
        rows: the table.
        pictures: PNG files by name.
    """
    met = all(seen == asked for seen, asked in tally(rows).values())
    body = [
        "<h1>Do the harm bounds hold?</h1>",
        f"<p>Guardrail, bound validation. delta = {config.delta:g}, harm budget B = {config.budget:g}, "
        f"intervals of {config.confidence:.4g} confidence, seed {config.seed}.</p>",
        f'<div class="banner {"good" if met else "bad"}" role="status">{escape(summary(rows))}</div>',
        _introduction(config),
        "<h2>At a glance</h2>",
        "<p>The highest failure rate of each bound in each class, over priors, truths and agents. Held against "
        f"{config.delta:g}; the rows of a harm budget against {config.delta + config.budget:g}.</p>",
        matrix(rows),
        *(_figure(name, picture) for name, picture in pictures.items()),
        "<h2>What is tried</h2>",
        _definitions(words.CASES),
        _section("The bounds", {name: bound.words for name, bound in BOUNDS.items()}),
        _section("The classes", {name: words.CLASSES.get(name, "") for name in classes_of(rows)}),
        _section("The priors", words.PRIORS),
        _section("The agents", words.AGENTS),
        _section("The truths", words.TRUTHS),
        _section("The columns", words.COLUMNS),
        "<h2>Every row</h2>",
        full_table(rows),
        "<h2>How this was made</h2>",
        f"<pre>{escape(command(config))}</pre>",
        f"<pre>{escape(json.dumps(config.model_dump(mode='json'), indent=1))}</pre>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Do the harm bounds hold?</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def command(config: ValidateConfig) -> str:
    """The command that makes this page."""
    words_of = ["python -m simulations validate"]
    for name, value in config:
        if value != type(config).model_fields[name].default:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words_of.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words_of)


def _introduction(config: ValidateConfig) -> str:
    return (
        "<p>A harm bound is checked at every step for every action against the true probability of harm, which the "
        "simulation knows. The theorems promise that a run in which any bound is <em>ever</em> too low, for any "
        f"action, has probability at most {config.delta:g}, whatever the agent does. A row is called "
        '<span class="verdict wrong">VIOLATED</span> if the whole interval of its failure rate lies above what was '
        "promised. Some theorems are nearly tight (two hypotheses that are hard to tell apart, seen for long), so "
        "rates close to what is promised are to be expected. A row that holds with few runs says little, and the "
        "upper end of its interval says how little. As a check of the checks, guardrails that promise nothing, and "
        "broken assumptions, stand in the same table: they must be seen to fail.</p>"
    )


def _figure(name: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode("ascii")
    alternative = {
        "validation.png": "Failure rates with intervals against what was promised; the table below has the numbers.",
        "refutation.png": "Observations until a class without the truth is refuted; the table below has the numbers.",
    }.get(name, name)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alternative)}"></figure>'


def _section(title: str, meanings: Mapping[str, str]) -> str:
    return f"<details><summary>{escape(title)}</summary>{_definitions(meanings)}</details>"


def _definitions(meanings: Mapping[str, str]) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in meanings.items())
    return f"<dl>{entries}</dl>"
