"""Receipts as lines of JSON: a log that was taken out of its store, and heads that are kept elsewhere.

The first line of an export says what it is, the next ones tell the chains, then comes a line for each decision (with
its record, or only with the record's digest where it was left out), and the last line counts them.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from guardrail.audit import Anchor, Unchained
from guardrail.errors import StoreCorrupt, StoreError
from guardrail.receipts import VERSION, Chain, Head, Receipt, record_digest
from guardrail.store.base import DecisionRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from guardrail.store.base import Store

MAX_LINE = 64 * 2**20
"""Bytes of the longest line that is read."""

_COLUMNS = {field.name for field in dataclasses.fields(DecisionRecord)}


def head_lines(store: Store) -> Iterator[dict[str, Any]]:
    """What to keep elsewhere: the head of each chain, and a digest over the records from before there were chains.

    :raises StoreError: if the store cannot be read.
    """
    unchained = Unchained()
    for receipt in store.receipts():
        if receipt.chain is not None:
            break
        unchained = unchained.and_one(receipt.digest or b"")
    for chain in store.chains():
        yield {"chain": chain.chain, **_head(chain)}
    # Told even if there are none: who puts some in before the next head is taken is found by this one.
    yield {"unchained": unchained.records, "digest": unchained.digest.hex()}


def read_anchors(path: Path) -> tuple[list[Anchor], list[Unchained]]:
    """Heads that `head_lines` told, and each time the records from before chains; lines may tell of several times.

    :raises StoreError: if the file cannot be read.
    :raises StoreCorrupt: if a line is no head.
    """
    anchors: list[Anchor] = []
    unchained: list[Unchained] = []
    for number, line in _lines(path):
        try:
            if "unchained" in line:
                unchained.append(Unchained(_integer(line["unchained"]), bytes.fromhex(line["digest"])))
            else:
                place = (_text(line["chain"]), _integer(line["position"]), bytes.fromhex(line["link"]))
                anchors.append(Anchor(*place, _optional_bytes(line["signature"])))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorrupt(f"{path}, line {number}: is no line of `guardrail audit head`") from error
    return anchors, unchained


def export_lines(store: Store, policy: str | None = None, world: str | None = None) -> Iterator[dict[str, Any]]:
    """A whole decision log with its receipts, up to where its chains end when iteration starts.

    Args:
        store: where it lies.
        policy: of decisions of other policies only the digest.
        world: of decisions of other worlds only the digest.

    :raises StoreCorrupt: if a chain goes on after its end, or a record cannot be written out.
    :raises StoreError: if the store cannot be read.
    """
    yield {"kind": "export", "version": VERSION, "policy": policy, "world": world}
    ends, later = {}, {}
    for chain in store.chains():
        ends[chain.chain] = chain.head.position
        key = None if chain.public_key is None else chain.public_key.hex()
        yield {"kind": "chain", "chain": chain.chain, "opened_at": chain.opened_at, "public_key": key, **_head(chain)}
    written = 0
    for receipt in store.receipts():
        if receipt.chain is not None and (receipt.position or 0) > ends.get(receipt.chain, 0):
            later[receipt.chain] = receipt.position or 0
            continue
        yield _line(receipt, policy, world)
        written += 1
    if later:
        _require_ends(store, later)
    yield {"kind": "end", "decisions": written}


class ExportedLog:
    """A file of `export_lines`.

    Attributes:
        policy, world: what it was limited to; None if it was not.

    :raises StoreError: if the file cannot be read.
    :raises StoreCorrupt: if it is no export.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        number, first = next(_lines(path), (1, {}))
        if first.get("kind") != "export" or first.get("version") != VERSION:
            raise StoreCorrupt(f"{path}, line {number}: is no export of `guardrail audit export`")
        self.policy, self.world = first.get("policy"), first.get("world")
        self._chains = [self._chain(*line) for line in _lines(path) if line[1].get("kind") == "chain"]
        if len({chain.chain for chain in self._chains}) < len(self._chains):
            raise StoreCorrupt(f"{path}: tells a chain twice")

    def chains(self) -> list[Chain]:
        """The chains, as the file tells them."""
        return self._chains

    def receipts(self) -> Iterator[Receipt]:
        """The receipts, in the file's order.

        :raises StoreCorrupt: if a line is none, or the last one is not there.
        """
        read, end = 0, None
        for number, line in _lines(self._path):
            if end is not None:
                raise StoreCorrupt(f"{self._path}, line {number}: stands after the last line")
            kind = line.get("kind")
            if kind == "decision":
                read += 1
                yield self._receipt(number, line)
            elif kind == "end":
                end = line.get("decisions")
            elif number != 1 and (kind != "chain" or read):
                raise StoreCorrupt(f"{self._path}, line {number}: is of no kind that may stand here")
        if end != read or isinstance(end, bool):
            said = "the line that counts them is not there" if end is None else f"its last line says {end}"
            raise StoreCorrupt(f"{self._path}: holds {read} decisions, and {said}: it was cut or changed")

    def _chain(self, number: int, line: dict[str, Any]) -> Chain:
        try:
            key = _optional_bytes(line["public_key"])
            head = Head(_integer(line["position"]), bytes.fromhex(line["link"]))
            opened_at = line["opened_at"]
            if type(opened_at) is not float:
                raise TypeError("opened_at is no number with a point")
            return Chain(_text(line["chain"]), opened_at, key, head, _optional_bytes(line["signature"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorrupt(f"{self._path}, line {number}: tells no chain: {error}") from error

    def _receipt(self, number: int, line: dict[str, Any]) -> Receipt:
        try:
            record = None
            if "record" in line:
                if not line["record"].keys() <= _COLUMNS:
                    raise ValueError("the record has columns that this version does not know")
                record = DecisionRecord(**line["record"])
            digest = bytes.fromhex(line["digest"]) if record is None else record_digest(record)
            link = _optional_bytes(line["link"])
            signature = _optional_bytes(line["signature"])
            decision_id = "" if record is None else record.decision_id
            return Receipt(decision_id, line["chain"], line["position"], link, signature, digest, record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreCorrupt(f"{self._path}, line {number}: tells no decision: {error}") from error


def _require_ends(store: Store, later: dict[str, int]) -> None:
    """Decisions may have been written since; those that no chain's row knows of were not."""
    now = {chain.chain: chain.head.position for chain in store.chains()}
    for chain, position in later.items():
        if position > now.get(chain, 0):
            message = f"chain {chain} goes on to {position}, after its end: look with `guardrail audit verify`"
            raise StoreCorrupt(message)


def _line(receipt: Receipt, policy: str | None, world: str | None) -> dict[str, Any]:
    record = receipt.record
    if record is None or receipt.digest is None or not receipt.whole:
        message = f"decision {receipt.decision_id!r} is damaged: look with `guardrail audit verify`"
        raise StoreCorrupt(message)
    line: dict[str, Any] = {"kind": "decision", "chain": receipt.chain, "position": receipt.position}
    line |= {"link": _hex(receipt.link), "signature": _hex(receipt.signature)}
    if policy in (None, record.policy) and world in (None, record.world):
        return {**line, "record": dataclasses.asdict(record)}
    return {**line, "digest": receipt.digest.hex()}


def _head(chain: Chain) -> dict[str, Any]:
    return {"position": chain.head.position, "link": chain.head.link.hex(), "signature": _hex(chain.signature)}


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered lines of a file, each an object.

    :raises StoreError: if the file cannot be read.
    :raises StoreCorrupt: if a line is no object of JSON, too long, or cut.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while text := file.readline(MAX_LINE + 1):
                number += 1
                if not text.endswith(b"\n"):
                    why = "is cut short" if len(text) <= MAX_LINE else f"is longer than {MAX_LINE} bytes"
                    raise StoreCorrupt(f"{path}, line {number}: {why}")
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise StoreCorrupt(f"{path}, line {number}: is not JSON") from error
                if not isinstance(line, dict):
                    raise StoreCorrupt(f"{path}, line {number}: is no object")
                yield number, line
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _optional_bytes(value: Any) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("is no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("is no text")
    return value
