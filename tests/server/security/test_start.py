"""Settings that are only partly there: the server does not start with them."""

import re

import pytest
from pydantic import ValidationError
from security_files import JWT, LOCAL

from guardrail.errors import SecurityInvalid
from guardrail.server.security.start import is_loopback, secure
from guardrail.server.settings import ServerSettings


@pytest.fixture
def parts(authority, callers):
    issued = authority.issue("server", LOCAL)
    return {
        "tls_certificate": issued.certificate,
        "tls_key": issued.key,
        "client_ca": authority.path,
        "callers": callers.add("somebody", "agent").write(),
    }


@pytest.fixture
def settings(tmp_path):
    def make(listen="127.0.0.1:0", **given):
        return ServerSettings(listen=listen, policies=(), store=tmp_path / "s.db", **given)

    return make


@pytest.mark.parametrize(
    ("listen", "given", "why"),
    [
        ("0.0.0.0:0", (), "nothing goes unencrypted"),
        ("0.0.0.0:0", ("callers",), "nothing goes unencrypted"),
        ("[::]:0", ("callers",), "nothing goes unencrypted"),
        ("10.0.0.1:0", ("callers",), "nothing goes unencrypted"),
        ("example.org:0", ("callers",), "nothing goes unencrypted"),
        ("0.0.0.0:0", ("tls_certificate", "tls_key"), "without --callers everybody may do everything"),
        ("0.0.0.0:0", ("tls_certificate", "tls_key", "client_ca"), "without --callers everybody may do everything"),
        ("127.0.0.1:0", ("tls_certificate",), "--tls-certificate is of no use without --tls-key"),
        ("127.0.0.1:0", ("tls_key",), "--tls-key is of no use without --tls-certificate"),
        ("0.0.0.0:0", ("tls_key", "callers"), "--tls-key is of no use without --tls-certificate"),
        ("127.0.0.1:0", ("client_ca",), "takes TLS"),
        ("127.0.0.1:0", ("client_ca", "callers"), "takes TLS"),
    ],
)
def test_partial_settings_are_refused(settings, parts, listen, given, why):
    with pytest.raises(SecurityInvalid, match=why):
        secure(settings(listen, **{name: parts[name] for name in given}))


@pytest.mark.parametrize(
    ("console", "given", "why"),
    [
        ("0.0.0.0:0", (), "where nothing goes unencrypted"),
        ("0.0.0.0:0", ("callers",), "where nothing goes unencrypted"),
        ("console.example:0", ("callers",), "where nothing goes unencrypted"),
        ("0.0.0.0:0", ("tls_certificate", "tls_key"), "without --callers everybody may do everything"),
        ("[::]:0", ("tls_certificate", "tls_key", "client_ca"), "without --callers everybody may do everything"),
    ],
)
def test_a_console_beyond_this_machine_needs_encryption_and_callers(settings, parts, console, given, why):
    with pytest.raises(SecurityInvalid, match=f"--console {re.escape(console)} .*{why}"):
        secure(settings(console_listen=console, **{name: parts[name] for name in given}))
    everything = {name: parts[name] for name in ("tls_certificate", "tls_key", "callers")}
    secure(settings(console_listen=console, **everything))
    secure(settings(console_listen="127.0.0.1:0"))


def test_origins_without_a_console_are_refused(settings):
    with pytest.raises(SecurityInvalid, match="--console-origin is of no use without --console"):
        secure(settings(console_origins=("https://console.example",)))


@pytest.mark.parametrize(
    "origin", ["console.example", "https://", "https://a/b", "javascript:alert", "https://a b", "*"]
)
def test_an_origin_is_a_scheme_and_a_host(settings, origin):
    with pytest.raises(ValidationError):
        settings(console_listen="127.0.0.1:0", console_origins=(origin,))


@pytest.mark.parametrize(
    ("listen", "given"),
    [
        ("127.0.0.1:0", ()),
        ("localhost:0", ()),
        ("[::1]:0", ()),
        ("127.0.0.1:0", ("callers",)),
        ("127.0.0.1:0", ("tls_certificate", "tls_key")),
        ("127.0.0.1:0", ("tls_certificate", "tls_key", "client_ca")),
        ("0.0.0.0:0", ("tls_certificate", "tls_key", "callers")),
        ("0.0.0.0:0", ("tls_certificate", "tls_key", "client_ca", "callers")),
    ],
)
def test_whole_settings_are_taken(settings, parts, listen, given):
    security = secure(settings(listen, **{name: parts[name] for name in given}))
    assert (security.credentials is not None) is ("tls_key" in given)
    assert security.gate.open is ("callers" not in given)


def test_callers_known_by_certificates_take_a_client_ca(settings, parts, callers):
    callers.add("by-certificate", "agent", key=False, extra="certificate: spiffe://a").write()
    tls = {name: parts[name] for name in ("tls_certificate", "tls_key", "callers")}
    with pytest.raises(SecurityInvalid, match="start with --client-ca"):
        secure(settings(**tls))
    secure(settings(**tls, client_ca=parts["client_ca"]))


def test_the_issuers_keys_must_be_there(settings, callers, tmp_path):
    callers.head = JWT
    callers.add("by-token", "agent", key=False, extra="jwt: {sub: a}").write()
    with pytest.raises(SecurityInvalid, match=r"jwks\.json: cannot be read"):
        secure(settings(callers=callers.path))
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    with pytest.raises(SecurityInvalid, match="no usable key"):
        secure(settings(callers=callers.path))


@pytest.mark.parametrize("wrong", ["expired", "other key", "public key file"])
def test_certificates_that_are_wrong_do_not_start(settings, authority, wrong):
    issued = authority.issue("server", LOCAL, start=-3, end=-1 if wrong == "expired" else 1)
    key = authority.issue("other").key if wrong == "other key" else issued.key
    if wrong == "public key file":
        key.chmod(0o644)
    with pytest.raises(SecurityInvalid):
        secure(settings(tls_certificate=issued.certificate, tls_key=key))


def test_a_server_with_partial_settings_touches_nothing(start_service, parts, tmp_path):
    with pytest.raises(SecurityInvalid):
        start_service(tls_key=parts["tls_key"])
    assert not (tmp_path / "guardrail.db").exists()


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.0.1:1", False),
        ("localhost.example.org:1", False),
        ("LOCALHOST:1", False),
        ("127.1:1", False),
        ("0:1", False),
    ],
)
def test_what_is_this_machine(listen, local):
    assert is_loopback(listen) is local
