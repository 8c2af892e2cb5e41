"""The service's decision log is chained, and signed with the key that it was given."""

from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from guardrail.audit import Audit
from guardrail.errors import SecurityInvalid
from guardrail.receipts import public_bytes
from guardrail.signing import read_private_key, write_private_key
from guardrail.store import open_store


def check(service, times):
    with service.client() as client:
        for _ in range(times):
            client.check(policy="coin", world="w", context={}, action={"kind": "low"})


def test_every_start_signs_a_chain_of_its_own(start_service, tmp_path):
    key = write_private_key(tmp_path / "signing.pem")
    for times in (3, 2):
        service = start_service(signing_key=tmp_path / "signing.pem")
        check(service, times)
        service.stop()
    with closing(open_store(tmp_path / "guardrail.db", read_only=True)) as store:
        audit = Audit(store.chains, keys=[public_bytes(key)])
        for receipt in store.receipts():
            audit.take(receipt)
        audit.finish()
        assert audit.counts == {}
        assert sorted(chain.head.position for chain in store.chains()) == [2, 3]


def test_a_signing_key_that_others_can_read_is_refused(start_service, tmp_path):
    write_private_key(tmp_path / "signing.pem")
    (tmp_path / "signing.pem").chmod(0o644)
    with pytest.raises(SecurityInvalid, match="0644 lets others"):
        start_service(signing_key=tmp_path / "signing.pem")


def test_what_is_no_signing_key_is_refused(tmp_path):
    path = tmp_path / "signing.pem"
    with pytest.raises(SecurityInvalid, match="cannot be read"):
        read_private_key(path)
    path.touch(mode=0o600)
    path.write_text("secret")
    with pytest.raises(SecurityInvalid, match="not an unencrypted private key") as caught:
        read_private_key(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(SecurityInvalid, match="File exists"):
        write_private_key(path)


def test_a_key_for_something_else_is_refused(tmp_path):
    path = tmp_path / "tls.pem"
    path.touch(mode=0o600)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(*form))
    with pytest.raises(SecurityInvalid, match="not an Ed25519 key"):
        read_private_key(path)
