"""Harm against predicted harm with its confidence sequence, and the evidence against the bounds, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guardrail.calibration import residuals
from guardrail.figures import canvas

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from guardrail.calibration_log import Calibration, Row


def save(calibration: Calibration, file: Path) -> None:
    """Draw the rows whose course was kept, one line of panels each.

    :raises MissingExtra: if matplotlib is not installed.
    :raises OSError: if the file cannot be written.
    """
    canvas.require_matplotlib()
    rows = [row for row in calibration.rows if row.course is not None and row.course.points]
    figure, panels = canvas.panels(len(rows), 2, 10.0, 3.2 * len(rows))
    for row, (left, right) in zip(rows, panels, strict=True):
        _predictions(left, row, calibration.alpha)
        _evidence(right, row, calibration.threshold)
        left.set_title(row.title, fontsize="small")
        told = "no alarm" if row.alarm_at is None else f"ALARM at outcome {row.alarm_at}"
        right.set_title(f"{told}; {row.accepted_unreported} accepted decisions without report", fontsize="small")
    shown, every = len(rows), sum(row.outcomes > 0 for row in calibration.rows)
    if shown < every:
        figure.suptitle(f"the {shown} of {every} worlds with the most evidence against their bounds")
    canvas.save(figure, file)


def _predictions(axes: Axes, row: Row, alpha: float) -> None:
    assert row.course is not None
    sums = residuals.Residuals(*(np.array(column) for column in zip(*(p[2] for p in row.course.points), strict=True)))
    seen = np.asarray(sums.outcomes) > 0
    sums = residuals.Residuals(*(np.asarray(column)[seen] for column in sums))
    x = np.asarray(sums.outcomes)
    if row.steps > 1:
        axes.text(0.5, 0.5, f"predictions are about {row.steps} steps,\noutcomes show one", ha="center", va="center")
    elif len(x):
        mean, radius = np.asarray(sums.harms) / x, residuals.radius(sums, alpha)
        axes.fill_between(x, np.maximum(0.0, mean - radius), np.minimum(1.0, mean + radius), color="0.85", zorder=1)
        axes.plot(x, mean, color="black", linewidth=1.4, label=f"mean harm, confidence sequence {1 - alpha:.4g}")
        axes.plot(x, np.asarray(sums.predicted) / x, color="tab:blue", linestyle="--", label="mean predicted harm")
        axes.set_ylim(0.0, min(1.0, 2.0 * float(max(mean[-1] + radius[-1], mean.max(), (sums.predicted / x).max()))))
        axes.legend(fontsize="x-small", frameon=False, loc="upper right")
    axes.set(xlabel="outcomes with a prediction", ylabel="probability of harm")


def _evidence(axes: Axes, row: Row, threshold: float) -> None:
    assert row.course is not None
    x, y = [point[0] for point in row.course.points], [point[1] for point in row.course.points]
    axes.plot(x, y, color="black", linewidth=1.2, label="log e-value against the bounds")
    axes.axhline(threshold, color="tab:red", linestyle="--", label=f"alarm at {threshold:.3g}")
    if row.alarm_at is not None:
        axes.axvline(row.alarm_at, color="0.5", linestyle=":")
    axes.set_ylim(top=1.35 * max(threshold, *y))  # room for the legend, and always in view how far it is to an alarm
    axes.legend(fontsize="x-small", frameon=False, loc="upper left", ncols=2)
    axes.set(xlabel="reported outcomes", ylabel="nats")
