"""Receipts for logged decisions: a hash chain over the records of one writer, which may be signed.

A chain begins with its genesis link, and each record continues it:

    genesis = SHA-256(["guardrail receipts 1", chain, opened_at, public key])
    digest  = SHA-256({column: value, ...})
    link    = SHA-256(["guardrail receipts 1", chain, position, previous link, digest])

Each is taken over a text of JSON in ASCII without spaces, with bytes in hexadecimal. A signature is Ed25519 over the
32 bytes of a link, and by the chain it stands for every record up to there. So one is made for the last record of each
transaction, not for each record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from guardrail.store.base import DecisionRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = "guardrail receipts 1"
"""Begins what is hashed, so that a link of another construction is never taken for one of this."""

_encode = json.JSONEncoder(separators=(",", ":")).encode
_COLUMNS = tuple((field.name, field.default) for field in dataclasses.fields(DecisionRecord))


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain.

    Attributes:
        position: of its last record; 0 before the first.
        link: of that record, or the genesis link.
    """

    position: int
    link: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as its own record tells it.

    Attributes:
        chain: its id.
        opened_at: seconds since the epoch, UTC.
        public_key: the raw 32 bytes of the Ed25519 key that signs it; None if it is not signed.
        head: where it ends.
        signature: over the head's link; None if it is not signed.
    """

    chain: str
    opened_at: float
    public_key: bytes | None
    head: Head
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record's place in its chain, as it was kept.

    Attributes:
        decision_id: of the record; empty where the record is not at hand.
        chain: None if the record is from before there were chains.
        position: 1-based; None as `chain`.
        link: None as `chain`.
        signature: None unless the record was the last of its transaction in a signed chain.
        digest: of the record; None if that cannot be told, for instance because a column holds another type.
        record: None if it is not at hand.
        whole: False if the record does not fit its checksum.
    """

    decision_id: str
    chain: str | None
    position: int | None
    link: bytes | None
    signature: bytes | None
    digest: bytes | None
    record: DecisionRecord | None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sealed:
    """What goes with a new record.

    Attributes:
        position: 1-based, in the chain.
        link: of the record.
        signature: over the link; None unless it is the last of its transaction in a signed chain.
    """

    position: int
    link: bytes
    signature: bytes | None


def record_digest(record: DecisionRecord) -> bytes:
    """SHA-256 of a record with all its columns.

    A column that holds its default is left out, so that records from before there was such a column keep their digest.

    :raises TypeError: if a column holds what JSON cannot.
    """
    columns = {
        name: value
        for name, default in _COLUMNS
        if (value := getattr(record, name)) != default or type(value) is not type(default)
    }
    return hashlib.sha256(_encode(columns).encode("ascii")).digest()


def genesis(chain: str, opened_at: float, public_key: bytes | None) -> bytes:
    """The link before the first record of a chain."""
    return _hash([VERSION, chain, opened_at, None if public_key is None else public_key.hex()])


def next_link(chain: str, position: int, previous: bytes, digest: bytes) -> bytes:
    """The link of the record at a position, given the link before it and the record's digest."""
    return _hash([VERSION, chain, position, previous.hex(), digest.hex()])


def seal(
    chain: str, head: Head, records: Iterable[DecisionRecord], key: Ed25519PrivateKey | None
) -> tuple[list[Sealed], Head]:
    """Continue a chain by the records of one transaction.

    Args:
        chain: its id.
        head: where it ends.
        records: what to append, in order.
        key: signs the last one; None for a chain that is not signed.

    Returns:
        What goes with each record, and where the chain ends then.
    """
    sealed: list[Sealed] = []
    for record in records:
        position = head.position + 1
        head = Head(position, next_link(chain, position, head.link, record_digest(record)))
        sealed.append(Sealed(position, head.link, None))
    if sealed and key is not None:
        sealed[-1] = dataclasses.replace(sealed[-1], signature=key.sign(head.link))
    return sealed, head


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The raw 32 bytes of a public key."""
    return (key.public_key() if isinstance(key, Ed25519PrivateKey) else key).public_bytes_raw()


def is_signed_by(public_key: bytes, link: bytes, signature: bytes) -> bool:
    """Whether a signature over a link was made with the private key of a public one (raw, 32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, link)
    except (InvalidSignature, ValueError):
        return False
    return True


def _hash(value: list[object]) -> bytes:
    return hashlib.sha256(_encode(value).encode("ascii")).digest()
