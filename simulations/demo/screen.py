"""How verdicts look on the demo's screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from guardrail.cli.verdict import STYLES, verdict_lines

if TYPE_CHECKING:
    from rich.console import Console

    from guardrail import Verdict


@contextlib.contextmanager
def live(table: Table, console: Console) -> Iterator[Callable[[], None]]:
    """Show a table that grows; yields what redraws it. Without a terminal it is printed once, at the end."""
    with Live(table, console=console, auto_refresh=False) as screen:
        yield screen.refresh
    if not console.is_terminal:
        console.print()


def decision_text(verdict: Verdict) -> Text:
    """The decision in its colour."""
    return Text(verdict.decision.value, STYLES[verdict.decision])


def number_text(value: float | None) -> str:
    """A probability; a dash if there is none."""
    return "-" if value is None else f"{value:.3f}"


def verdict_panel(title: str, verdict: Verdict) -> Panel:
    """Everything a person needs to understand a verdict, in a frame."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("decision", Text(verdict.decision.value.upper(), STYLES[verdict.decision]))
    for label, value in verdict_lines(verdict):
        grid.add_row(label, Text(value))
    return Panel(grid, title=title, border_style=STYLES[verdict.decision])
