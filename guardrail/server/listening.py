"""Sockets of the HTTP listeners beside gRPC's."""

from __future__ import annotations

import socket

from guardrail.errors import NotServing


def bind(listen: str, what: str) -> socket.socket:
    """Listen on host:port; port 0 picks a free one.

    Args:
        listen: host:port.
        what: is to be served there, for the error.

    :raises NotServing: if the address cannot be bound.
    """
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise NotServing(f"cannot serve {what} on {listen}: {error}") from error
