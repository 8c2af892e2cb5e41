"""`guardrail policy init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardrail.cli.console import AsJson, emit

DEFAULT_FAMILY = "beta-bernoulli"


def init(
    name: Annotated[str, typer.Argument(help="The new policy's name: lower-case letters, digits and hyphens.")],
    family: Annotated[
        str, typer.Option(metavar="FAMILY", help="The hypothesis family of the template; a wrong one lists them.")
    ] = DEFAULT_FAMILY,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; policies/NAME if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a new policy with its suite and README: a working template to change. Overwrites nothing."""
    from guardrail.policy.template import template

    try:
        files = template(name, family)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    folder = directory or Path("policies") / name
    written = _write(folder, files)
    if as_json:
        emit({"policy": name, "family": family, "files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: guardrail policy test {folder}")


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write files into a folder, made when missing.

    :raises typer.BadParameter: if one of them is there already, or cannot be written.
    """
    paths = {folder / name: text for name, text in files.items()}
    there = [path for path in paths if path.exists()]
    if there:
        raise typer.BadParameter(f"{there[0]} is there already; give another --directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be written: {error}") from error
    return list(paths)
