"""The commands, put together. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

import guardrail
from guardrail.cli import (
    approvals,
    audit,
    calibration,
    callers,
    check,
    decisions,
    health,
    keys,
    not_taken,
    policy,
    replay,
    report,
    serve,
    session,
    top,
    worlds,
)

app = typer.Typer(
    name="guardrail",
    epilog="Exit status: 0 done or accepted; 1 not accepted, or something is wrong with what was examined; "
    "2 the command line is wrong; 3 there is no answer (no verdict, no service, no readable store).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"guardrail {guardrail.__version__}")
        raise typer.Exit


@app.callback()
def guardrail_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A runtime safety guardrail: it bounds the probability of harm of an action before it is carried out."""


serve.add_to(app)
check.add_to(app)
report.add_to(app)
not_taken.add_to(app)
app.add_typer(worlds.app, name="worlds")
session.add_to(app)
app.add_typer(approvals.app, name="approvals")
app.add_typer(decisions.app, name="decisions")
health.add_to(app)
top.add_to(app)
replay.add_to(app)
calibration.add_to(app)
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(callers.app, name="callers")
app.add_typer(keys.app, name="keys")
