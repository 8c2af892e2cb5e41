"""The report's tables, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from simulations.runner.suite import Row

_BADGES = {
    "holds": "holds",
    "VIOLATED": "wrong",
    "fails as expected": "seen",
    "did not fail": "wrong",
    "caught": "holds",
    "not caught": "wrong",
    "nothing claimed": "open",
}
_HEADERS = (
    ("case", False),
    ("bound", False),
    ("guarantee", False),
    ("prior", False),
    ("truth", False),
    ("agent", False),
    ("steps", True),
    ("failed", True),
    ("rate", True),
    ("interval", True),
    ("against", True),
    ("verdict", False),
    ("looseness", True),
    ("safe / unsafe\naccepted", True),
    ("actions\naccepted", True),
    ("refuted after", True),
)


def classes_of(rows: Sequence[Row]) -> list[str]:
    """The classes of the table, in its order."""
    return list(dict.fromkeys(str(row["class"]) for row in rows))


def full_table(rows: Sequence[Row]) -> str:
    """All rows, a table for each class."""
    parts = []
    for name in classes_of(rows):
        of_class = [row for row in rows if row["class"] == name]
        size = of_class[0]["hypotheses"]
        counted = f"{size:,} hypotheses" if isinstance(size, int) else str(size)
        parts.append(f"<h3>{escape(name)} ({escape(counted)}, {len(of_class)} rows)</h3>")
        head = "".join(
            f'<th scope="col"{_number_class(right)}>{escape(title).replace(chr(10), "<br>")}</th>'
            for title, right in _HEADERS
        )
        lines = "".join(_line(row) for row in of_class)
        # No scrolling frame around it: inside one the heading would not stay in sight.
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>")
    return "".join(parts)


def matrix(rows: Sequence[Row]) -> str:
    """Bounds by classes: the highest failure rate where the bound must hold, the lowest where it must fail."""
    classes = classes_of(rows)
    lines: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row["expected"] in ("holds", "fails", "alarms"):
            key = (str(row["case"]), str(row["bound"]))
            lines.setdefault(key, {}).setdefault(str(row["class"]), []).append(row)
    cases = list(dict.fromkeys(case for case, _ in sorted(lines, key=_place_of_case)))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    body = "".join(
        f'<tr><th scope="row">{escape(case)}</th><th scope="row">{escape(bound)}</th>'
        + "".join(_cell(found.get(name, [])) for name in classes)
        + "</tr>"
        for wanted in cases
        for (case, bound), found in lines.items()
        if case == wanted
    )
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><th scope="col">case</th><th scope="col">bound</th>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
        "<p>Where a bound must hold: its highest rate in the class; where it must fail or an alarm must come: its "
        "lowest. = marks an exact probability, the small number counts the rows behind a cell; if one of "
        "them misses what was expected, the cell says so.</p>"
    )


def _place_of_case(line: tuple[str, str]) -> int:
    order = ("bound at all times", "harm budget", "false alarms")
    return order.index(line[0]) if line[0] in order else len(order)


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return '<td class="none">–</td>'
    rates = [float(str(row["failure_rate"])) for row in rows]
    place = rates.index(max(rates) if rows[0]["expected"] == "holds" else min(rates))
    # One row that misses its expectation decides, whatever the others say.
    missed = [row for row in rows if _BADGES[str(row["verdict"])] == "wrong"]
    verdict = str((missed or [rows[place]])[0]["verdict"])
    short = {"fails as expected": "fails", "did not fail": "did not fail"}.get(verdict, verdict)
    exact = "= " if rows[place]["method"] == "exact" else ""
    return f"<td>{_badge(verdict, short)} {exact}{rates[place]:.3f} <small>{len(rows)}</small></td>"


def _badge(verdict: str, shown: str | None = None) -> str:
    return f'<span class="verdict {_BADGES[verdict]}">{escape(shown or verdict)}</span>'


def _line(row: Row) -> str:
    exact = row["method"] == "exact"
    interval = "exact" if exact else f"{row['failure_low']:.4f} to {row['failure_high']:.4f}"
    failed = "–" if exact else f"{row['failures']:,} of {row['runs']:,}"
    values = (
        str(row["case"]),
        str(row["bound"]),
        str(row["guarantee"]),
        str(row["prior"]),
        str(row["truth"]),
        str(row["agent"]),
        f"{row['horizon']:,}",
        failed,
        f"{row['failure_rate']:.4f}",
        interval,
        f"{row['delta']:g}",
        None,
        _optional(row["mean_excess"], "+.3f"),
        _several(_optional(row["safe_accepted"], ".0%"), _optional(row["unsafe_accepted"], ".1%")),
        _optional(row["accepted_mean"], ",.0f") if row["case"] == "harm budget" else "–",
        _several(*(_optional(row[f"refuted_{part}"], ",.0f") for part in ("10", "median", "90"))),
    )
    cells = "".join(
        f"<td{_number_class(right)}>{_badge(str(row['verdict'])) if value is None else escape(value)}</td>"
        for value, (_, right) in zip(values, _HEADERS, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _optional(value: object, form: str) -> str:
    return "–" if value is None else format(value, form).replace("-0.000", "+0.000")


def _several(*values: str) -> str:
    return "–" if set(values) == {"–"} else " / ".join(values)


def _number_class(right: bool) -> str:
    return ' class="number"' if right else ' class="text"'
