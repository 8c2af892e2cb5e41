"""Every reason with which a call may end without a result: one table, which docs/errors.md repeats for people.

A status other than OK carries a `google.rpc.ErrorInfo` whose reason is a key of `REASONS`. `status.abort` sends no
other: programs rely on them, so one is added here first, with its meaning, and none is ever renamed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN: Final = "guardrail"
"""The `domain` of every ErrorInfo."""

INTERNAL: Final = "INTERNAL"
"""What a caller sees of a defect."""

REASONS: Final[Mapping[str, StatusCode]] = {
    # the request
    "INVALID_REQUEST": StatusCode.INVALID_ARGUMENT,
    "INVALID_INPUT": StatusCode.INVALID_ARGUMENT,
    "WRONG_TYPE": StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_FIELD": StatusCode.INVALID_ARGUMENT,
    "NOT_FINITE": StatusCode.INVALID_ARGUMENT,
    "FEATURE_MISSING": StatusCode.INVALID_ARGUMENT,
    "FEATURE_ERROR": StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_CATEGORY": StatusCode.INVALID_ARGUMENT,
    "INPUT_TOO_LARGE": StatusCode.INVALID_ARGUMENT,
    "METHOD_UNKNOWN": StatusCode.UNIMPLEMENTED,
    # the caller
    "CREDENTIALS_MISSING": StatusCode.UNAUTHENTICATED,
    "CREDENTIALS_INVALID": StatusCode.UNAUTHENTICATED,
    "CREDENTIALS_EXPIRED": StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": StatusCode.PERMISSION_DENIED,
    "SELF_REPORT": StatusCode.PERMISSION_DENIED,
    "SELF_APPROVAL": StatusCode.PERMISSION_DENIED,
    # what is asked for
    "POLICY_NOT_FOUND": StatusCode.NOT_FOUND,
    "WORLD_NOT_FOUND": StatusCode.NOT_FOUND,
    "DECISION_NOT_FOUND": StatusCode.NOT_FOUND,
    "SESSION_NOT_FOUND": StatusCode.NOT_FOUND,
    "ESCALATION_NOT_FOUND": StatusCode.NOT_FOUND,
    "ESCALATION_CLOSED": StatusCode.FAILED_PRECONDITION,
    "ESCALATION_MISMATCH": StatusCode.FAILED_PRECONDITION,
    "REPORT_CONFLICT": StatusCode.ALREADY_EXISTS,
    "POLICY_REVISION_MISMATCH": StatusCode.FAILED_PRECONDITION,
    "REVISION_NOT_REACHED": StatusCode.FAILED_PRECONDITION,
    "GENERATION_MISMATCH": StatusCode.FAILED_PRECONDITION,
    "POLICY_INVALID": StatusCode.FAILED_PRECONDITION,
    "SECURITY_INVALID": StatusCode.FAILED_PRECONDITION,
    "DEVICE_UNAVAILABLE": StatusCode.FAILED_PRECONDITION,
    "WORLD_UNAVAILABLE": StatusCode.FAILED_PRECONDITION,
    # limits
    "LIMIT_EXCEEDED": StatusCode.RESOURCE_EXHAUSTED,
    "RATE_LIMITED": StatusCode.RESOURCE_EXHAUSTED,
    "WORLD_QUOTA": StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": StatusCode.RESOURCE_EXHAUSTED,
    # the service
    "NOT_SERVING": StatusCode.UNAVAILABLE,
    "STORE_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "DECISION_LOG_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "STORE_CORRUPT": StatusCode.DATA_LOSS,
    INTERNAL: StatusCode.INTERNAL,
}
"""Reason -> the status that it comes with."""
