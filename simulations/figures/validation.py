"""Figures of the validation: failure rates against what was promised, and how soon a wrong class is refuted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulations.figures.canvas import panels, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulations.runner.suite import Row

SOUND, UNSOUND, BROKEN, FAINT = "#0072b2", "#d55e00", "#000000", "#b0b8c0"
"""Blue and vermilion of Okabe and Ito; a violated promise is black with a cross, so that it needs no colour."""

_LINE = 0.27
_LEAST_HEIGHT = 3.0


def draw(rows: Sequence[Row]) -> Mapping[str, bytes]:
    """PNG files by name, from the table; the first one is the main figure."""
    return {"validation.png": _rates(rows), "refutation.png": _refutations(rows)}


def _rates(rows: Sequence[Row]) -> bytes:
    held = [row for row in rows if row["expected"] == "holds" and row["case"] != "harm budget"]
    failed = [row for row in rows if row["expected"] == "fails" and row["case"] != "harm budget"]
    budget = [row for row in rows if row["case"] == "harm budget"]
    tallest = max(len(_worst(part)) for part in (held, failed, budget))
    figure, grid = panels(1, 3, 18.0, max(_LEAST_HEIGHT, 1.4 + _LINE * tallest))
    _panel(grid[0][0], held, "Must hold: share of runs with any bound\never below the true harm")
    _panel(grid[0][1], failed, "Must fail: the same share where nothing\nis promised, or an assumption is broken")
    _panel(grid[0][2], budget, "Harm budget: share of episodes\nwith any harm")
    return png(figure)


def _label(row: Row) -> str:
    what = (
        row["bound"]
        if row["case"] in ("bound at all times", "not promised", "harm budget", "false alarms")
        else (f"{row['bound']}, {row['case']}")
    )
    return f"{what} · {row['class']}"


def _worst(rows: Sequence[Row]) -> dict[str, Row]:
    """The row that decides for each label: the highest rate where the promise must hold, else the lowest."""
    decided: dict[str, Row] = {}
    for row in rows:
        label, sign = _label(row), 1.0 if row["expected"] == "holds" else -1.0
        best = decided.get(label)
        if best is None or sign * _number(row, "failure_rate") > sign * _number(best, "failure_rate"):
            decided[label] = row
    return decided


def _number(row: Row, name: str) -> float:
    value: Any = row[name]
    return float(value)


def _panel(axes: Axes, rows: Sequence[Row], title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    if not rows:
        axes.text(0.5, 0.5, "no such rows", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    decided = _worst(rows)
    places = {label: -place for place, label in enumerate(decided)}
    others = [row for row in rows if row is not decided[_label(row)]]
    axes.plot(
        [_number(row, "failure_rate") for row in others],
        [places[_label(row)] for row in others],
        linestyle="none",
        marker="o",
        markersize=3,
        color=FAINT,
    )
    for label, row in decided.items():
        low, rate, high = (_number(row, f"failure_{part}") for part in ("low", "rate", "high"))
        violated = row["verdict"] == "VIOLATED"
        colour = BROKEN if violated else UNSOUND if row["expected"] != "holds" else SOUND
        marker = "X" if violated else "D" if row["method"] == "exact" else "o"
        axes.plot([low, high], [places[label]] * 2, color=colour, linewidth=1.6)
        axes.plot([rate], [places[label]], marker=marker, color=colour, markersize=9 if violated else 5)
    for promised in sorted({_number(row, "delta") for row in rows}):
        axes.axvline(promised, color="#444444", linestyle="--", linewidth=1)
        axes.text(promised, 1.0, f" promised: {promised:g}", fontsize=8, va="top", transform=axes.get_xaxis_transform())
    axes.set_yticks(list(places.values()), list(places), fontsize=7.5)
    axes.set_ylim(-len(places) + 0.3, 1.2)
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    axes.set_xlabel("share of runs\nline: interval, diamond: exact, grey: its other rows", fontsize=8)
    axes.grid(axis="y", color="#eeeeee")


def _refutations(rows: Sequence[Row]) -> bytes:
    alarms = [row for row in rows if str(row["bound"]).startswith("alarm") and row["case"] == "wrong class"]
    alarms.sort(key=lambda row: row["expected"] != "alarms")
    figure, grid = panels(1, 1, 10.0, max(_LEAST_HEIGHT, 1.6 + 0.42 * len(alarms)))
    axes = grid[0][0]
    axes.set_title("A class without the truth: observations until it is refuted", fontsize=11, loc="left")
    if not alarms:
        axes.text(0.5, 0.5, "no wrong class was tried", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return png(figure)
    labels = []
    for place, row in enumerate(alarms):
        labels.append(f"{row['class']}, truth {row['truth']}, {row['agent']} agent\n{row['bound']}")
        longest = _number(row, "horizon")
        # What never came within the run is drawn up to the run's end.
        early, middle, late = (
            longest if row[f"refuted_{part}"] is None else max(_number(row, f"refuted_{part}"), 0.5)
            for part in ("10", "median", "90")
        )
        colour = SOUND if row["expected"] == "alarms" else FAINT
        if row["refuted_10"] is not None:
            axes.plot([early, late], [-place] * 2, color=colour, linewidth=3, solid_capstyle="butt")
        if row["refuted_median"] is not None:
            axes.plot([middle], [-place], marker="o", color=colour, markersize=7)
        axes.plot([longest], [-place], marker="|", color="#444444", markersize=12)
        share = f" {_number(row, 'failure_rate'):.0%} of runs"
        axes.text(longest, -place, share, fontsize=8, va="center")
    axes.set_xscale("log")
    axes.set_yticks([-place for place in range(len(labels))], labels, fontsize=7.5)
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    axes.set_xlim(0.4, 6.0 * max(_number(row, "horizon") for row in alarms))
    axes.set_xlabel(
        "observations (bar: 10 % to 90 % of the runs, dot: half, tick: end of the run)\n"
        "blue: must alarm, grey: nothing is claimed; the share is that of the runs with an alarm",
        fontsize=8,
    )
    axes.grid(axis="x", color="#eeeeee")
    return png(figure)
