"""How far the work is: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class Silent:
    """Tells nobody."""

    def start(self, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""


class Lines:
    """A line at the start, at the end, and at most every SECONDS_BETWEEN_LINES between."""

    def __init__(self) -> None:
        self._done = self._total = 0
        self._unit = ""
        self._last = -SECONDS_BETWEEN_LINES

    def start(self, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""
        self._done, self._total, self._unit = done, total, unit
        if done:
            sys.stderr.write(f"{done} of {total} {unit} were there already\n")

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""
        self._done += work
        now = time.monotonic()
        if self._done == self._total or now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            sys.stderr.write(f"{self._done} of {self._total} {self._unit}\n")
            sys.stderr.flush()


class Bar:
    """A bar with the rate and the time that is left."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""
        self._task = self._bar.add_task(unit, total=total, completed=done)

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""
        self._bar.advance(self._task, work)
