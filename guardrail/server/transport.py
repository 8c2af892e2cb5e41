"""Limits of the connections, which gRPC keeps before any of our code runs; docs/operations.md says what each is for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from guardrail.server.settings import ServerSettings

KEEPALIVE_SECONDS: Final = 60
"""A connection without traffic is asked so often whether its caller is still there."""
KEEPALIVE_TIMEOUT_SECONDS: Final = 20
"""And is closed if there is no answer for so long: a watcher that vanished frees its place."""
MIN_PING_SECONDS: Final = 10
"""A caller that pings more often than that, without calls, is disconnected."""

EARLY_SHARE: Final = 0.75
"""Of the calls that may wait to be read, how many do before new ones are cancelled at random."""


def options(settings: ServerSettings) -> tuple[tuple[str, Any], ...]:
    """The server's channel arguments."""
    age = settings.max_connection_age_seconds
    return (
        ("grpc.so_reuseport", 0),  # two servers on one port would share callers at random
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Calls that come faster than they can be read are cancelled: at random from the first number on, all from the
        # second on. This costs next to nothing, so a flood does not keep the service from answering what it can.
        ("grpc.server.max_pending_requests", math.ceil(EARLY_SHARE * settings.max_pending_calls)),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_pending_calls),
        ("grpc.max_connection_idle_ms", round(1e3 * settings.max_connection_idle_seconds)),
        *(() if age is None else (("grpc.max_connection_age_ms", round(1e3 * age)),)),
        ("grpc.max_connection_age_grace_ms", round(1e3 * settings.drain_seconds)),
        ("grpc.keepalive_time_ms", 1_000 * KEEPALIVE_SECONDS),
        ("grpc.keepalive_timeout_ms", 1_000 * KEEPALIVE_TIMEOUT_SECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000 * MIN_PING_SECONDS),
        ("grpc.http2.max_ping_strikes", 2),
    )
