"""How commands reach a service: where it is, and what shows who asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from guardrail.client.access import Tls
    from guardrail.client.sync import Client

TOKEN = "GUARDRAIL_TOKEN"  # noqa: S105  (a name, no secret)
"""The environment variable that holds a key or token. There is no option for it: command lines are read by others."""

TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="GUARDRAIL_TOKEN_FILE",
        metavar="FILE",
        help=f"A file with the key or token that says who asks; without it the environment's {TOKEN}, if set.",
    ),
]
TlsCa: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="GUARDRAIL_TLS_CA", metavar="FILE", help="Connect by TLS; who signed the service's certificate, PEM."
    ),
]
TlsCert: TypeAlias = Annotated[
    Path | None,
    typer.Option(envvar="GUARDRAIL_TLS_CERT", metavar="FILE", help="Connect by TLS with this client certificate, PEM."),
]
TlsKey: TypeAlias = Annotated[
    Path | None,
    typer.Option(envvar="GUARDRAIL_TLS_KEY", metavar="FILE", help="The client certificate's private key, PEM."),
]


def connect(
    target: str,
    deadline: float,
    token_file: Path | None = None,
    tls_ca: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Client:
    """A client as the options say.

    :raises typer.BadParameter: if a file cannot be read, or the options do not fit together.
    """
    from guardrail.client.sync import Client

    try:
        token = os.environ.get(TOKEN) or None
        if token_file is not None:
            token = token_file.read_text(encoding="ascii").strip()
        return Client(target, timeout=deadline, token=token, tls=tls_of(tls_ca, tls_cert, tls_key))
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{token_file} holds no key or token") from error
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def tls_of(tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None) -> Tls | None:
    """How to encrypt the connection; None for plaintext.

    :raises typer.BadParameter: if a certificate comes without its key, or the reverse.
    """
    from guardrail.client.access import Tls

    if tls_ca is None and tls_cert is None and tls_key is None:
        return None
    try:
        return Tls(tls_ca, tls_cert, tls_key)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
