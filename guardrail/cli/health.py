"""`guardrail health`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, tls_of
from guardrail.cli.console import DEFAULT_TARGET, AsJson, Deadline, ExitCode, emit

if TYPE_CHECKING:
    import grpc

    from guardrail.client.access import Tls

MESSAGES = {
    "SERVING": "serving",
    "NOT_SERVING": "not serving",
    "SERVICE_UNKNOWN": "health knows no service of that name",
    "UNREACHABLE": "there is no answer",
}


def health(
    target: Annotated[
        str,
        typer.Argument(
            envvar="GUARDRAIL_TARGET",
            metavar="[HOST:PORT]",
            help="The service to ask; or http://HOST:PORT/health, where its metrics are.",
        ),
    ] = DEFAULT_TARGET,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="What to ask about; all that a check needs, if not given.")
    ] = "",
    deadline: Deadline = 2.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask the service whether it serves: a probe for containers and scripts.

    By grpc.health.v1, or by HTTP on the port of the metrics, which answers under overload as well.

    Exit status: 0 if it serves, 1 if it does not, 3 if there is no answer.
    """
    if target.startswith("http://"):
        if service or tls_ca or tls_cert or tls_key:
            raise typer.BadParameter("--service and TLS go with grpc.health.v1: give HOST:PORT")
        status, detail = _ask_http(target, deadline)
    else:
        with open_channel(target, tls_of(tls_ca, tls_cert, tls_key)) as channel:
            status, detail = ask(channel, service, deadline)
    if as_json:
        emit({"target": target, "service": service, "status": status, "detail": detail})
    else:
        name = f"{target} {service}".rstrip()
        typer.echo(f"{name}: {MESSAGES[status]}{f' ({detail})' if detail else ''}", err=status != "SERVING")
    if status == "UNREACHABLE":
        raise typer.Exit(ExitCode.NO_ANSWER)
    raise typer.Exit(ExitCode.OK if status == "SERVING" else ExitCode.NO)


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """A channel that finds a service that restarts again within about a second.

    :raises typer.BadParameter: if a certificate cannot be read.
    """
    import grpc

    from guardrail.client._call import CHANNEL_OPTIONS

    if tls is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    try:
        return grpc.secure_channel(target, tls.credentials(), options=CHANNEL_OPTIONS)
    except OSError as error:
        raise typer.BadParameter(str(error)) from error


def ask(channel: grpc.Channel, service: str, deadline: float) -> tuple[str, str]:
    """The status of a name, a key of MESSAGES, and what there is to say about it."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=deadline)
    except grpc.RpcError as error:
        code = error.code()
        if code is grpc.StatusCode.NOT_FOUND:
            return "SERVICE_UNKNOWN", error.details() or ""
        return "UNREACHABLE", f"{code.name}: {error.details()}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "SERVING" if serving else "NOT_SERVING", ""


def _ask_http(url: str, deadline: float) -> tuple[str, str]:
    """The status, and what there is to say about it."""
    import http.client
    import urllib.error
    import urllib.request

    # The target is the user's own, and no proxy lies between a probe and its service.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=deadline) as answer:
            code = answer.status
    except urllib.error.HTTPError as error:
        code = error.code
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return "UNREACHABLE", str(getattr(error, "reason", error)) or type(error).__name__
    if code in (200, 503):
        return ("SERVING" if code == 200 else "NOT_SERVING"), ""
    return "UNREACHABLE", f"HTTP status {code}: no health is there"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail health 127.0.0.1:7410")(health)
