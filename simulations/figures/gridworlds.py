"""The picture of the suite `gridworlds`: falls and goals against delta, with and without a guardrail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulations.figures.canvas import panels, png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.runner.suite import Row

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKERS = ("o", "^", "s", "D", "v")
TITLES = {
    "lake": "FrozenLake, slips 1/3 to each side",
    "lake-slight": "FrozenLake, slips 1/12 to each side",
    "lake-dry": "FrozenLake, never slips",
    "cliff": "CliffWalking, slips 1/3 to each side",
    "cliff-dry": "CliffWalking, never slips",
}


def draw(rows: Sequence[Row]) -> bytes:
    """One column for each world: above the share of episodes with a fall, below that of goals reached."""
    worlds = list(dict.fromkeys(str(row["world"]) for row in rows))
    thresholds = sorted({_number(row, "threshold") for row in rows if row["threshold"] is not None})
    figure, axes = panels(2, len(worlds), 3.3 * len(worlds), 5.6)
    for line, what in zip(axes, ("falls", "goals"), strict=True):
        for panel, name in zip(line, worlds, strict=True):
            of_world = [row for row in rows if row["world"] == name]
            for row in of_world:
                if row["guardrail"] == "none":
                    panel.axhline(_number(row, what), color="0.25", linestyle="--", label="no guardrail")
            for place, threshold in enumerate(thresholds):
                found = [row for row in of_world if row["threshold"] == threshold]
                panel.errorbar(
                    [_number(row, "delta") for row in found],
                    [_number(row, what) for row in found],
                    [2.0 * _number(row, f"{what}_se") for row in found],
                    color=COLOURS[place % len(COLOURS)],
                    marker=MARKERS[place % len(MARKERS)],
                    capsize=2,
                    label=f"rejects above {threshold:g}",
                )
            panel.set_xscale("log")
            panel.set_ylim(-0.03, 1.03)
        line[0].set_ylabel(f"share of episodes with a {'fall' if what == 'falls' else 'goal'}")
    for panel, name in zip(axes[0], worlds, strict=True):
        panel.set_title(TITLES.get(name, name), fontsize=9)
    for panel in axes[1]:
        panel.set_xlabel("delta")
    axes[0][0].legend(frameon=False, fontsize=8)
    return png(figure)


def _number(row: Row, name: str) -> float:
    value = row[name]
    return float(value) if value is not None else 0.0
