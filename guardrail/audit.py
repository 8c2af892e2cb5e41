"""Whether the chains over a decision log are whole: what was edited, cut, exchanged or put in.

Pure: receipts in, findings out. A chain says nothing of a writer that replaces the whole of it, with the row that names
its end: that takes a signature (nobody else can make one) and an anchor (a head that was kept elsewhere).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from guardrail.receipts import genesis, is_signed_by, next_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guardrail.receipts import Chain, Receipt

MAX_FINDINGS = 1_000
"""Findings that are kept; further ones are counted."""
MAX_SUSPECTS = 32
"""Records of a chain that are compared with each other, to tell exchanged ones from edited ones."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: EDITED (a record, its receipt or its chain's row is not what was written), MISSING (a gap), SWAPPED (out
            of its place), CUT (the end that the chain's row or an anchor names is not there), FOREIGN (signed
            by another key, or a chain of one), UNSIGNED (no signature stands for it), UNCHAINED (from before chains).
        chain: its id; empty for UNCHAINED.
        position: of the first record concerned; 0 if it is about the chain.
        decision_id: of that record; empty if unknown.
        message: what is wrong, in words.
    """

    code: str
    chain: str
    position: int
    decision_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of a chain at some time, kept elsewhere.

    Attributes:
        chain: its id.
        position: of the last record then.
        link: of that record.
        signature: over the link; None if the chain was not signed.
    """

    chain: str
    position: int
    link: bytes
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Unchained:
    """The records without a place in a chain, in their order.

    Attributes:
        records: how many.
        digest: over all of them.
    """

    records: int = 0
    digest: bytes = b""

    def and_one(self, record: bytes) -> Unchained:
        """With one more of them, whose digest is given."""
        return Unchained(self.records + 1, hashlib.sha256(self.digest + record).digest())


@dataclass(slots=True)
class _Suspect:
    position: int
    decision_id: str
    previous: bytes
    link: bytes
    digest: bytes


@dataclass(slots=True)
class _Walk:
    """How far a chain was followed.

    Attributes:
        row: what the chain says of itself; None if it says nothing.
        position, link: of the last record; `link` is None where the next one cannot be tied to it.
        signed: position up to which a signature stands for everything.
    """

    row: Chain | None
    position: int = 0
    link: bytes | None = None
    signed: int = 0
    suspects: list[_Suspect] = field(default_factory=list)


class Audit:
    """Follows all chains of a log at once: `take` every receipt, then `finish`.

    Args:
        read_chains: what the chains say of themselves; read again while records are taken, for a service may write.
        keys: raw public keys, of which one must have signed each chain. Without any, signatures are held against the
            key that the chain names itself.
        anchors: heads that were kept elsewhere. Those of one place that differ all count.
        unchained: what `audit head` told of the records from before chains, each time; empty if it was not kept.

    Attributes:
        findings: the first MAX_FINDINGS.
        counts: number of findings by code.
        records: receipts taken.
        absent: how many of them came without their record, which is then known by its digest only.
        unchained: those without a place in a chain.
    """

    def __init__(
        self,
        read_chains: Callable[[], Sequence[Chain]],
        *,
        keys: Iterable[bytes] = (),
        anchors: Iterable[Anchor] = (),
        unchained: Iterable[Unchained] = (),
    ) -> None:
        self._read_chains, self._keys = read_chains, frozenset(keys)
        self._anchors: dict[tuple[str, int], set[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault((anchor.chain, anchor.position), set()).add(anchor)
        self._expected = tuple(dict.fromkeys(unchained))
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.records = self.absent = 0
        self.unchained = Unchained()
        self._walks: dict[str, _Walk] = {}
        for row in read_chains():
            self._begin(row.chain, row)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len(self._walks)

    @property
    def unsigned(self) -> int:
        """Number of chains that nobody signs."""
        return sum(walk.row is None or walk.row.public_key is None for walk in self._walks.values())

    @property
    def beyond_anchors(self) -> int:
        """Number of chained records that stand after all anchors of their chain."""
        last: Counter[str] = Counter()
        for chain, position in self._anchors:
            last[chain] = max(last[chain], position)
        return sum(max(0, walk.position - last[chain]) for chain, walk in self._walks.items())

    def take(self, receipt: Receipt) -> None:
        """Follow a chain by one record. Those of one chain come in the order of their positions."""
        self.records += 1
        self.absent += receipt.record is None
        chain, position = receipt.chain, receipt.position
        if chain is None and position is None and receipt.link is None and receipt.signature is None:
            self.unchained = self.unchained.and_one(receipt.digest or b"")
            if receipt.digest is None or not receipt.whole:
                self._find("EDITED", "", 0, receipt.decision_id, "the record does not fit its checksum")
            return
        if not isinstance(chain, str) or not _is_position(position) or not isinstance(receipt.link, bytes):
            self._find("EDITED", str(chain or ""), 0, receipt.decision_id, "the receipt is not whole")
            return
        walk = self._walks.get(chain) or self._begin_late(chain)
        if position <= walk.position:
            message = f"stands after position {walk.position}: out of order, or twice"
            self._find("SWAPPED", chain, position, receipt.decision_id, message)
            return
        if position > walk.position + 1:
            last = position - 1
            gap = f"positions {walk.position + 1} to {last} are" if last > walk.position + 1 else f"position {last} is"
            self._find("MISSING", chain, walk.position + 1, "", f"{gap} not there")
            walk.link = None
        self._check_link(walk, chain, position, receipt)
        self._check_signature(walk, chain, position, receipt)
        self._check_ends(walk, chain, position, receipt)
        walk.position, walk.link = position, receipt.link

    def finish(self) -> None:
        """What only the ends tell. Call it once, after the last receipt."""
        now = {row.chain: row for row in self._read_chains()}
        for chain, walk in self._walks.items():
            self._tell_suspects(chain, walk)
            self._finish_chain(chain, walk, now.get(chain))
        for anchor in (one for same_place in self._anchors.values() for one in same_place):
            found = self._walks.get(anchor.chain)
            if found is None or anchor.position > found.position:
                message = "an anchor names this record, and the log does not reach so far"
                self._find("CUT", anchor.chain, anchor.position, "", message)
            self._check_anchor_signature(anchor, found)
        self._finish_unchained()

    def _finish_unchained(self) -> None:
        told = f"{self.unchained.records} records have no place in a chain"
        if not self._expected and self.unchained.records:
            message = f"{told}: from before there were chains, or put in; an anchor tells (`guardrail audit head`)"
            self._find("UNCHAINED", "", 0, "", message)
        for expected in self._expected:
            if self.unchained != expected:
                other = "" if self.unchained.records != expected.records else ", and not the same ones"
                self._find("UNCHAINED", "", 0, "", f"{told}; the anchor says {expected.records}{other}")

    def _begin(self, chain: str, row: Chain | None) -> _Walk:
        walk = self._walks[chain] = _Walk(row)
        if row is None:
            self._find("CUT", chain, 0, "", "records name this chain, and its own row is not there")
            return walk
        walk.link = genesis(chain, row.opened_at, row.public_key)
        if self._keys and row.public_key is None:
            self._find("UNSIGNED", chain, 0, "", "the chain is not signed")
        elif self._keys and row.public_key not in self._keys:
            self._find("FOREIGN", chain, 0, "", "the chain is signed by a key that was not given")
        if row.public_key is not None and not (
            row.signature is not None and is_signed_by(row.public_key, row.head.link, row.signature)
        ):
            self._find("FOREIGN", chain, row.head.position, "", "the signature of the chain's row is not by its key")
        elif row.public_key is None and row.signature is not None:
            self._find("FOREIGN", chain, row.head.position, "", "the chain's row is signed, and names no key")
        return walk

    def _begin_late(self, chain: str) -> _Walk:
        """A chain that was opened while the log was being read, or that never said anything of itself."""
        return self._begin(chain, next((row for row in self._read_chains() if row.chain == chain), None))

    def _check_link(self, walk: _Walk, chain: str, position: int, receipt: Receipt) -> None:
        if receipt.digest is None or not receipt.whole:
            self._find("EDITED", chain, position, receipt.decision_id, "the record does not fit its checksum")
        elif walk.link is not None and receipt.link is not None:
            if next_link(chain, position, walk.link, receipt.digest) == receipt.link:
                return
            suspect = _Suspect(position, receipt.decision_id, walk.link, receipt.link, receipt.digest)
            if len(walk.suspects) < MAX_SUSPECTS:
                walk.suspects.append(suspect)
            else:
                self._tell_edited(chain, suspect)

    def _check_signature(self, walk: _Walk, chain: str, position: int, receipt: Receipt) -> None:
        if receipt.signature is None or receipt.link is None:
            return
        key = None if walk.row is None else walk.row.public_key
        if key is None or not is_signed_by(key, receipt.link, receipt.signature):
            message = "is signed, and not by the key of its chain"
            self._find("FOREIGN", chain, position, receipt.decision_id, message)
        else:
            walk.signed = position

    def _check_ends(self, walk: _Walk, chain: str, position: int, receipt: Receipt) -> None:
        row = walk.row
        if row is not None and position == row.head.position and row.head.link != receipt.link:
            message = "the chain's row names another record as the last one"
            self._find("EDITED", chain, position, receipt.decision_id, message)
        if any(anchor.link != receipt.link for anchor in self._anchors.get((chain, position), ())):
            message = "is not what an anchor says that stood here: the past was rewritten"
            self._find("EDITED", chain, position, receipt.decision_id, message)

    def _finish_chain(self, chain: str, walk: _Walk, now: Chain | None) -> None:
        if walk.row is None:
            return
        end = walk.row.head.position
        if walk.position < end:
            self._find("CUT", chain, walk.position + 1, "", f"ends at {walk.position}, and its row says {end}")
        # What was written since its row was read is covered by the row as it is now.
        if now is None or now.head.position < walk.position:
            message = f"goes on to {walk.position}, after the end that its row names"
            self._find("EDITED", chain, end + 1, "", message)
        elif now.head.position == walk.position and now.head != walk.row.head and now.head.link != walk.link:
            self._find("EDITED", chain, walk.position, "", "the chain's row names another record as the last one")
        if walk.row.public_key is not None and walk.signed < walk.position:
            message = f"no signature stands for positions {walk.signed + 1} to {walk.position}"
            self._find("UNSIGNED", chain, walk.signed + 1, "", message)

    def _check_anchor_signature(self, anchor: Anchor, walk: _Walk | None) -> None:
        key = walk.row.public_key if walk is not None and walk.row is not None else None
        keys = self._keys or ({key} if key is not None else set())
        if anchor.signature is not None and not any(is_signed_by(k, anchor.link, anchor.signature) for k in keys):
            self._find("FOREIGN", anchor.chain, anchor.position, "", "the anchor is signed by another key")

    def _tell_suspects(self, chain: str, walk: _Walk) -> None:
        """Of records that do not follow from what is before them, say which stand in each other's place."""
        for suspect in walk.suspects:
            for other in walk.suspects:
                expected = next_link(chain, suspect.position, suspect.previous, other.digest)
                if other is not suspect and expected in (suspect.link, other.link):
                    message = f"stands where the record of position {other.position} belongs, or the other way round"
                    self._find("SWAPPED", chain, suspect.position, suspect.decision_id, message)
                    break
            else:
                self._tell_edited(chain, suspect)

    def _tell_edited(self, chain: str, suspect: _Suspect) -> None:
        message = "the record, or its receipt, is not what was written after the one before it"
        self._find("EDITED", chain, suspect.position, suspect.decision_id, message)

    def _find(self, code: str, chain: str, position: int, decision_id: str, message: str) -> None:
        self.counts[code] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, chain, position, decision_id, message))


def _is_position(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 1
