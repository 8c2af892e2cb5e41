"""One call without the calling, and how a channel is set up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

if TYPE_CHECKING:
    from guardrail.client._failures import Failure

T = TypeVar("T")

SERVICE: Final = "guardrail.v1.GuardrailService"
DEFAULT_TIMEOUT: Final = 1.0
"""Seconds from the call to its answer, retries included."""
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Largest message that is sent or received."""

_RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

CHANNEL_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A service that restarts is found again within about a second, not after grpc's twenty.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call, without the calling.

    Attributes:
        method: the RPC's name.
        request: what is sent.
        decode: reads the reply's bytes; a ValueError or DecodeError means that it is malformed.
        failure: makes the error of a call without a usable reply.
    """

    method: str
    request: Message
    decode: Callable[[bytes], T]
    failure: Failure

    @property
    def path(self) -> str:
        """The RPC's path."""
        return f"/{SERVICE}/{self.method}"

    @property
    def serialize(self) -> Callable[[Any], bytes]:
        """What turns the request into bytes."""
        return type(self.request).SerializeToString

    def finish(self, reply: bytes) -> T:
        """What the reply means.

        :raises GuardrailError: if it is malformed.
        """
        try:
            return self.decode(reply)
        except (DecodeError, ValueError, OverflowError) as error:
            message = f"the reply to {self.method} is malformed: {error}"
            raise self.failure(message, "MALFORMED_REPLY", grpc.StatusCode.OK) from error

    def closed(self) -> Exception:
        """The error of a call on a closed client."""
        return self.failure("the client is closed", "CLIENT_CLOSED", grpc.StatusCode.CANCELLED)


def seconds(timeout: float) -> float:
    """A usable timeout.

    :raises ValueError: if it is not a positive, finite number: a check without a deadline may block forever.
    """
    if not (isinstance(timeout, int | float) and math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"a timeout is a positive number of seconds, not {timeout!r}")
    return float(timeout)
