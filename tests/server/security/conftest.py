"""Certificates, tokens and callers files made for a test."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from security_files import Authority, CallersFile, Clock, Issuer, segment


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def other_authority(tmp_path):
    return Authority(tmp_path, "other-authority")


@pytest.fixture(scope="session")
def signing_keys():
    """One private key for each family of algorithms."""
    return {
        "RS256": rsa.generate_private_key(65_537, 2_048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture
def issuer(tmp_path, signing_keys):
    return Issuer(tmp_path / "jwks.json", signing_keys)


@pytest.fixture
def forge():
    """forge(header, claims, signature) -> a token with these parts, whatever they are."""
    return lambda header, claims, signature=b"": ".".join((segment(header), segment(claims), segment(signature)))


@pytest.fixture
def callers(tmp_path):
    return CallersFile(tmp_path / "callers.yaml")


@pytest.fixture
def clock():
    return Clock()
