"""Callers known by client certificates."""

import asyncio
import contextlib

import pytest
from cryptography import x509
from security_files import JWT, LOCAL

import guardrail
from guardrail.errors import PermissionDenied, ServiceError, Unauthenticated
from guardrail.server.security import certificates

URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
SPIFFE = "spiffe://prod/refunds"


@pytest.fixture
def secured(start_service, callers, authority, issuer):
    callers.head = JWT
    callers.add("refunds", "viewer", extra=f"certificate: {SPIFFE}")
    callers.add("by-dns", "viewer", key=False, extra="certificate: watcher.prod")
    callers.add("by-name", "viewer", key=False, extra="certificate: old-watcher")
    callers.add("by-token", "viewer", key=False, extra="jwt: {sub: ann}")
    server = authority.issue("server", LOCAL)
    return start_service(
        callers=callers.write(),
        tls_certificate=server.certificate,
        tls_key=server.key,
        client_ca=authority.path,
    )


@pytest.fixture
def connect(secured, authority):
    with contextlib.ExitStack() as stack:

        def make(name="client", alternatives=(), *, signer=None, token=None):
            issued = (signer or authority).issue(name, alternatives, file="client")
            tls = guardrail.Tls(ca=authority.path, certificate=issued.certificate, key=issued.key)
            return stack.enter_context(secured.client(token=token, tls=tls))

        yield make


def who(client):
    """The caller that the service takes a client for, by the name in its refusals."""
    with pytest.raises(PermissionDenied) as caught:
        client.reload_policies()
    return str(caught.value).split(" ")[0]


@pytest.mark.parametrize(
    ("name", "alternatives", "caller"),
    [
        ("anything", [URI(SPIFFE)], "refunds"),
        ("anything", [DNS("watcher.prod")], "by-dns"),
        ("anything", [DNS("other"), DNS("watcher.prod")], "by-dns"),
        ("old-watcher", [], "by-name"),
    ],
)
def test_names_in_certificates(connect, name, alternatives, caller):
    assert who(connect(name, alternatives)) == caller


@pytest.mark.parametrize(
    ("name", "alternatives"),
    [
        ("nobody", []),
        (SPIFFE.upper(), []),
        # A CA that vouches for alternative names may let anybody choose the common name.
        ("old-watcher", [DNS("mallory.prod")]),
        ("old-watcher", [x509.RFC822Name("mallory@example.org")]),
        ("anything", [URI(SPIFFE + "/x")]),
        ("anything", [URI("spiffe://prod/*")]),
        ("anything", [DNS("*.prod")]),
        ("anything", [DNS("WATCHER.prod")]),
        ("anything", [x509.RFC822Name("watcher.prod")]),
    ],
)
def test_names_that_are_nobodys(connect, name, alternatives):
    with pytest.raises(Unauthenticated) as caught:
        connect(name, alternatives).policies()
    assert caught.value.reason == "CREDENTIALS_MISSING"


def test_a_certificate_of_two_callers_is_nobodys(connect):
    with pytest.raises(Unauthenticated, match="names several callers"):
        connect(alternatives=[URI(SPIFFE), DNS("watcher.prod")]).policies()


def test_a_certificate_that_another_authority_signed_does_not_connect(connect, other_authority, authority, secured):
    with pytest.raises(ServiceError) as caught:
        connect("anything", [URI(SPIFFE)], signer=other_authority).policies()
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    with secured.client(tls=guardrail.Tls(ca=authority.path), timeout=3.0) as client, pytest.raises(ServiceError):
        client.policies()


def test_a_token_and_a_certificate_name_the_same_caller_or_are_refused(connect, callers, issuer):
    assert who(connect("a", [URI(SPIFFE)], token=callers.keys["refunds"])) == "refunds"
    assert who(connect("b", [DNS("of.the.mesh")], token=callers.keys["refunds"])) == "refunds"
    assert who(connect("c", [DNS("of.the.mesh")], token=issuer.token(sub="ann"))) == "by-token"
    for token in (callers.keys["refunds"], issuer.token(sub="ann")):
        with pytest.raises(Unauthenticated, match="name two callers"):
            connect("d", [DNS("watcher.prod")], token=token).policies()
    # A wrong token is refused even beside a right certificate.
    for token in ("grk_wrong", issuer.token(sub="bob"), "a.b.c"):
        with pytest.raises(Unauthenticated):
            connect("e", [URI(SPIFFE)], token=token).policies()


def test_the_asyncio_client_shows_the_same(secured, authority, callers):
    issued = authority.issue("client", [URI(SPIFFE)])
    tls = guardrail.Tls(ca=str(authority.path), certificate=str(issued.certificate), key=str(issued.key))
    target = f"127.0.0.1:{secured.port}"

    async def run(**given):
        async with guardrail.AsyncClient(target, timeout=20.0, tls=tls, **given) as client:
            return await client.policies()

    assert asyncio.run(run())
    assert asyncio.run(run(token=lambda: callers.keys["refunds"]))
    for token in ("grk_wrong", lambda: "grk_wrong"):
        with pytest.raises(Unauthenticated):
            asyncio.run(run(token=token))
    for token in (lambda: "", lambda: 1 / 0):
        with pytest.raises(Unauthenticated) as caught:
            asyncio.run(run(token=token))
        assert caught.value.reason == "CREDENTIALS_MISSING"


def test_a_server_that_another_authority_vouches_for_is_not_talked_to(secured, other_authority):
    tls = guardrail.Tls(ca=other_authority.path)
    with secured.client(tls=tls, timeout=3.0) as client, pytest.raises(ServiceError):
        client.policies()


def test_names_come_from_what_was_verified_only():
    assert certificates.names({}) == frozenset()
    assert certificates.names({"x509_common_name": [b"a"]}) == {"a"}
    assert certificates.names({"x509_common_name": [b"a"], "peer_dns": [b"b"], "peer_uri": [b"c"]}) == {"b", "c"}
    assert (
        certificates.names({"x509_common_name": [b"a"], "x509_subject_alternative_name": [b"10.0.0.1"]}) == frozenset()
    )
    assert certificates.names({"x509_subject": [b"CN=a"], "peer_email": [b"a"]}) == frozenset()
