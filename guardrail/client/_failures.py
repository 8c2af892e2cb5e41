"""gRPC statuses to the project's errors. Whatever is not understood is still an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from guardrail.errors import (
    DecisionNotFound,
    GuardrailError,
    InvalidInput,
    LimitExceeded,
    NoVerdict,
    PermissionDenied,
    PolicyNotFound,
    ReportConflict,
    ServiceError,
    Unauthenticated,
    WorldNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Failure = Callable[[str, str, grpc.StatusCode], GuardrailError]
    """(message, stable reason, status) -> the error to raise."""

_BY_REASON: Final[Mapping[tuple[grpc.StatusCode, str], type[GuardrailError]]] = {
    (grpc.StatusCode.NOT_FOUND, PolicyNotFound.reason): PolicyNotFound,
    (grpc.StatusCode.NOT_FOUND, WorldNotFound.reason): WorldNotFound,
    (grpc.StatusCode.NOT_FOUND, DecisionNotFound.reason): DecisionNotFound,
}


_LIMITS: Final = frozenset({LimitExceeded.reason, "RATE_LIMITED", "WORLD_QUOTA", "OVERLOADED"})


class FailedCall(Protocol):
    """What the errors of grpc and grpc.aio have in common."""

    def code(self) -> grpc.StatusCode:
        """The status."""
        ...

    def details(self) -> str | None:
        """The message."""
        ...


def no_verdict(message: str, reason: str, code: grpc.StatusCode) -> NoVerdict:
    """The error of a check that brought no verdict."""
    return NoVerdict(f"{reason}: {message} ({code.name})", reason)


def no_service(message: str, reason: str, code: grpc.StatusCode) -> GuardrailError:
    """The error of a report or a read that failed."""
    known = _BY_REASON.get((code, reason))
    if known is not None:
        return known(message)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(message, reason)
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return PermissionDenied(message, reason)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason in _LIMITS:
        return LimitExceeded(message, reason)
    if code is grpc.StatusCode.ALREADY_EXISTS:
        return ReportConflict(message)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(message, reason)
    return ServiceError(f"{reason}: {message} ({code.name})", reason, code.name)


def from_call(error: FailedCall, failure: Failure) -> GuardrailError:
    """The error to raise for a call that ended with a status other than OK."""
    reason, retry_after = _details(error)
    found = failure(error.details() or "no details", reason, error.code())
    if isinstance(found, LimitExceeded):
        found.retry_after = retry_after
    return found


def _details(error: FailedCall) -> tuple[str, float | None]:
    """The service's stable reason (if it gave none, one that is made from the status), and when to try again."""
    reason, retry_after = "", None
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = reason or str(info.reason)
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    except (ValueError, DecodeError, OverflowError):
        pass  # details that cannot be read, or that contradict the status, say nothing
    if not reason:
        reason = "UNREACHABLE" if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name
    return reason, retry_after
