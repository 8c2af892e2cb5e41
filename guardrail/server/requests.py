"""From bytes to a request that its caller may make."""

from __future__ import annotations

from typing import Any

import structlog
from google.protobuf.message import DecodeError

from guardrail.errors import InvalidInput
from guardrail.server import contract
from guardrail.server.security.gate import Gate
from guardrail.server.security.grants import Caller


def admit(gate: Gate, caller: Caller, rpc: str, data: bytes) -> Any:
    """Parse a request; whether the caller may make it comes before whether it is right.

    :raises PermissionDenied: if no grant of the caller covers what the request names.
    :raises InvalidInput: INVALID_REQUEST if the bytes are no such request, or break the contract.
    """
    request_class = contract.request_class(f"{rpc}Request")
    try:
        request = request_class.FromString(data)
    except DecodeError as error:
        raise InvalidInput(f"the bytes are no {request_class.DESCRIPTOR.full_name}", "INVALID_REQUEST") from error
    gate.permit(caller, rpc, request)
    violations = contract.validate(request)
    if violations:
        raise InvalidInput("; ".join(violations), "INVALID_REQUEST")
    if policy := getattr(request, "policy", ""):
        structlog.contextvars.bind_contextvars(policy=policy)  # each call runs in a context of its own
    return request
