"""`guardrail approvals list|show|approve|deny`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.approvals import EscalationState
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
    jsonable,
    text_console,
)
from guardrail.cli.verdict import Line, print_lines, print_verdict
from guardrail.records import verdict_to_dict

if TYPE_CHECKING:
    from rich.console import Console

    from guardrail.client.results import EscalatedAction
    from guardrail.client.sync import Client

app = typer.Typer(
    name="approvals",
    help="Escalated actions: those that wait for a person, what they are, and the person's word.",
    no_args_is_help=True,
    epilog="Example: guardrail approvals list --policy tool-calls",
)

EscalationId = Annotated[str, typer.Argument(metavar="ID", help="Id of the decision that escalated.")]
Note = Annotated[str, typer.Option(metavar="TEXT", help="For the record, at most 500 characters.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list", epilog="Example: guardrail approvals list --policy tool-calls --all")
def list_(
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this world.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that wait for nobody any more.")] = False,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """List the escalated actions that wait for a person, newest first."""
    state = None if everything else EscalationState.PENDING
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        found = list(client.escalations(policy, world, state))
    if as_json:
        emit({"escalations": [_plain(one) for one in found]})
        return
    if not found:
        typer.echo("nothing waits for a person" if state is not None else "nothing was escalated", err=True)
    for one in found:
        action = "" if one.decision is None else json.dumps(jsonable(one.decision.action), sort_keys=True)
        typer.echo(f"{one.escalation_id}  {one.state.value:<8}  {one.policy}  {one.world}  {action}")


@app.command(epilog="Example: guardrail approvals show 8d0c6f1e2a9b47d30000000000000007")
def show(
    escalation_id: EscalationId,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one escalated action: what was asked, why it was escalated, and what became of it."""
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        found = _find(client, escalation_id)
    if as_json:
        emit(_plain(found))
    else:
        _print(text_console(), found)


@app.command(epilog="Example: guardrail approvals approve 8d0c6f1e2a9b47d30000000000000007 --note 'seen by the shift'")
def approve(
    escalation_id: EscalationId,
    note: Note = "",
    yes: Yes = False,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Let one escalated action pass, once, after showing what it is.

    The approval holds for exactly that action, context, world, policy revision and caller until it expires. The bound
    is computed anew: what the policy rejects by then stays rejected.

    Exit status: 0 if it is approved, 1 if you said no.
    """
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        found = _find(client, escalation_id)
        if not yes:
            _print(_questions(), found)
            if not typer.confirm("Approve it?", err=True):
                raise typer.Exit(ExitCode.NO)
        done = client.resolve_escalation(escalation_id, digest=found.digest, approve=True, note=note)
    _tell(done, as_json=as_json)


@app.command(epilog="Example: guardrail approvals deny 8d0c6f1e2a9b47d30000000000000007 --note 'wrong recipient'")
def deny(
    escalation_id: EscalationId,
    note: Note = "",
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Deny one escalated action. It is not asked whether you are sure: the agent may ask again."""
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        found = _find(client, escalation_id)
        done = client.resolve_escalation(escalation_id, digest=found.digest, approve=False, note=note)
    _tell(done, as_json=as_json)


def _find(client: Client, escalation_id: str) -> EscalatedAction:
    """One escalation with its decision: what nobody can look at nobody should resolve.

    :raises EscalationNotFound: if there is none, or its decision is not in the log.
    """
    from guardrail.errors import DecisionNotFound, EscalationNotFound

    missing = EscalationNotFound(f"there is no escalated action {escalation_id!r} that you may look at")
    try:
        verdict = client.decision(escalation_id).verdict
    except DecisionNotFound as error:
        raise missing from error
    for one in client.escalations(verdict.policy, verdict.world, state=None):
        if one.escalation_id == escalation_id and one.decision is not None:
            return one
    raise missing


def _print(console: Console, one: EscalatedAction) -> None:
    if one.decision is not None:
        print_verdict(console, one.decision.verdict)
        asked = one.decision.context, one.decision.action
        for label, value in zip(("context", "action"), asked, strict=True):
            print_lines(console, [(label, json.dumps(jsonable(value), sort_keys=True))])
    lines: list[Line] = [
        ("asked by", one.caller or "(callers are not told apart)"),
        ("state", one.state.value),
        ("expires", one.expires_at.isoformat(timespec="seconds")),
        ("digest", one.digest),
    ]
    if one.resolved_at is not None:
        by = one.approver or "(callers are not told apart)"
        lines.append(("resolved", f"{one.resolved_at.isoformat(timespec='seconds')} by {by}"))
    if one.note:
        lines.append(("note", one.note))
    print_lines(console, lines)


def _questions() -> Console:
    """Where a question is put to a person: stderr, so that results stay alone on stdout."""
    console = text_console()
    console.stderr = True
    return console


def _tell(done: EscalatedAction, *, as_json: bool) -> None:
    if as_json:
        emit(_plain(done))
    else:
        typer.echo(f"{done.escalation_id} is {done.state.value}")


def _plain(one: EscalatedAction) -> dict[str, Any]:
    decision = one.decision
    plain: dict[str, Any] = jsonable(one)
    if decision is not None:
        plain["decision"] = {**jsonable(decision), "verdict": verdict_to_dict(decision.verdict)}
    return plain
