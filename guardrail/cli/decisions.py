"""`guardrail decisions list|show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

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
    jsonable,
    text_console,
)
from guardrail.cli.verdict import STYLES, print_lines, print_verdict
from guardrail.records import verdict_to_dict

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision

SHADOW = "bold magenta reverse"
"""Style of what marks a decision that was let through whatever was found."""

app = typer.Typer(
    name="decisions",
    help="The decision log: the newest decisions, and one of them explained.",
    no_args_is_help=True,
    epilog="Example: guardrail decisions list --policy tool-calls",
)


@app.command("list", epilog="Example: guardrail decisions list --policy tool-calls --world prod/eu --limit 50")
def list_(
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this policy.")] = None,
    world: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this world.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many.")] = 20,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """List the newest decisions: when, what, by which bound, about which action in which context.

    In shadow mode it lists what was found, marked SHADOW: whatever it was, the action was let through.
    """
    with errors(as_json), connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
        found = list(client.decisions(policy, world, limit=limit))
    if as_json:
        emit({"decisions": [_plain(one) for one in found]})
        return
    if not found:
        typer.echo("nothing was decided", err=True)
    for one in found:
        _print_line(one)


@app.command(epilog="Example: guardrail decisions show 8d0c6f1e2a9b47d30000000000000007 --store var/guardrail.db")
def show(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="The id from the verdict.")],
    store: Annotated[
        str | None, typer.Option(metavar="PATH|URL", help="Read the database itself, without a service.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one record of the decision log: what was asked, what was answered, and why."""
    with errors(as_json):
        if store is not None:
            logged = _from_store(store, decision_id)
        else:
            with connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
                logged = client.decision(decision_id)
    if as_json:
        emit(_plain(logged))
        return
    console = text_console()
    print_verdict(console, logged.verdict)
    lines = [
        ("context", json.dumps(jsonable(logged.context), sort_keys=True)),
        ("action", json.dumps(jsonable(logged.action), sort_keys=True)),
        ("asked by", logged.caller or "(callers are not told apart)"),
        *([] if logged.generation == 1 else [("generation", str(logged.generation))]),
    ]
    print_lines(console, [*lines, ("decided at", logged.decided_at.isoformat(timespec="milliseconds"))])


def _from_store(url: str, decision_id: str) -> LoggedDecision:
    from datetime import UTC, datetime

    from guardrail.client import results
    from guardrail.errors import DecisionNotFound, StoreCorrupt
    from guardrail.store import decisions, open_store

    store = open_store(url, read_only=True)
    try:
        record = store.decision(decision_id)
        if record is None:
            raise DecisionNotFound(f"no decision {decision_id!r} is in that store")
        found = decisions.LoggedDecision.from_record(record)
    except (KeyError, ValueError, TypeError) as error:
        raise StoreCorrupt(f"the record of decision {decision_id!r} cannot be read") from error
    finally:
        store.close()
    at = datetime.fromtimestamp(found.decided_at, UTC)
    return results.LoggedDecision(found.verdict, found.context, found.action, at, found.caller, found.generation)


def _print_line(one: LoggedDecision) -> None:
    from rich.text import Text

    verdict = one.verdict
    action, context = (json.dumps(jsonable(value), sort_keys=True) for value in (one.action, one.context))
    mark = Text("SHADOW", SHADOW) if verdict.shadow else Text(" " * len("SHADOW"))
    when = one.decided_at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    line = Text.assemble(
        f"{when}  {verdict.decision_id}  ",
        mark,
        " ",
        (f"{verdict.found.value:<8}", STYLES[verdict.found]),
        f"  {verdict.harm_bound:<9.4g}  {verdict.policy}  {verdict.world}  {action}  {context}",
    )
    text_console().print(line)


def _plain(one: LoggedDecision) -> dict[str, Any]:
    plain: dict[str, Any] = jsonable(one)
    return {**plain, "verdict": verdict_to_dict(one.verdict)}
