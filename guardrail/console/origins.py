"""Under which names a browser may reach the console: what keeps other sites, and names that lie, away from it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Origins:
    """Which `Host` and `Origin` headers are answered.

    Attributes:
        scheme: what the console itself speaks, `http` or `https`.
        known: scheme://host[:port] of every name; None if any name will do, because the certificate proves it.
    """

    scheme: str
    known: frozenset[str] | None

    def knows_host(self, host: str) -> bool:
        """True if a request may name this host."""
        return bool(host) and (self.known is None or any(_netloc(origin) == host.lower() for origin in self.known))

    def knows_origin(self, origin: str, host: str) -> bool:
        """True if a request to a host may come from a page of this origin."""
        if self.known is None:
            return origin.lower() == f"{self.scheme}://{host.lower()}"
        return origin.lower() in self.known

    def encrypted(self, host: str) -> bool:
        """True if a browser reaches this host over TLS, so that a cookie may insist on it."""
        if self.known is None or self.scheme == "https":
            return self.scheme == "https"
        return f"https://{host.lower()}" in self.known


def origins_of(listen: str, port: int, *, tls: bool, more: tuple[str, ...] = ()) -> Origins:
    """The names of a console.

    On loopback only names of this machine are answered, so that a page elsewhere cannot reach it under a name that it
    lets point here. Beyond loopback the certificate says under which names it is reached.

    Args:
        listen: host:port as the operator gave it.
        port: where it listens.
        tls: whether it speaks TLS itself.
        more: further origins, those of a reverse proxy before it.
    """
    scheme = "https" if tls else "http"
    name = listen.rpartition(":")[0].lower()
    if not _is_loopback(name):
        return Origins(scheme, frozenset(map(str.lower, more)) if more else None)
    names = {*LOCAL_NAMES, name}
    own = {f"{scheme}://{one}:{port}" for one in names}
    if port == {"http": 80, "https": 443}[scheme]:
        own |= {f"{scheme}://{one}" for one in names}
    return Origins(scheme, frozenset(own) | {origin.lower() for origin in more})


def _netloc(origin: str) -> str:
    return urlsplit(origin).netloc


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
