"""`guardrail check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import (
    DEFAULT_DEADLINE,
    DEFAULT_TARGET,
    AsJson,
    Deadline,
    ExitCode,
    Target,
    emit,
    errors,
    read_json,
    read_object,
    text_console,
)
from guardrail.cli.verdict import print_verdict
from guardrail.records import verdict_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.client.sync import Client
    from guardrail.domain import Verdict


def check(
    context: Annotated[
        str, typer.Option(metavar="JSON", help="The context's fields: JSON, @FILE, or @- for stdin.")
    ] = "{}",
    action: Annotated[str | None, typer.Option(metavar="JSON", help="The action's fields: JSON, @FILE or @-.")] = None,
    actions: Annotated[
        str | None, typer.Option(metavar="JSON", help="Several candidates: a JSON list of actions, @FILE or @-.")
    ] = None,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the service's policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="The world whose observations count.")] = None,
    policy_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check in process, before any observation, without a service.")
    ] = None,
    min_revision: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Observations that the verdict must rest on: what `report` printed."),
    ] = None,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether an action may be carried out. Changes no belief.

    Exit status: 0 only if it is accepted (with --actions: if all are), 1 if it is not, 3 if there is no
    verdict. Whatever is not 0 means: do not act. With --actions, `allowed` lists the accepted
    candidates, smallest harm bound first.
    """
    asked_context = read_object(context, "--context")
    asked_actions = _actions(action, actions)
    with errors(as_json):
        if policy_file is not None:
            if policy is not None:
                raise typer.BadParameter("give either --policy or --policy-file")
            if min_revision:
                raise typer.BadParameter("--min-revision asks a service: with --policy-file there are no observations")
            verdicts = _in_process(policy_file, world or "local", asked_context, asked_actions)
        elif policy is None or world is None:
            raise typer.BadParameter("give --policy and --world, or --policy-file")
        else:
            with connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
                verdicts = _ask(client, policy, world, asked_context, asked_actions, min_revision)
    accepted = sorted((i for i, v in enumerate(verdicts) if v.accepted), key=lambda i: verdicts[i].harm_bound)
    if as_json and actions is None:
        emit(verdict_to_dict(verdicts[0]))
    elif as_json:
        emit({"verdicts": [verdict_to_dict(v) for v in verdicts], "allowed": accepted})
    else:
        _print(verdicts, accepted if actions is not None else None)
    raise typer.Exit(ExitCode.OK if len(accepted) == len(verdicts) else ExitCode.NO)


def _actions(action: str | None, actions: str | None) -> list[dict[str, Any]]:
    if action is not None and actions is not None:
        raise typer.BadParameter("give either --action or --actions")
    if actions is None:
        return [read_object("{}" if action is None else action, "--action")]
    candidates = read_json(actions, "--actions")
    if not (isinstance(candidates, list) and candidates and all(isinstance(c, dict) for c in candidates)):
        raise typer.BadParameter("--actions is not a JSON list of one or more objects")
    return candidates


def _in_process(
    policy_file: Path, world: str, context: dict[str, Any], actions: list[dict[str, Any]]
) -> Sequence[Verdict]:
    from guardrail.guard import Guard

    return Guard.from_file(policy_file, world=world).check_many(context, actions)


def _ask(
    client: Client,
    policy: str,
    world: str,
    context: dict[str, Any],
    actions: list[dict[str, Any]],
    min_revision: int | None,
) -> Sequence[Verdict]:
    where: dict[str, Any] = {"policy": policy, "world": world, "context": context, "min_revision": min_revision}
    if len(actions) == 1:
        return [client.check(**where, action=actions[0])]
    return client.check_many(**where, actions=actions).verdicts


def _print(verdicts: Sequence[Verdict], allowed: list[int] | None) -> None:
    console = text_console()
    for place, verdict in enumerate(verdicts):
        if allowed is not None:
            console.print(f"candidate {place}", style="bold")
        print_verdict(console, verdict)
    if allowed is not None:
        console.print(f"allowed, smallest harm bound first: {', '.join(map(str, allowed)) or 'none'}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: guardrail check --policy oring-launch --world pad-39 "
        """--context '{"joint_temperature_f": 31}' --action '{}'"""
    )(check)
