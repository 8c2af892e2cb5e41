"""Links and signatures: golden values from the documented formula, and what a chain stands for."""

import hashlib
from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guardrail.receipts import Head, genesis, is_signed_by, next_link, public_bytes, record_digest, seal
from guardrail.store.base import DecisionRecord
from guardrail.testing.store_contract import decision

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def sha(text):
    return hashlib.sha256(text.encode()).digest()


def test_links_are_what_the_documentation_says():
    first = genesis("c", 1.5, None)
    assert first == sha('["guardrail receipts 1","c",1.5,null]')
    digest = record_digest(decision("d\u00e9"))
    assert digest == sha(
        '{"decision_id":"d\\u00e9","policy":"policy","policy_revision":"revision","world":"world",'
        '"posterior_revision":0,"decision":"reject","request":"{}","verdict":"{\\"x\\": 1}","decided_at":1.5}'
    )
    link = next_link("c", 1, first, digest)
    assert link == sha(f'["guardrail receipts 1","c",1,"{first.hex()}","{digest.hex()}"]')
    assert seal("c", Head(0, first), [decision("d\u00e9")], None)[1] == Head(1, link)


CHANGED = {str: lambda v: v + "x", int: lambda v: v + 1, float: lambda v: v + 1}


@pytest.mark.parametrize("name", [field.name for field in fields(DecisionRecord)])
def test_every_column_is_in_the_digest(name):
    record = decision("d")
    value = getattr(record, name)
    assert record_digest(replace(record, **{name: CHANGED[type(value)](value)})) != record_digest(record)


def test_an_equal_value_of_another_type_is_another_value():
    assert record_digest(decision("d", generation=1.0)) != record_digest(decision("d"))
    assert record_digest(decision("d", posterior_revision=False)) != record_digest(decision("d"))


def test_the_last_record_of_a_transaction_is_signed():
    start = Head(0, genesis("c", 1.5, public_bytes(KEY)))
    sealed, end = seal("c", start, [decision("a"), decision("b")], KEY)
    assert [s.position for s in sealed] == [1, 2]
    assert sealed[0].signature is None
    assert is_signed_by(public_bytes(KEY), end.link, sealed[1].signature)
    assert not is_signed_by(public_bytes(KEY), sealed[0].link, sealed[1].signature)
    assert not is_signed_by(public_bytes(Ed25519PrivateKey.generate()), end.link, sealed[1].signature)
    assert not is_signed_by(b"no key", end.link, sealed[1].signature)
    assert seal("c", end, [], KEY) == ([], end)
