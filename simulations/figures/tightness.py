"""The paper's figure 2, beside the event that the theorem speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulations.figures.canvas import panels, png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.runner.suite import Row

COLOURS = {"all": "tab:blue", "ascending": "tab:orange", "random": "tab:brown", "descending": "tab:olive"}


def overestimates(rows: Sequence[Row]) -> bytes:
    """Share of steps and of whole episodes in which the bound holds; quartiles where the true harm is 1/2."""
    figure, axes = panels(1, 3, 14.0, 4.4)
    steps, episodes, even = axes[0]
    plausible = [row for row in rows if row["guardrail"] == "plausible" and _number(row, "alpha") > 0.0]
    orders = [order for order in COLOURS if any(row["ties"] == order for row in plausible)]
    for place, order in enumerate(orders):
        found = sorted((row for row in plausible if row["ties"] == order), key=lambda row: _number(row, "alpha"))
        alphas = [_number(row, "alpha") for row in found]
        label, colour = f"ties: {order}", COLOURS[order]
        for panel, name in ((steps, "overestimate"), (episodes, "held")):
            rate_name = "overestimate_mean" if name == "overestimate" else "held_rate"
            rates, errors = ([_number(row, column) for row in found] for column in (rate_name, f"{name}_se"))
            panel.errorbar(alphas, rates, errors, marker="o", ms=4, label=label, color=colour)
        shifted = np.array(alphas) * 1.12 ** (place - (len(orders) - 1) / 2)
        median = np.array([_number(row, "even_median") for row in found])
        low, high = (np.array([_number(row, column) for row in found]) for column in ("even_q25", "even_q75"))
        even.errorbar(shifted, median, [median - low, high - median], fmt="o", ms=4, capsize=3, color=colour)
    promised = sorted((_number(r, "alpha"), _number(r, "confidence")) for r in plausible if r["confidence"] is not None)
    if promised:
        alphas, confidences = (list(column) for column in zip(*dict(promised).items(), strict=True))
        episodes.plot(alphas, confidences, color="black", linestyle="--", label="promised at least")
    even.axhline(0.5, color="0.5", linestyle=":", label="true harm")
    steps.set_title("steps whose pulled arm's bound holds\n(what the paper shows)")
    episodes.set_title("episodes in which every bound holds\n(what the theorem speaks of)")
    even.set_title("bound where the true harm is 1/2\n(median and quartiles)")
    for panel in axes[0]:
        panel.set_xscale("log")
        panel.set_xlabel("α, level of the plausible set")
        panel.set_ylim(0.0, 1.04)
    if plausible:
        episodes.legend(frameon=False, loc="lower left")
    even.legend(frameon=False, loc="lower left")
    return png(figure)


def _number(row: Row, name: str) -> float:
    value = row[name]
    return float(value) if value is not None else 0.0
