"""How far a command has come, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from guardrail.cli.console import progress_console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """The items, while their number so far is shown as `N what`."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} " + what), TimeElapsedColumn())
    console = progress_console()
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Rich would send what is printed meanwhile to its own stream, which is another one than a file or a pipe.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task("", total=None)
        for item in items:
            yield item
            progress.advance(task)
