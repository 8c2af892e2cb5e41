"""`guardrail keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardrail.cli.console import AsJson, emit, errors

app = typer.Typer(
    help="Keys: with which callers show who they are, and which sign the decision log.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def keys() -> None:
    """Keys: with which callers show who they are, and which sign the decision log."""


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


@app.command(epilog="Example: guardrail keys signing /etc/guardrail/signing.pem > signing-public.pem")
def signing(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to keep the private key; a new file.")],
    as_json: AsJson = False,
) -> None:
    """Make the key with which `guardrail serve --signing-key FILE` signs the decision log, and show its public key.

    The file is readable by its owner only. Keep the public key where those who write to the store cannot change it:
    `guardrail audit verify --public-key` takes it.
    """
    with errors(as_json):
        from guardrail.signing import public_pem, write_private_key

        public = public_pem(write_private_key(file))
    if as_json:
        emit({"file": str(file), "public_key": public})
    else:
        typer.echo(public, nl=False)
