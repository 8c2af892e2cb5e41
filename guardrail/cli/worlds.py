"""`guardrail worlds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import (
    DEFAULT_DEADLINE,
    DEFAULT_TARGET,
    AsJson,
    Deadline,
    Target,
    emit,
    errors,
    text_console,
)
from guardrail.cli.verdict import guarantee_lines, posterior_lines, print_lines

if TYPE_CHECKING:
    from guardrail.client.results import WorldEntry, WorldState


def worlds(
    world: Annotated[str | None, typer.Argument(metavar="[WORLD]", help="Show the posterior of this one.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only worlds of this policy; required with WORLD.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """List the worlds that hold observations, or show what one of them believes."""
    if world is not None and policy is None:
        raise typer.BadParameter("say which policy's world: --policy NAME")
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        if world is not None and policy is not None:
            _show(client.world(policy, world), as_json=as_json)
        else:
            _list(list(client.worlds(policy)), as_json=as_json)


def _show(state: WorldState, *, as_json: bool) -> None:
    if as_json:
        emit(state)
        return
    console = text_console()
    console.print(f"{state.policy}, world {state.world}", style="bold")
    revision = ("policy revision", state.policy_revision)
    print_lines(console, [*posterior_lines(state.posterior), *guarantee_lines(state.guarantee), revision])


def _list(entries: list[WorldEntry], *, as_json: bool) -> None:
    if as_json:
        emit({"worlds": entries})
        return
    if not entries:
        typer.echo("no world holds an observation", err=True)
    width = max((len(entry.policy) for entry in entries), default=0)
    for entry in entries:
        typer.echo(f"{entry.policy:<{width}}  {entry.observations:>9}  {entry.world}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail worlds pad-39 --policy oring-launch")(worlds)
