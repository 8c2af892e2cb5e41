"""How far the work is: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class Silent:
    """Tells nobody."""

    def start(self, chunks: int, all_chunks: int, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""


class Lines:
    """A line at most every SECONDS_BETWEEN_LINES, and one at the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done = self._total = self._before = 0
        self._unit = ""
        self._began = self._last = 0.0

    def start(self, chunks: int, all_chunks: int, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""
        self._done, self._total, self._unit, self._before = done, total, unit, done
        self._began = self._last = self._clock()
        if chunks:
            sys.stderr.write(_kept(chunks, all_chunks))

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""
        self._done += work
        now = self._clock()
        if self._done < self._total and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = (self._done - self._before) / max(now - self._began, 1e-3)
        left = f", {(self._total - self._done) / rate:,.0f} s left" if 0 < self._done < self._total else ""
        sys.stderr.write(f"{self._done:,} of {self._total:,} {self._unit}, {_rate(rate, self._unit)}{left}\n")
        sys.stderr.flush()


class Bar:
    """A bar with the rate and the time that is left."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(file=sys.stderr, highlight=False),
            redirect_stdout=False,
        )

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, chunks: int, all_chunks: int, done: int, total: int, unit: str) -> None:
        """See `execute.Progress.start`."""
        if chunks:
            self._bar.console.print(_kept(chunks, all_chunks), end="")
        self._task = self._bar.add_task(unit, total=total, completed=done)

    def advance(self, work: int) -> None:
        """See `execute.Progress.advance`."""
        self._bar.advance(self._task, work)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else _rate(task.speed, task.description))


def _rate(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"


def _kept(chunks: int, all_chunks: int) -> str:
    return f"going on: {chunks} of {all_chunks} chunks are there already\n"
