"""What a server needs to start safely. Settings that are only partly there are refused, never filled in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import grpc
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guardrail.errors import SecurityInvalid
from guardrail.server.security.gate import Gate
from guardrail.server.security.tls import TlsFiles, server_credentials
from guardrail.server.settings import ServerSettings
from guardrail.signing import read_private_key

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Security:
    """Ready to listen.

    Attributes:
        gate: what every call passes.
        credentials: of the port; None for plaintext.
        signing_key: of the decision log; None if it is not signed.
    """

    gate: Gate
    credentials: grpc.ServerCredentials | None
    signing_key: Ed25519PrivateKey | None


def secure(settings: ServerSettings) -> Security:
    """Check the settings and everything they name. Blocks.

    :raises SecurityInvalid: if they are partial, or a file is wrong.
    """
    files = tls_files(settings)
    require_whole(settings)
    require_whole_console(settings)
    credentials = None if files is None else server_credentials(files)
    gate = Gate(settings.callers, certificates=settings.client_ca is not None)
    if gate.open:
        log.warning(
            "callers_not_told_apart", meaning="everybody who reaches this port may do everything; see --callers"
        )
    signing_key = None if settings.signing_key is None else read_private_key(settings.signing_key)
    if signing_key is None:
        log.info("decisions_unsigned", meaning="receipts are chained and not signed; see --signing-key")
    return Security(gate, credentials, signing_key)


def tls_files(settings: ServerSettings) -> TlsFiles | None:
    """Where the server's certificate lies; None for plaintext.

    :raises SecurityInvalid: if a part of it is missing.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        if settings.client_ca is not None:
            raise SecurityInvalid(
                "--client-ca asks for client certificates, which takes TLS: give --tls-certificate and --tls-key too"
            )
        return None
    if certificate is None or key is None:
        given, missing = (
            ("--tls-key", "--tls-certificate") if certificate is None else ("--tls-certificate", "--tls-key")
        )
        raise SecurityInvalid(f"{given} is of no use without {missing}: give both, or neither")
    return TlsFiles(certificate, key, settings.client_ca)


def require_whole(settings: ServerSettings) -> None:
    """Refuse an address beyond this machine without encryption and without callers.

    :raises SecurityInvalid: if either is missing.
    """
    if is_loopback(settings.listen):
        return
    if settings.tls_certificate is None:
        raise SecurityInvalid(
            f"{settings.listen} can be reached from other machines, where nothing goes unencrypted: "
            "give --tls-certificate and --tls-key, or listen on 127.0.0.1"
        )
    if settings.callers is None:
        raise SecurityInvalid(
            f"{settings.listen} can be reached from other machines, and without --callers everybody may do everything: "
            "give --callers, or listen on 127.0.0.1"
        )


def require_whole_console(settings: ServerSettings) -> None:
    """Refuse a console beyond this machine without encryption and without callers: it shows what the service knows.

    :raises SecurityInvalid: if either is missing, or origins are given without a console.
    """
    listen = settings.console_listen
    if listen is None:
        if settings.console_origins:
            raise SecurityInvalid("--console-origin is of no use without --console")
        return
    if is_loopback(listen):
        return
    if settings.tls_certificate is None:
        raise SecurityInvalid(
            f"--console {listen} can be reached from other machines, where nothing goes unencrypted: "
            "give --tls-certificate and --tls-key, or let it listen on 127.0.0.1"
        )
    if settings.callers is None:
        raise SecurityInvalid(
            f"--console {listen} can be reached from other machines, and without --callers everybody may do "
            "everything: give --callers, or let it listen on 127.0.0.1"
        )


def is_loopback(listen: str) -> bool:
    """True if only this machine reaches an address `host:port`. A name other than localhost may be anywhere."""
    name = listen.rpartition(":")[0].strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
