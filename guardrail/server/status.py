"""Errors as gRPC statuses with a stable reason (`google.rpc.ErrorInfo`)."""

from __future__ import annotations

from typing import NoReturn

import grpc.aio
import structlog
from google.rpc import error_details_pb2, status_pb2

from guardrail import errors
from guardrail.server.reasons import DOMAIN, INTERNAL, REASONS

log = structlog.get_logger()

DEFECT = "internal error; the server's log has it"

MAX_DETAIL = 1_000
"""Longest message sent, in bytes of UTF-8: it travels twice in the call's trailers (once percent-encoded), and
trailers over 8 KiB lose the status."""


async def abort_with(context: grpc.aio.ServicerContext[object, object], error: errors.GuardrailError) -> NoReturn:
    """End a call with the status of an error; one that is not meant for callers is a defect."""
    if error.reason not in REASONS:
        log.error("reason_not_in_the_table", reason=error.reason, error=type(error).__name__)
        await abort(context, INTERNAL, DEFECT)
    await abort(context, error.reason, str(error), getattr(error, "retry_after", None))


async def abort(
    context: grpc.aio.ServicerContext[object, object],
    reason: str,
    message: str,
    retry_after: float | None = None,
) -> NoReturn:
    """End a call with a status, a message for people and a reason for programs.

    Args:
        context: of the call.
        reason: stable, for programs; a key of `REASONS`, which says the status.
        message: for people.
        retry_after: seconds after which the caller may try again; sent as `google.rpc.RetryInfo`.
    """
    message, code = _shortened(message), REASONS[reason]
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_after * 1e9))
        status.details.add().Pack(retry)
    await context.abort(code, message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),))


def _shortened(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= MAX_DETAIL else encoded[:MAX_DETAIL].decode(errors="ignore") + "…"
