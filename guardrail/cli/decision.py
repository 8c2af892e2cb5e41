"""`guardrail decision`."""

from __future__ import annotations

import json
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
    jsonable,
    text_console,
)
from guardrail.cli.verdict import print_lines, print_verdict
from guardrail.records import verdict_to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from guardrail.domain import JsonValue, Verdict


def decision(
    decision_id: Annotated[str, typer.Argument(help="The id from the verdict.")],
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
            _show(*_from_store(store, decision_id), as_json=as_json)
            return
        with connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client:
            logged = client.decision(decision_id)
        _show(logged.verdict, logged.context, logged.action, logged.decided_at, as_json=as_json)


_Parts = tuple["Verdict", "Mapping[str, JsonValue]", "Mapping[str, JsonValue]", "datetime"]


def _from_store(url: str, decision_id: str) -> _Parts:
    from datetime import UTC, datetime

    from guardrail.errors import DecisionNotFound, StoreCorrupt
    from guardrail.store import open_store
    from guardrail.store.decisions import LoggedDecision

    store = open_store(url, read_only=True)
    try:
        record = store.decision(decision_id)
        if record is None:
            raise DecisionNotFound(f"no decision {decision_id!r} is in that store")
        logged = LoggedDecision.from_record(record)
    except (KeyError, ValueError, TypeError) as error:
        raise StoreCorrupt(f"the record of decision {decision_id!r} cannot be read") from error
    finally:
        store.close()
    return logged.verdict, logged.context, logged.action, datetime.fromtimestamp(logged.decided_at, UTC)


def _show(
    verdict: Verdict,
    context: Mapping[str, JsonValue],
    action: Mapping[str, JsonValue],
    decided_at: datetime,
    *,
    as_json: bool,
) -> None:
    if as_json:
        emit({"verdict": verdict_to_dict(verdict), "context": context, "action": action, "decided_at": decided_at})
        return
    console = text_console()
    print_verdict(console, verdict)
    asked = [
        ("context", json.dumps(jsonable(context), sort_keys=True)),
        ("action", json.dumps(jsonable(action), sort_keys=True)),
    ]
    print_lines(console, [*asked, ("decided at", decided_at.isoformat(timespec="milliseconds"))])


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail decision 0e5b1c --store var/guardrail.db")(decision)
