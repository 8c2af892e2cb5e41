"""The paper's figure 1: reward and deaths against the level of the plausible set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulations.figures.canvas import panels, png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from simulations.runner.suite import Row

LINES = {
    "none": ("no guardrail", "0.45", ":"),
    "cheating": ("knows the truth", "tab:green", "--"),
    "predictive": ("posterior predictive", "tab:purple", "-."),
    "iid": ("i.i.d. bound", "tab:red", (0, (5, 1))),
}
"""Bounds without a level are drawn as lines: label, colour, style."""
ORDERS = {
    "all": ("ties: all", "tab:blue", "o"),
    "ascending": ("ties: ascending", "tab:orange", "^"),
    "random": ("ties: random", "tab:brown", "s"),
    "descending": ("ties: descending", "tab:olive", "v"),
}
COLUMNS = (
    ("reward_mean", "reward_se", "mean reward of an episode"),
    ("death_rate", "death_se", "share of episodes that explode"),
)


def reward_and_deaths(rows: Sequence[Row]) -> bytes:
    """A panel for each threshold and measure; bars and bands are one standard error."""
    authors = any(row["accounting"] == "authors" for row in rows)
    thresholds = sorted({float(row["threshold"] or 0.0) for row in rows})
    figure, axes = panels(2, len(thresholds), 4.2 * len(thresholds), 6.8)
    for column, threshold in enumerate(thresholds):
        of_threshold = [row for row in rows if row["threshold"] == threshold]
        for line, (value, error, label) in enumerate(COLUMNS):
            _panel(axes[line][column], of_threshold, value, error)
            if column == 0:
                axes[line][column].set_ylabel(f"{label}\nbefore the last step" if authors and line == 1 else label)
        axes[0][column].set_title(f"reject above C = {threshold:g}")
        axes[1][column].set_xlabel("α, level of the plausible set")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return png(figure)


def _panel(panel: Axes, rows: Sequence[Row], value: str, error: str) -> None:
    def number(row: Row, name: str) -> float:
        value = row[name]
        return float(value) if value is not None else 0.0

    for kind, (label, colour, style) in LINES.items():
        for row in rows:
            if row["guardrail"] == kind:
                mean, half = number(row, value), number(row, error)
                panel.axhline(mean, color=colour, linestyle=style, label=label)
                panel.axhspan(mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    for order, (label, colour, marker) in ORDERS.items():
        found = sorted(
            (number(row, "alpha"), number(row, value), number(row, error))
            for row in rows
            if row["guardrail"] == "plausible" and row["ties"] == order and row["alpha"]
        )
        if found:
            alphas, means, errors = zip(*found, strict=True)
            panel.errorbar(alphas, means, errors, label=f"plausible set, {label}", color=colour, marker=marker, ms=4)
    # The confidence is 1 - alpha / P(truth): nothing is promised from alpha = P(truth) on.
    edges = [number(row, "alpha") / (1.0 - number(row, "confidence")) for row in rows if _promises(row)]
    if edges:
        panel.axvline(edges[0], color="0.8", zorder=0)
        ratio = [row for row in rows if row["guardrail"] == "ratio"]
        panel.errorbar(
            [number(row, "delta") * edges[0] for row in ratio],
            [number(row, value) for row in ratio],
            [number(row, error) for row in ratio],
            fmt="D",
            ms=7,
            markerfacecolor="none",
            color="black",
            label="ratio set, δ at α = δ P(truth)",
        )
        panel.annotate(
            "no promise →",
            (edges[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color="0.4",
        )
    panel.set_xscale("log")


def _promises(row: Row) -> bool:
    return row["guardrail"] == "plausible" and bool(row["alpha"]) and row["confidence"] is not None
