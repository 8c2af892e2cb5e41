"""`guardrail health`."""

from __future__ import annotations

from typing import Annotated

import typer

from guardrail.cli.console import DEFAULT_TARGET, AsJson, Deadline, ExitCode, emit

MESSAGES = {
    "SERVING": "serving",
    "NOT_SERVING": "not serving",
    "SERVICE_UNKNOWN": "health knows no service of that name",
    "UNREACHABLE": "there is no answer",
}


def health(
    target: Annotated[
        str, typer.Argument(envvar="GUARDRAIL_TARGET", metavar="[HOST:PORT]", help="The service to ask.")
    ] = DEFAULT_TARGET,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="What to ask about; all that a check needs, if not given.")
    ] = "",
    alive: Annotated[
        bool, typer.Option("--alive", help="Be content with any answer: a restart mends no database that is gone.")
    ] = False,
    deadline: Deadline = 2.0,
    as_json: AsJson = False,
) -> None:
    """Ask the service whether it serves (grpc.health.v1): a probe for containers and scripts.

    Exit status: 0 if it serves, 1 if it does not, 3 if there is no answer.
    """
    status, detail = _ask(target, service, deadline)
    if as_json:
        emit({"target": target, "service": service, "status": status, "detail": detail})
    else:
        name = f"{target} {service}".rstrip()
        typer.echo(f"{name}: {MESSAGES[status]}{f' ({detail})' if detail else ''}", err=status != "SERVING")
    if status == "UNREACHABLE":
        raise typer.Exit(ExitCode.NO_ANSWER)
    raise typer.Exit(ExitCode.OK if status == "SERVING" or alive else ExitCode.NO)


def _ask(target: str, service: str, deadline: float) -> tuple[str, str]:
    """The status, and what there is to say about it."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(target) as channel:
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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail health 127.0.0.1:7410")(health)
