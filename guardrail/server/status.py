"""Errors as gRPC statuses with a stable reason (`google.rpc.ErrorInfo`)."""

from __future__ import annotations

from typing import NoReturn

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from guardrail import errors

DOMAIN = "guardrail"

_CODES: tuple[tuple[type[errors.GuardrailError], grpc.StatusCode], ...] = (
    (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.PolicyNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.WorldNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.DecisionNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.ReportConflict, grpc.StatusCode.ALREADY_EXISTS),
    (errors.LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.RevisionNotReached, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.GenerationMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.RevisionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PolicyError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.SecurityInvalid, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.WorldUnavailable, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.DeviceUnavailable, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotServing, grpc.StatusCode.UNAVAILABLE),
    (errors.StoreCorrupt, grpc.StatusCode.DATA_LOSS),
    (errors.StoreError, grpc.StatusCode.UNAVAILABLE),
)

MAX_DETAIL = 1_000
"""Longest message sent, in bytes of UTF-8: it travels twice in the call's trailers (once percent-encoded), and
trailers over 8 KiB lose the status."""


def status_code(error: errors.GuardrailError) -> grpc.StatusCode:
    """The gRPC code that a caller sees for an error; INTERNAL for one that is not meant for callers."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


async def abort_with(context: grpc.aio.ServicerContext[object, object], error: errors.GuardrailError) -> NoReturn:
    """End a call with the status of an error."""
    await abort(context, status_code(error), error.reason, str(error), getattr(error, "retry_after", None))


async def abort(
    context: grpc.aio.ServicerContext[object, object],
    code: grpc.StatusCode,
    reason: str,
    message: str,
    retry_after: float | None = None,
) -> NoReturn:
    """End a call with a status, a message for people and a reason for programs.

    Args:
        context: of the call.
        code: of the status.
        reason: stable, for programs.
        message: for people.
        retry_after: seconds after which the caller may try again; sent as `google.rpc.RetryInfo`.
    """
    message = _shortened(message)
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
