"""What every command shares: exit codes, JSON in and out, errors, text for people."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console

from guardrail.errors import GuardrailError, PolicyError, Problem, SecurityInvalid


class ExitCode(enum.IntEnum):
    """What a command's exit status means."""

    OK = 0
    """Done; for a check: accepted."""
    NO = 1
    """The answer is no: not accepted, a policy is wrong, a suite fails, a replay differs."""
    USAGE = 2
    """The command line is wrong."""
    NO_ANSWER = 3
    """There is no answer: no verdict, no service, no readable store."""


AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Machine-readable output: JSON only on stdout.")]
Target: TypeAlias = Annotated[
    str, typer.Option(envvar="GUARDRAIL_TARGET", metavar="HOST:PORT", help="The service to ask.")
]
Deadline: TypeAlias = Annotated[
    float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for an answer.")
]
PolicyName: TypeAlias = Annotated[str, typer.Option("--policy", metavar="NAME", help="Name of the policy.")]
WorldId: TypeAlias = Annotated[
    str, typer.Option("--world", metavar="ID", help="The world: agents that act in one environment share one.")
]
StoreUrl: TypeAlias = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="GUARDRAIL_STORE",
        show_envvar=True,
        metavar="PATH|URL",
        help="A SQLite file, or postgresql://USER@HOST/DATABASE. "
        "Give a URL with a password in the environment: others see a command line.",
    ),
]
LogUrl: TypeAlias = Annotated[
    str,
    typer.Option(
        "--log",
        envvar="GUARDRAIL_STORE",
        show_envvar=True,
        metavar="PATH|URL",
        help="The store whose logs to read: as for --store of `guardrail serve`. It is only read.",
    ),
]
JsonText: TypeAlias = str
"""An option's text: JSON, `@FILE`, or `@-` for standard input."""

DEFAULT_TARGET = "127.0.0.1:7410"
DEFAULT_DEADLINE = 5.0


def emit(value: Any) -> None:
    """Print one line of JSON. Numbers that JSON lacks become the strings "NaN", "Infinity" and "-Infinity"."""
    typer.echo(json.dumps(jsonable(value), allow_nan=False))


def jsonable(value: Any) -> Any:
    """A value as what JSON can hold; dataclasses become objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    return value


def read_json(text: JsonText, option: str) -> Any:
    """The JSON value of an option's text.

    :raises typer.BadParameter: if the file cannot be read, or it is not JSON.
    """
    source = option
    try:
        if text.startswith("@"):
            source = f"{option} {text}"
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{source} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}") from error


def read_object(text: JsonText, option: str) -> dict[str, Any]:
    """The JSON object of an option's text.

    :raises typer.BadParameter: as `read_json`, or if it is not an object.
    """
    value = read_json(text, option)
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{option} is not a JSON object such as {{"name": 1}}')
    return value


@contextlib.contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn an error that was raised on purpose into a message on stderr and exit status 3."""
    try:
        yield
    except GuardrailError as error:
        report_error(error, as_json=as_json)
        raise typer.Exit(ExitCode.NO_ANSWER) from error


def report_error(error: GuardrailError, *, as_json: bool = False) -> None:
    """Print an error with its stable reason on stderr."""
    message = str(error).removeprefix(f"{error.reason}: ")
    if as_json:
        body: dict[str, Any] = {"reason": error.reason, "message": message}
        if isinstance(error, PolicyError | SecurityInvalid) and error.problems:
            body["problems"] = [problem_to_dict(p) for p in error.problems]
        typer.echo(json.dumps({"error": body}), err=True)
        return
    separator = "\n" if "\n" in message else " "
    typer.echo(f"error [{error.reason}]:{separator}{message}", err=True)


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """One thing wrong in a document as plain values."""
    return {"path": problem.path, "line": problem.line, "column": problem.column, "message": problem.message}


def text_console() -> Console:
    """Where text for people goes: lines are not broken, so that they can be searched."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def progress_console() -> Console:
    """Where progress goes: stderr, so that it never mixes with results."""
    return Console(stderr=True, highlight=False)
