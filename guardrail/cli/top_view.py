"""A frame of `guardrail top` as text for a terminal. Pure: the same frame and size give the same text.

Words and signs say everything, colour only repeats it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from guardrail.cli.top_state import BusyWorld, Frame, Seen, Shares
from guardrail.cli.verdict import STYLES
from guardrail.domain import Decision

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

BAR_CELLS: Final = 10
BAR_THRESHOLD: Final = 6
"""In which cell of a bar the threshold stands; a bar that is cut off ends in `>`."""
_FOUND: Final = {Decision.ACCEPT: "accept", Decision.ESCALATE: "ESCALATE", Decision.REJECT: "REJECT"}
_HEALTH: Final = {
    "SERVING": ("serving", "green"),
    "NOT_SERVING": ("NOT SERVING", "bold red"),
    "UNREACHABLE": ("NO ANSWER", "bold red"),
}
_WIDE: Final = 110
"""From so many columns on the sentence of a reason is shown, too."""


@dataclass(frozen=True, slots=True)
class View:
    """A frame, drawn as large as the terminal is at the moment of drawing.

    Attributes:
        frame: what is shown.
        height: rows; None for as many as it takes.
    """

    frame: Frame
    height: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it; rich calls this."""
        yield from render(self.frame, options.max_width, None if self.height is None else console.size.height)


def render(frame: Frame, width: int, height: int | None = None) -> list[RenderableType]:
    """The parts from top to bottom.

    Args:
        frame: what is shown.
        width: columns.
        height: rows; None for as many as it takes.
    """
    parts: list[RenderableType] = [_line(part) for part in _head(frame)]
    left = None if height is None else height - len(parts) - 1
    for rows, table, least in (
        (frame.policies, functools.partial(_policies, frame.policies), 3),
        (frame.worlds, functools.partial(_worlds, frame.worlds), 3),
        (frame.decisions, functools.partial(_decisions, frame.decisions), None),
    ):
        count = len(rows)
        if left is not None:  # a blank line and a heading above the rows
            count = min(count, left - 2 if least is None else min(left - 2, max(least, left // 4)))
        if count > 0:
            parts += [Text(""), table(count, width)]
            left = None if left is None else left - count - 2
    return parts


def _head(frame: Frame) -> Iterator[Text]:
    link, clock = frame.link, _clock(frame.now)
    line = Text.assemble(("guardrail top", "bold"), f"  {plain(frame.target)}  {clock} UTC  ")
    seconds = _duration(frame.now - link.since)
    if link.connected:
        yield line.append(f"connected for {seconds}", "green")
    else:
        yield line.append("NOT CONNECTED", "bold red")
        yield Text(f"no contact for {seconds}: {plain(link.why)}", "bold red")
        yield Text("what stands below is old; trying again", "bold red")
    if link.reconnects:
        times = "once" if link.reconnects == 1 else f"{link.reconnects} times"
        yield Text(f"connected anew {times}; what was decided meanwhile is missing here", "yellow")
    parts = Text("health  ")
    for name, status in frame.health.items():
        word, style = _HEALTH.get(status, (status, "bold red"))
        parts.append(f"{name.removeprefix('guardrail.') or 'service'} ").append(word, style).append("  ")
    yield parts
    for code, message in frame.notices.items():
        yield Text(f"! {plain(code)}: {plain(message)}", "yellow")
    total = sum(p.total for p in frame.policies)
    rate = sum(p.per_second for p in frame.policies)
    shares = "  ".join(
        f"{name} {_share(sum(getattr(p, name) for p in frame.policies), total)}"
        for name in ("accept", "escalate", "reject")
    )
    yield Text(f"{rate:.1f} decisions/s  {shares}  (last {frame.window_seconds:.0f} s; {frame.seen} seen)")
    if any(p.shadow for p in frame.policies):
        yield Text("SHADOW: what is marked so was let through whatever was found", "bold magenta")


def _policies(rows: Sequence[Shares], count: int, width: int) -> Table:
    table = _table(width)
    table.add_column("policy", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("per s", "accept", "escalate", "reject", "SHADOW"):
        table.add_column(name, justify="right", width=8, no_wrap=True)
    for row in rows[:count]:
        table.add_row(
            _line(Text(plain(row.policy) if row.loaded else f"{plain(row.policy)} (not loaded)")),
            f"{row.per_second:.1f}",
            *(_share(count, row.total) for count in (row.accept, row.escalate, row.reject)),
            Text(_share(row.shadow, row.total) if row.shadow else "", "bold magenta"),
        )
    return table


def _worlds(rows: Sequence[BusyWorld], count: int, width: int) -> Table:
    table = _table(width)
    table.add_column("busiest worlds", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("policy", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("decisions", justify="right", width=9, no_wrap=True)
    for row in rows[:count]:
        world = Text(plain(row.world))
        for code in row.notices:
            world.append(f"  ! {plain(code)}", "yellow")
        table.add_row(_line(world), plain(row.policy), str(row.decisions))
    return table


def _decisions(rows: Sequence[Seen], count: int, width: int) -> Table:
    table = _table(width)
    table.add_column("time", width=8, no_wrap=True)
    table.add_column("policy", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("world", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("decision", width=15, no_wrap=True)
    table.add_column("bound", width=BAR_CELLS + 7, no_wrap=True)
    table.add_column("reason", ratio=8 if width >= _WIDE else 3, no_wrap=True, overflow="ellipsis")
    for row in rows[:count]:
        reason = f"{row.reason}: {row.message}" if width >= _WIDE and row.message else row.reason
        table.add_row(
            _clock(row.at),
            plain(row.policy),
            plain(row.world),
            found(row),
            f"{bar(row.harm_bound, row.threshold)} {row.harm_bound:<6.3g}"[: BAR_CELLS + 7],
            plain(reason),
        )
    return table


def found(row: Seen) -> Text:
    """The decision in a word; what shadow mode let through is marked, and reads unlike any enforced decision."""
    if not row.shadow:
        return Text(_FOUND[row.decision], STYLES[row.decision])
    return Text.assemble(("SHADOW ", "bold magenta reverse"), (_FOUND[row.decision], STYLES[row.decision]))


def bar(bound: float, threshold: float) -> str:
    """A bound against its threshold: `=` up to the bound, `|` where the threshold stands.

    The part left of `|` is the room up to the threshold; whatever passes it is above. What is no number is above.
    """
    above = math.isnan(bound) or bound > threshold  # as it is judged: a quotient would round
    share = bound / threshold if threshold > 0.0 and not math.isnan(bound) else math.inf
    right_cells = BAR_CELLS - BAR_THRESHOLD - 1
    left, over = BAR_THRESHOLD, 0
    if above:
        over = max(1, math.ceil(min(share - 1.0, 10.0) * BAR_THRESHOLD))
    else:
        left = 0 if bound <= 0.0 else min(BAR_THRESHOLD, math.floor(share * BAR_THRESHOLD))
    right = "=" * (right_cells - 1) + ">" if over > right_cells else "=" * over
    return f"{'=' * left:<{BAR_THRESHOLD}}|{right:<{right_cells}}"


def plain(text: str) -> str:
    """Text of a service without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _table(width: int) -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), width=width, header_style="dim", pad_edge=False)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "-"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"
