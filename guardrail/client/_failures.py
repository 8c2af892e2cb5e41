"""gRPC statuses to the project's errors. Whatever is not understood is still an error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from guardrail.errors import (
    DecisionNotFound,
    GenerationMismatch,
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
    from collections.abc import Callable, Mapping, Sequence

    Failure = Callable[[str, str, grpc.StatusCode], GuardrailError]
    """(message, stable reason, status) -> the error to raise."""

_BY_REASON: Final[Mapping[tuple[grpc.StatusCode, str], type[GuardrailError]]] = {
    (grpc.StatusCode.NOT_FOUND, PolicyNotFound.reason): PolicyNotFound,
    (grpc.StatusCode.NOT_FOUND, WorldNotFound.reason): WorldNotFound,
    (grpc.StatusCode.NOT_FOUND, DecisionNotFound.reason): DecisionNotFound,
    (grpc.StatusCode.FAILED_PRECONDITION, GenerationMismatch.reason): GenerationMismatch,
}


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
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason != code.name:  # else a message is too large for grpc
        return LimitExceeded(message, reason)
    if code is grpc.StatusCode.ALREADY_EXISTS:
        return ReportConflict(message)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(message, reason)
    return ServiceError(f"{reason}: {message} ({code.name})", reason, code.name)


def from_call(error: FailedCall, failure: Failure) -> GuardrailError:
    """The error to raise for a call that ended with a status other than OK."""
    known = failure(error.details() or "no details", _reason(error), error.code())
    if isinstance(known, NoVerdict | LimitExceeded):
        known.retry_after = _retry_after(error)
    return known


def _details(error: FailedCall) -> Sequence[Any]:
    """What came along with the status; details that cannot be read, or that contradict the status, say nothing."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        return ()
    return () if status is None else status.details


def _retry_after(error: FailedCall) -> float | None:
    """Seconds after which the service says that another try may succeed; None if it does not say."""
    for detail in _details(error):
        retry = error_details_pb2.RetryInfo()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(retry):
                return float(max(0.0, retry.retry_delay.seconds + 1e-9 * retry.retry_delay.nanos))
    return None


def _reason(error: FailedCall) -> str:
    """The service's stable reason; if it gave none, one that is made from the status."""
    for detail in _details(error):
        info = error_details_pb2.ErrorInfo()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(info) and info.reason:
                return str(info.reason)
    return "UNREACHABLE" if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name
