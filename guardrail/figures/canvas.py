"""Matplotlib without its global state, imported when a picture is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.errors import MissingExtra

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130


def require_matplotlib() -> None:
    """Find out that no picture can be drawn before the work that it would show.

    :raises MissingExtra: if matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtra("--plot", "sim") from error


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of panels.

    Args:
        rows: number of rows.
        columns: number of columns.
        width: of the figure in inches.
        height: of the figure in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def save(figure: Figure, file: Path) -> None:
    """Write a PNG file; equal figures give equal bytes.

    :raises OSError: if the file cannot be written.
    """
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
