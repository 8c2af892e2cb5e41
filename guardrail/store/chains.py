"""The chain of one writing store, and chains as the database holds them."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from guardrail.errors import StoreCorrupt
from guardrail.receipts import Chain, Head, Receipt, Sealed, genesis, public_bytes, record_digest, seal
from guardrail.store.records import decision_checksum
from guardrail.store.rows import RESTORE, decision_of
from guardrail.store.tables import chains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from guardrail.store.base import DecisionRecord

select_chains: sa.Select[Any] = sa.select(chains).order_by(chains.c.chain)
_select_head = sa.select(chains.c.head_position, chains.c.head_link).where(chains.c.chain == sa.bindparam("of"))
_move_head = (
    sa.update(chains)
    .where(chains.c.chain == sa.bindparam("of"))
    .values(
        head_position=sa.bindparam("position"),
        head_link=sa.bindparam("link"),
        head_signature=sa.bindparam("signature"),
    )
)


class ChainWriter:
    """The one chain that a store appends to. Used by one writing transaction at a time.

    It remembers where the chain ends. A database that says otherwise was changed by somebody else, and is not
    continued: the chain would vouch for what they made of it.

    Args:
        key: signs the chain; None for one that is not signed.
    """

    def __init__(self, key: Ed25519PrivateKey | None) -> None:
        self.chain = secrets.token_hex(16)
        self.opened_at = time.time()
        self.public_key = None if key is None else public_bytes(key)
        self._key = key
        self._start = Head(0, genesis(self.chain, self.opened_at, self.public_key))
        # More than one while it is not known whether a transaction was committed.
        self._ends = {self._start}

    @property
    def lock(self) -> tuple[str, ...]:
        """What a transaction that appends to the chain excludes others by."""
        return ("chain", self.chain)

    def append(self, connection: sa.Connection, records: Sequence[DecisionRecord]) -> list[Sealed]:
        """Give records their places, within a transaction that holds `lock` and inserts them.

        :raises StoreCorrupt: if the database says that the chain ends where it never did.
        """
        if not records:
            return []
        found = connection.execute(_select_head, {"of": self.chain}).first()
        head = self._start if found is None else Head(found.head_position, found.head_link)
        if head not in self._ends:
            raise StoreCorrupt(
                f"chain {self.chain} of the decision log ends at position {head.position} in the database, and this "
                "process wrote otherwise: somebody changed it, or put an older copy back. "
                f"Look with `guardrail audit verify`; {RESTORE}, and restart the service"
            )
        sealed, end = seal(self.chain, head, records, self._key)
        moved = {"position": end.position, "link": end.link, "signature": sealed[-1].signature}
        if found is None:
            row = {"chain": self.chain, "opened_at": self.opened_at, "public_key": self.public_key}
            connection.execute(sa.insert(chains), {**row, **{f"head_{name}": value for name, value in moved.items()}})
        else:
            connection.execute(_move_head, {"of": self.chain, **moved})
        # Others that were in doubt are not any more: their transactions have ended, and this is what they left.
        self._ends = {head, end}
        return sealed

    def committed(self, sealed: Sequence[Sealed]) -> None:
        """Take note that a transaction was committed."""
        if sealed:
            self._ends = {Head(sealed[-1].position, sealed[-1].link)}


def read_chain(row: sa.Row[Any]) -> Chain:
    """The chain of a row of `chains`.

    :raises StoreCorrupt: if a column holds what it cannot.
    """
    kinds = (str, float, bytes | None, int, bytes, bytes | None)
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)):
        raise StoreCorrupt(f"the record of chain {row.chain!r} of the decision log is damaged: {RESTORE}")
    head = Head(row.head_position, row.head_link)
    return Chain(row.chain, row.opened_at, row.public_key, head, row.head_signature)


def read_receipt(row: sa.Row[Any]) -> Receipt:
    """The receipt of a row of `decisions` joined with `worlds`; whatever the row holds."""
    record = decision_of(row)
    try:
        digest: bytes | None = record_digest(record)
    except TypeError:
        digest = None
    whole = row.checksum == decision_checksum(record)
    return Receipt(str(row.decision_id), row.chain, row.position, row.link, row.signature, digest, record, whole)
