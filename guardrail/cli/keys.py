"""`guardrail keys`."""

from __future__ import annotations

import typer

from guardrail.cli.console import AsJson, emit

app = typer.Typer(help="Keys with which callers show who they are.", no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def keys() -> None:
    """Keys with which callers show who they are."""


@app.command(epilog="Example: guardrail keys new")
def new(as_json: AsJson = False) -> None:
    """Make a key, and the hash that stands for it in a callers file.

    The key is shown this once and kept nowhere: give it to the caller, and the hash to the service.
    """
    from guardrail.server.security.keys import hash_line, new_key

    key = new_key()
    if as_json:
        emit({"key": key, "hash": hash_line(key)})
        return
    typer.echo(f"key, for the caller:         {key}")
    typer.echo(f"hash, for the callers file:  {hash_line(key)}")
