"""A table for machines (JSON, CSV) and for people."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simulations.runner.suite import Row

WIDEST = 10_000
"""Lines are not broken, so that they can be searched."""


def as_json(configuration: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """One JSON object with `config` and `rows`; a number that is not finite is null."""
    return json.dumps({"config": _finite(dict(configuration)), "rows": _finite(list(rows))}, allow_nan=False)


def as_csv(rows: Sequence[Row]) -> str:
    """A header and a line for each row; nothing stands for None, numbers are written so that they read back alike.

    :raises ValueError: if the rows do not all have the same keys.
    """
    text = io.StringIO()
    names = list(rows[0]) if rows else []
    if any(set(row) != set(names) for row in rows):
        raise ValueError("the rows of the table do not all have the same keys")
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def as_table(rows: Sequence[Row]) -> str:
    """The table as text, as wide as it is; columns with one value throughout stand below it."""
    if not rows:
        return "no rows\n"
    constant = [name for name in rows[0] if len(rows) > 1 and all(row[name] == rows[0][name] for row in rows)]
    table = Table(box=box.SIMPLE, pad_edge=False)
    columns = [name for name in rows[0] if name not in constant]
    for name in columns:
        table.add_column(name, justify="left" if isinstance(_first(rows, name), str) else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_short(row[name]) for name in columns))
    console = Console(
        file=io.StringIO(),
        force_terminal=sys.stdout.isatty(),
        width=WIDEST,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().strip("\n").splitlines()]
    told = ", ".join(f"{name} {_short(rows[0][name])}" for name in constant if rows[0][name] is not None)
    return "\n".join([*lines, *(["", told] if told else [])]) + "\n"


def _first(rows: Sequence[Row], name: str) -> object:
    return next((row[name] for row in rows if row[name] is not None), None)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: object) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
