"""The server's certificate: checked before it is used, and read again when its files change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from guardrail.errors import SecurityInvalid
from guardrail.server.security.files import Stamp, stamp
from guardrail.signing import require_private

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the server's credentials lie, all in PEM.

    Attributes:
        certificate: its chain, its own certificate first.
        key: its private key, unencrypted, readable by its owner only.
        client_ca: who signs client certificates; None if clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None


def _utc_now() -> datetime:
    return datetime.now(UTC)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials for a secure port. Each new connection looks whether the files changed, and uses what is new.

    With a client CA every connection must bring a certificate that it signed.

    :raises SecurityInvalid: if the files are wrong; see `read`.
    """
    first = read(files)
    stamps = [_stamps(files)]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """What is new; None keeps what is in use. Called on gRPC's threads, one at a time."""
        now = _stamps(files)
        if now == stamps[0]:
            return None
        stamps[0] = now
        try:
            fresh = read(files)
        except SecurityInvalid as error:
            log.error("certificate_not_read", why=str(error))
            return None
        log.info("certificate_read", path=str(files.certificate))
        return fresh

    # gRPC documents None as "keep what is in use"; its stubs do not know.
    fetch_changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
    return grpc.dynamic_ssl_server_credentials(first, fetch_changed, files.client_ca is not None)


def read(files: TlsFiles, now: Callable[[], datetime] = _utc_now) -> grpc.ServerCertificateConfiguration:
    """Read and check the files.

    :raises SecurityInvalid: if one cannot be read or is not PEM, the key can be read by others or is not the
        certificate's, the certificate is expired or not valid yet, or the client CA holds no certificate.
    """
    chain, key = _content(files.certificate), _content(files.key)
    certificate = _certificates(files.certificate, chain)[0]
    require_private(files.key)
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError) as error:
        raise SecurityInvalid(f"{files.key}: not an unencrypted private key in PEM") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise SecurityInvalid(f"{files.key}: is not the key of the certificate {files.certificate}")
    if now() > certificate.not_valid_after_utc:
        raise SecurityInvalid(f"{files.certificate}: expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now() < certificate.not_valid_before_utc:
        raise SecurityInvalid(
            f"{files.certificate}: not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        )
    roots = None
    if files.client_ca is not None:
        roots = _content(files.client_ca)
        _certificates(files.client_ca, roots)
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SecurityInvalid(f"{path}: cannot be read: {error.strerror}") from error


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise SecurityInvalid(f"{path}: holds no certificate in PEM") from error


def _stamps(files: TlsFiles) -> tuple[Stamp | None, ...]:
    return tuple(stamp(path) for path in (files.certificate, files.key, files.client_ca) if path is not None)
