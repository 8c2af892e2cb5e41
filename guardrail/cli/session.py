"""`guardrail session`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect
from guardrail.cli.console import DEFAULT_DEADLINE, DEFAULT_TARGET, AsJson, Deadline, Target, emit, errors, text_console
from guardrail.cli.verdict import Line, budget_text, guarantee_lines, print_lines

if TYPE_CHECKING:
    from guardrail.client.results import SessionState


def session(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")],
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Id of the world.")],
    name: Annotated[
        str, typer.Argument(metavar="[SESSION]", help="The session; without it the rolling window of the world.")
    ] = "",
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what a session has spent of its harm budget, and what that promises."""
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        state = client.session(policy, world, name)
    if as_json:
        emit(state)
        return
    console = text_console()
    what = f"session {state.budget.session}" if state.budget.session else "the window"
    console.print(f"{state.policy}, world {state.world}, {what}", style="bold")
    print_lines(console, _lines(state))


def _lines(state: SessionState) -> list[Line]:
    lines = [("harm budget", budget_text(state.budget)), ("accepts", str(state.accepts))]
    if state.started_at is not None:
        lines.append(("since", state.started_at.isoformat(timespec="seconds")))
    if state.changed:
        lines.append(("changed", "the policy's budget is another one now: further checks of this session are rejected"))
    return [*lines, *guarantee_lines(state.guarantee)]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail session oring-launch pad-39 countdown-51")(session)
