"""A table for machines (JSON, CSV) and for people."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simulations.runner.suite import Row


def as_json(configuration: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """One JSON object with `config` and `rows`; a number that is not finite is null."""
    return json.dumps({"config": _finite(dict(configuration)), "rows": _finite(list(rows))}, allow_nan=False)


def as_csv(rows: Sequence[Row]) -> str:
    """A header and a line for each row; nothing stands for None, numbers are written so that they read back alike."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def show(rows: Sequence[Row]) -> None:
    """Print the table; columns with one value throughout stand above it."""
    constant = {name: value for name, value in rows[0].items() if len(rows) > 1 and _same(rows, name)}
    console = Console()
    # A table that is piped on is as wide as it needs to be.
    console.width = console.width if console.is_terminal else 240
    table = Table(caption=", ".join(f"{name} {_short(value)}" for name, value in constant.items() if value is not None))
    columns = [name for name in rows[0] if name not in constant]
    for name in columns:
        table.add_column(name, justify="left" if isinstance(_first(rows, name), str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_short(row[name]) for name in columns))
    console.print(table)


def _same(rows: Sequence[Row], name: str) -> bool:
    return all(row[name] == rows[0][name] for row in rows)


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
