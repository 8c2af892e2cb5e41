"""How a client shows who it is, and checks whom it talks to."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from guardrail.client._call import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from guardrail.client._call import Call, Metadata

Token = str | Callable[[], str]
"""A bearer credential, or what gives the present one; it is asked before every call."""


@dataclass(frozen=True, slots=True)
class Tls:
    """An encrypted connection, with files in PEM.

    Attributes:
        ca: who may have signed the service's certificate; the system's authorities if None.
        certificate: this client's own certificate chain, for a service that asks for one.
        key: its private key.

    :raises ValueError: if there is a certificate without a key, or a key without a certificate.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate: give both, or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """What grpc needs.

        :raises OSError: if a file cannot be read.
        """
        return grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))


@dataclass(frozen=True, slots=True)
class Access:
    """What a client connects and calls with.

    Attributes:
        credentials: of the channel; None for plaintext.
        options: of the channel.
        metadata: sent with every call.
        token: gives what is sent with every call besides; None if there is no more.
    """

    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    token: Callable[[], str] | None

    def headers(self, call: Call[Any]) -> tuple[tuple[str, str], ...]:
        """The metadata of one call.

        :raises GuardrailError: the call's own kind, if the token cannot be had.
        """
        if self.token is None:
            return self.metadata
        try:
            return (*self.metadata, ("authorization", bearer(self.token())))
        except Exception as error:
            # Its message might hold the token.
            message = f"the token cannot be had: {type(error).__name__}"
            raise call.failure(message, "CREDENTIALS_MISSING", grpc.StatusCode.UNAUTHENTICATED) from error


def access(
    target: str,
    *,
    token: Token | None,
    tls: Tls | None,
    credentials: grpc.ChannelCredentials | None,
    metadata: Metadata,
    own_channel: bool,
) -> Access:
    """Check and put together what a client was given.

    :raises ValueError: if a token would go unencrypted to another machine or over a channel that says nothing of
        encryption, or two of the arguments say the same thing twice.
    :raises OSError: if a file of `tls` cannot be read.
    """
    if tls is not None and credentials is not None:
        raise ValueError("give either tls or credentials")
    if own_channel and (tls is not None or token is not None):
        raise ValueError("a channel of one's own brings its own encryption and credentials; give no tls and no token")
    if token is not None and any(name.lower() == "authorization" for name, _ in metadata):
        raise ValueError("give either a token or an authorization header")
    headers = tuple(metadata)
    if isinstance(token, str):
        headers = (*headers, ("authorization", bearer(token)))
    elif token is not None and not callable(token):
        raise ValueError("a token is a string, or a callable that gives one")
    if tls is not None:
        credentials = tls.credentials()
    options = CHANNEL_OPTIONS
    if token is not None and credentials is None:
        if not is_loopback(target):
            raise ValueError(f"a token would go to {target} unencrypted; give tls=guardrail.Tls(...)")
        options = (*options, ("grpc.enable_http_proxy", 0))  # a proxy would be another machine
    return Access(credentials, options, headers, None if isinstance(token, str) else token)


def bearer(token: str) -> str:
    """The authorization header for a token.

    :raises ValueError: if it is empty or holds what no header may. The message does not show it.
    """
    if not isinstance(token, str) or not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("a token is one word of printable ASCII")
    return f"Bearer {token}"


def is_loopback(target: str) -> bool:
    """True if a gRPC target is certainly on this machine."""
    scheme, separator, rest = target.partition(":")
    if separator and scheme in ("unix", "unix-abstract"):
        return True
    if separator and scheme == "dns":
        if rest.startswith("//"):
            authority, slash, rest = rest[2:].partition("/")
            if authority or not slash:
                return False
        return _is_local(rest)
    if separator and scheme in ("ipv4", "ipv6"):
        return all(_is_local(address) for address in rest.split(","))
    return _is_local(target)


def _is_local(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") > 1:
        host = address
    else:
        host = address.partition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
