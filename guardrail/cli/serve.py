"""`guardrail serve`."""

from __future__ import annotations

import asyncio
import enum
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from guardrail.cli.console import AsJson, StoreUrl, emit, errors
from guardrail.cli.logs import configure_logs


class Device(enum.StrEnum):
    """What classes are computed on."""

    CPU = "cpu"
    GPU = "gpu"


def serve(
    policies: Annotated[
        list[Path],
        typer.Option(metavar="PATH", help="A policy file, or a folder searched for */policy.yaml. Repeatable."),
    ],
    store: StoreUrl,
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen; port 0 picks a free one. Beyond loopback only with TLS and callers.",
        ),
    ] = "127.0.0.1:7410",
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve Prometheus metrics at http://HOST:PORT/metrics; off if unset."),
    ] = None,
    console: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the web console there; off if unset. Beyond loopback only with TLS and callers.",
        ),
    ] = None,
    console_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="SCHEME://HOST[:PORT] of a reverse proxy through which people reach it. Repeatable."
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="What enumerated hypothesis classes are computed on: all its devices of this kind.")
    ] = Device.CPU,
    drain_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Grace for running requests at shutdown.")
    ] = None,
    snapshot_every: Annotated[
        int | None, typer.Option(metavar="N", help="Observations between snapshots of a world.")
    ] = None,
    max_request_bytes: Annotated[int | None, typer.Option(metavar="BYTES", help="Largest request.")] = None,
    max_pending_calls: Annotated[
        int | None, typer.Option(metavar="N", help="Most calls that wait to be read; further ones are cancelled.")
    ] = None,
    max_checks_in_flight: Annotated[
        int | None, typer.Option(metavar="N", help="Most checks at once; further ones are refused as OVERLOADED.")
    ] = None,
    max_check_wait_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Longest wait for a kernel before a check is OVERLOADED.")
    ] = None,
    max_connection_age_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Close connections after so long, to spread clients.")
    ] = None,
    stall_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="When a kernel or a store that is busy counts as hung.")
    ] = None,
    max_worlds: Annotated[int | None, typer.Option(metavar="N", help="Most worlds that hold observations.")] = None,
    compilation_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where compiled kernels are kept; beside the database file or in ~/.cache if unset."
        ),
    ] = None,
    callers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may do what; without it everybody may do everything.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The service's certificate chain, PEM; plaintext without it.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's private key, PEM.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask every client for a certificate that this CA signed, PEM.")
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sign the decision log with this Ed25519 private key, PEM.")
    ] = None,
    reflection: Annotated[
        bool, typer.Option("--reflection", help="Answer gRPC reflection: anybody may read the contract.")
    ] = False,
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Send OpenTelemetry spans by OTLP over gRPC, as the environment's OTEL_* say."),
    ] = False,
    log_decisions: Annotated[
        bool, typer.Option("--log-decisions", help="One log line for each decision, without context and action.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the service until SIGTERM or Ctrl-C, then drain it.

    Logs go to stderr: JSON lines, or readable text on a terminal. With --json they are always JSON, and
    stdout gets one line once the service answers: {"event": "serving", "listen": ..., "port": ..., "pid": ...}.
    SIGHUP and ReloadPolicies read --callers again; certificates are read again when their files change.
    """
    configure_logs(readable=False if as_json else None)
    given = {
        "device": device.value,
        "metrics_listen": metrics,
        "console_listen": console,
        "console_origins": tuple(console_origin) if console_origin else None,
        "drain_seconds": drain_seconds,
        "snapshot_every": snapshot_every,
        "max_request_bytes": max_request_bytes,
        "max_pending_calls": max_pending_calls,
        "max_checks_in_flight": max_checks_in_flight,
        "max_check_wait_seconds": max_check_wait_seconds,
        "max_connection_age_seconds": max_connection_age_seconds,
        "stall_seconds": stall_seconds,
        "max_worlds": max_worlds,
        "compilation_cache": compilation_cache,
        "callers": callers,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "client_ca": client_ca,
        "signing_key": signing_key,
        "reflection": reflection or None,
        "traces": traces or None,
        "log_decisions": log_decisions or None,
    }
    settings = _settings(listen, policies, store, {name: value for name, value in given.items() if value is not None})

    def started(port: int) -> None:
        if as_json:
            host = listen.rpartition(":")[0]
            emit({"event": "serving", "listen": f"{host}:{port}", "port": port, "pid": os.getpid()})

    with errors(as_json):
        from guardrail.server.app import serve as run

        asyncio.run(run(settings, started=started))


def _settings(listen: str, policies: list[Path], store: str, given: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from guardrail.server.settings import ServerSettings

    try:
        return ServerSettings(listen=listen, policies=tuple(policies), store=store, **given)
    except ValidationError as error:
        options = {
            "metrics_listen": "metrics",
            "console_listen": "console",
            "console_origins": "console-origin",
        }
        named = ((str(e["loc"][0]), e["msg"]) for e in error.errors())
        lines = (f"--{options.get(name, name).replace('_', '-')}: {message}" for name, message in named)
        raise typer.BadParameter("; ".join(lines)) from error


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail serve --policies policies --store var/guardrail.db")(serve)
