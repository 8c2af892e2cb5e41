"""Old bound against new bound, with the thresholds of both policies."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from guardrail.figures import canvas

if TYPE_CHECKING:
    from pathlib import Path

    from guardrail.comparison import Compared
    from guardrail.domain import Verdict

_CELLS = 500
"""Bounds are drawn to 1/500: what is kept does not grow with the log."""
_THRESHOLDS_KEPT = 8
_SIZES = (24.0, 9.0)
"""Area of one mark in square points, and how much it grows with the log of the number of decisions there."""

_MARKS: dict[str, dict[str, Any]] = {
    "same decision": {"marker": "o", "facecolors": "0.75", "edgecolors": "none", "linewidths": 0.0, "zorder": 2},
    "other flip": {"marker": "s", "facecolors": "none", "edgecolors": "0.3", "linewidths": 0.8, "zorder": 3},
    "no longer accepted": {"marker": "v", "facecolors": "white", "edgecolors": "black", "linewidths": 1.0, "zorder": 4},
    "now accepted": {"marker": "^", "facecolors": "black", "edgecolors": "white", "linewidths": 0.6, "zorder": 5},
}
_LINES = {"reject above": "--", "escalate above": ":"}


class ComparisonPicture:
    """Takes up compared decisions one by one and draws them at the end.

    Args:
        policy: name of the policy.
        old: what to call the old side.
        new: what to call the new side.

    :raises MissingExtra: if matplotlib is not installed.
    """

    def __init__(self, policy: str, old: str, new: str) -> None:
        canvas.require_matplotlib()
        self._policy, self._sides = policy, (old, new)
        self._points: Counter[tuple[str, int, int]] = Counter()
        self._thresholds: tuple[set[tuple[str, float]], set[tuple[str, float]]] = (set(), set())
        self._doubts = 0

    def add(self, one: Compared) -> None:
        """Take up one decision."""
        if one.doubt is not None or one.old is None or one.new is None:
            self._doubts += 1
            return
        self._points[_kind(one), _cell(one.old), _cell(one.new)] += 1
        for known, verdict in zip(self._thresholds, (one.old, one.new), strict=True):
            if len(known) < _THRESHOLDS_KEPT:
                known.add(("reject above", verdict.threshold))
                if verdict.escalate_above is not None:
                    known.add(("escalate above", verdict.escalate_above))

    def save(self, file: Path) -> None:
        """Draw everything that was taken up.

        :raises OSError: if the file cannot be written.
        """
        figure, [[axes]] = canvas.panels(1, 1, 7.0, 6.4)
        axes.plot([0, 1], [0, 1], color="0.85", linewidth=0.8, zorder=1)
        for name, dashes in _LINES.items():
            for draw, side, known in zip((axes.axvline, axes.axhline), self._sides, self._thresholds, strict=True):
                for place, (_, value) in enumerate(sorted(t for t in known if t[0] == name)):
                    label = f"{name}, {side}" if place == 0 else None
                    draw(value, color="0.45", linestyle=dashes, linewidth=1.0, zorder=1, label=label)
        for kind, style in _MARKS.items():
            cells = sorted((old, new, count) for (of, old, new), count in self._points.items() if of == kind)
            total = sum(count for _, _, count in cells)
            xs, ys = ([cell[place] / _CELLS for cell in cells] for place in (0, 1))
            sizes = [_SIZES[0] + _SIZES[1] * math.log(count) for _, _, count in cells]
            axes.scatter(xs, ys, s=sizes, **style)
            axes.scatter([], [], s=40.0, label=f"{kind}: {total}", **style)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel=f"harm bound, {self._sides[0]}", ylabel=f"harm bound, {self._sides[1]}")
        axes.set_title(
            f"{self._policy}: {self._points.total()} decisions compared, {self._doubts} in doubt (not drawn)"
        )
        figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
        canvas.save(figure, file)


def _kind(one: Compared) -> str:
    if one.loosens:
        return "now accepted"
    if not one.flips:
        return "same decision"
    return "no longer accepted" if one.old is not None and one.old.accepted else "other flip"


def _cell(verdict: Verdict) -> int:
    # What is no number in [0, 1] never comes with an accept; it counts as 1, like a bound that there is not.
    value = verdict.harm_bound if 0.0 <= verdict.harm_bound <= 1.0 else 1.0
    return round(value * _CELLS)
