"""The server's certificate: what is refused, and that new files are used without a restart."""

import os
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from security_files import LOCAL

from guardrail.errors import SecurityInvalid
from guardrail.server.security.tls import TlsFiles, read


@pytest.fixture
def files(authority):
    issued = authority.issue("server", LOCAL)
    return TlsFiles(issued.certificate, issued.key, None)


def test_a_good_certificate_is_read(files, authority):
    assert read(files)
    assert read(TlsFiles(files.certificate, files.key, authority.path))


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644, 0o666, 0o777])
def test_a_key_that_others_get_at_is_refused(files, mode):
    files.key.chmod(mode)
    with pytest.raises(SecurityInvalid, match=f"{mode:04o} lets others"):
        read(files)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_only_a_key_of_root_may_be_read_by_a_group(files):
    files.key.chmod(0o640)
    assert read(files)
    os.chown(files.key, 65_534, -1)
    with pytest.raises(SecurityInvalid, match="0640 lets others"):
        read(files)
    files.key.chmod(0o600)
    assert read(files)


def test_a_key_of_another_certificate_is_refused(files, authority):
    other = authority.issue("other", LOCAL)
    with pytest.raises(SecurityInvalid, match="is not the key of"):
        read(TlsFiles(files.certificate, other.key, None))


@pytest.mark.parametrize(("start", "end", "why"), [(-3, -1, "expired at"), (2, 3, "not valid before")])
def test_times(authority, start, end, why):
    issued = authority.issue("server", LOCAL, start=start, end=end)
    with pytest.raises(SecurityInvalid, match=why):
        read(TlsFiles(issued.certificate, issued.key, None))


def test_a_certificate_runs_out(files):
    with pytest.raises(SecurityInvalid, match="expired at"):
        read(files, lambda: datetime.now(UTC) + timedelta(days=2))


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_pem(files, authority, which, content):
    parts = {"certificate": files.certificate, "key": files.key, "client_ca": authority.path}
    if content is None:
        parts[which].unlink()
    else:
        parts[which].write_bytes(content)
    with pytest.raises(SecurityInvalid, match=str(parts[which])):
        read(TlsFiles(**parts))


def test_an_encrypted_key_is_refused(files, authority):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    form = (serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    with pytest.raises(SecurityInvalid, match="not an unencrypted private key"):
        read(files)


def presented(port, authority):
    """The common name of the certificate that a new connection meets."""
    context = ssl.create_default_context(cafile=authority.path)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        return dict(pair for (pair,) in connection.getpeercert()["subject"])["commonName"]


def test_new_files_are_used_for_new_connections(start_service, authority):
    issued = authority.issue("first", LOCAL, file="server")
    service = start_service(tls_certificate=issued.certificate, tls_key=issued.key)
    assert presented(service.port, authority) == "first"
    authority.issue("second", LOCAL, file="server")
    assert presented(service.port, authority) == "second"
    # A broken one, or one that is being written, keeps the last good one in use.
    good = issued.certificate.read_bytes()
    issued.certificate.write_bytes(good[: len(good) // 2])
    assert presented(service.port, authority) == "second"
    authority.issue("late", LOCAL, start=-3, end=-1, file="server")
    assert presented(service.port, authority) == "second"
    authority.issue("third", LOCAL, file="server")
    assert presented(service.port, authority) == "third"


def test_plaintext_does_not_reach_a_server_with_a_certificate(start_service, authority):
    import grpc

    issued = authority.issue("server", LOCAL)
    service = start_service(tls_certificate=issued.certificate, tls_key=issued.key)
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/guardrail.v1.GuardrailService/ListPolicies")(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP" not in raw.recv(100)
    assert time.monotonic() - started < 20


def test_the_health_command_asks_over_tls(start_service, authority):
    from typer.testing import CliRunner

    from guardrail.cli.app import app

    issued = authority.issue("server", LOCAL)
    service = start_service(tls_certificate=issued.certificate, tls_key=issued.key)
    ask = ["health", f"127.0.0.1:{service.port}", "--deadline", "5"]
    assert CliRunner().invoke(app, [*ask, "--tls-ca", str(authority.path)]).exit_code == 0
    assert CliRunner().invoke(app, ask).exit_code == 3
