"""Pictures of the i.i.d. suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulations.figures.canvas import panels, png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.runner.suite import Row

COLOURS = {"iid": "tab:red", "predictive": "tab:purple", "plausible": "tab:blue", "ratio": "black"}
STYLES = {"iid": "-", "predictive": "-.", "plausible": "--", "ratio": ":"}


def last_violation(rows: Sequence[Row]) -> bytes:
    """Observations needed until the i.i.d. bound holds for good, against the divergence of the misleading rival."""
    classes = _distinct(rows, "class")
    figure, axes = panels(1, len(classes), 4.2 * len(classes), 4.2)
    for panel, name in zip(axes[0], classes, strict=True):
        found = [
            (float(row["kl_nearest_less_harmful"] or 0), row)
            for row in rows
            if row["class"] == name and row["case"] == "distinct" and row["bound"] == "iid"
            if row["kl_nearest_less_harmful"]
        ]
        panel.set_title(name)
        panel.set_xlabel("1 / KL of the nearest less harmful rival")
        if not found:
            panel.text(0.5, 0.5, "no case with a truth\nand such a rival", ha="center", transform=panel.transAxes)
            continue
        found.sort(key=lambda pair: pair[0])
        inverse = np.array([1.0 / divergence for divergence, _ in found])
        for column, label, marker in (("needed_median", "median", "o"), ("needed_q90", "90 % of runs", "^")):
            panel.plot(inverse, [max(_number(row, column), 1) for _, row in found], marker=marker, label=label)
        panel.plot(inverse, inverse, color="0.7", linestyle=":", label="1 / KL")
        panel.axhline(_number(found[0][1], "horizon"), color="0.8", zorder=0)
        panel.set_xscale("log")
        panel.set_yscale("log")
    axes[0][0].set_ylabel("observations until the i.i.d. bound\nholds for good")
    for panel in [panel for panel in axes[0] if panel.lines][:1]:
        panel.legend(frameon=False)
    return png(figure)


def held(rows: Sequence[Row], moments: Sequence[int]) -> bytes:
    """Share of runs in which each bound holds at n, for every class and case, at the closest separation."""
    classes, cases = _distinct(rows, "class"), _distinct(rows, "case")
    figure, axes = panels(len(cases), len(classes), 3.6 * len(classes), 2.8 * len(cases))
    for line, case in zip(axes, cases, strict=True):
        for panel, name in zip(line, classes, strict=True):
            for row in _closest(rows, name, case):
                bound = str(row["bound"])
                shares = [_number(row, f"held_at_{n}") for n in moments]
                panel.plot(np.maximum(moments, 0.5), shares, label=bound, color=COLOURS[bound], linestyle=STYLES[bound])
            panel.set_xscale("log")
            panel.set_ylim(-0.03, 1.03)
            panel.set_title(f"{name}, {case}", fontsize=9)
        line[0].set_ylabel("share of runs that hold")
    for panel in axes[-1]:
        panel.set_xlabel("observations")
    axes[0][0].legend(frameon=False, fontsize=8)
    return png(figure)


def mass(rows: Sequence[Row], moments: Sequence[int]) -> bytes:
    """Median posterior mass of the truth against n, for every separation, where it is a member."""
    classes = _distinct(rows, "class")
    figure, axes = panels(1, len(classes), 4.2 * len(classes), 3.6)
    for panel, name in zip(axes[0], classes, strict=True):
        for row in rows:
            if (row["class"], row["case"], row["bound"]) == (name, "distinct", "iid"):
                medians = [_number(row, f"truth_mass_at_{n}") for n in moments]
                panel.plot(np.maximum(moments, 0.5), medians, label=f"KL {_number(row, 'kl_nearest'):.1g}")
        panel.set_xscale("log")
        panel.set_title(name)
        panel.set_xlabel("observations")
        if panel.lines:
            panel.legend(frameon=False, fontsize=8, title="nearest rival")
    axes[0][0].set_ylabel("posterior mass of the truth (median)")
    return png(figure)


def _distinct(rows: Sequence[Row], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows))


def _closest(rows: Sequence[Row], name: str, case: str) -> list[Row]:
    found = [row for row in rows if row["class"] == name and row["case"] == case]
    least = min(_number(row, "separation") for row in found)
    return [row for row in found if row["separation"] == least]


def _number(row: Row, name: str) -> float:
    value = row[name]
    return float(value) if value is not None else 0.0
