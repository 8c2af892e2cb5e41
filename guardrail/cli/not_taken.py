"""`guardrail not-taken`."""

from __future__ import annotations

from typing import Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import DEFAULT_DEADLINE, DEFAULT_TARGET, AsJson, Deadline, Target, emit, errors


def not_taken(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Id of the world.")],
    decisions: Annotated[
        list[str], typer.Argument(metavar="DECISION...", help="Ids of the decisions that accepted the actions.")
    ],
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Say that accepted actions were not carried out, so that their outcomes are not awaited any more.

    Only of actions that were not: what came of the others is to be reported, whatever it was. Saying it again changes
    nothing. If one of the decisions is unknown in this world, or its outcome was reported, none is taken up.
    """
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        released = client.report_not_taken(policy, world, decisions)
    if as_json:
        emit({"released": released})
        return
    typer.echo(f"{released} of {len(decisions)} outcomes were awaited, and are not any more")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "not-taken", epilog="Example: guardrail not-taken oring-launch pad-39 8a1f0c7be2d94e5100000000000000f3"
    )(not_taken)
