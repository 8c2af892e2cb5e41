"""Hypotheses, parameters and outcomes as text for people."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import emit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from guardrail.domain import Hypothesis, Parameter, PosteriorDetail
    from guardrail.store.base import ObservationRecord

MEMBERSHIP = {True: "plausible", False: "ruled out", None: ""}
"""What stands beside a hypothesis; nothing where bounds rest on no plausible set."""


def print_detail(console: Console, detail: PosteriorDetail) -> None:
    """Print what there is: hypotheses with their posterior masses, or parameters with their moments and ranges."""
    if detail.hypotheses:
        rows = [hypothesis_row(one) for one in detail.hypotheses]
        _table(console, ("posterior", "", "hypothesis", "parameters"), rows, right=(0,))
    if detail.parameters:
        rows = [parameter_row(one) for one in detail.parameters]
        _table(console, ("parameter", "mean", "sd", "plausible from", "to"), rows, right=(1, 2, 3, 4))


def hypothesis_row(one: Hypothesis) -> tuple[str, ...]:
    """Posterior mass, membership of the plausible set, name, parameters that the name does not tell."""
    return f"{math.exp(one.log_posterior):.4g}", MEMBERSHIP[one.plausible], one.name, parameters_text(one)


def parameters_text(one: Hypothesis) -> str:
    """Parameters in one line, but for those that stand in the name."""
    shown: Mapping[str, float] = one.parameters
    return ", ".join(f"{name}={value:.4g}" for name, value in shown.items() if name not in one.name)


def parameter_row(one: Parameter) -> tuple[str, ...]:
    """Name, mean, standard deviation, and the ends of the plausible values; `?` where they are not known."""
    ends = ("?" if end is None else f"{end:.4g}" for end in (one.plausible_low, one.plausible_high))
    return one.name, f"{one.mean:.4g}", f"{one.deviation:.4g}", *ends


def print_outcome(one: ObservationRecord, *, as_json: bool) -> None:
    """Print one observation of a log."""
    at = datetime.fromtimestamp(one.recorded_at, UTC)
    content = json.loads(one.content)
    if as_json:
        emit(
            {
                "number": one.sequence,
                "observation_id": one.observation_id,
                **content,
                "recorded_at": at,
                "reporter": one.reporter,
            }
        )
        return
    what = "  ".join(f"{name} {json.dumps(content[name], sort_keys=True)}" for name in ("outcome", "action", "context"))
    when = at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    by = f"  by {one.reporter}" if one.reporter else ""
    # A reporter may choose any id, and a terminal must not obey it.
    name = one.observation_id if one.observation_id.isprintable() else json.dumps(one.observation_id)
    typer.echo(f"{one.sequence:>7}  {when}  {name}  {what}{by}")


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    """Print rows in columns as wide as what stands in them, those in `right` set to the right; no empty columns."""
    from rich.text import Text

    filled = [any(row[place] for row in rows) for place in range(len(head))]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for number, row in enumerate((head, *rows)):
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            if filled[place]
        ]
        console.print(Text("  " + "  ".join(cells).rstrip(), "dim" if number == 0 else "default"))
