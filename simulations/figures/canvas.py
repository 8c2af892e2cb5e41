"""Matplotlib without its global state: a figure goes in, the bytes of a PNG file come out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of panels.

    Args:
        rows: number of rows.
        columns: number of columns.
        width: of the figure in inches.
        height: of the figure in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def png(figure: Figure) -> bytes:
    """The figure as a PNG file: equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
