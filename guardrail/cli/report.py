"""`guardrail report`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import (
    DEFAULT_DEADLINE,
    DEFAULT_TARGET,
    AsJson,
    Deadline,
    PolicyName,
    Target,
    WorldId,
    emit,
    errors,
    read_json,
    read_object,
    text_console,
)


def report(
    policy: PolicyName,
    world: WorldId,
    outcome: Annotated[
        str, typer.Option(metavar="JSON", help="What came of it: the outcome's field or bare value; JSON, @FILE or @-.")
    ],
    context: Annotated[str, typer.Option(metavar="JSON", help="The context in which it was done.")] = "{}",
    action: Annotated[str, typer.Option(metavar="JSON", help="The action that was done.")] = "{}",
    observation_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Names this observation; a repeated id counts once. A fresh one if not given."),
    ] = None,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Report the outcome of an action that was carried out: every one, whatever came of it, once.

    When this returns 0, the observation is durable and later checks rest on it. If it fails, report again
    with the same --observation-id.
    """
    what, done, came = (
        read_object(context, "--context"),
        read_object(action, "--action"),
        read_json(outcome, "--outcome"),
    )
    with errors(as_json):
        from guardrail.client.results import new_observation_id

        name = observation_id or new_observation_id()
        if observation_id is None:
            # Before the call, so that it is known should the call fail.
            typer.echo(json.dumps({"observation_id": name}) if as_json else f"observation id {name}", err=True)
        with connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
            result = client.report(
                policy=policy, world=world, context=what, action=done, outcome=came, observation_id=name
            )
    if as_json:
        emit(result)
        return
    again = "was counted before as" if result.duplicate else "is"
    text_console().print(f"{result.observation_id} {again} observation {result.posterior_revision} of world {world}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: guardrail report --policy oring-launch --world pad-39 "
        """--context '{"joint_temperature_f": 66}' --outcome '{"damaged": false}' --observation-id flight-1"""
    )(report)
