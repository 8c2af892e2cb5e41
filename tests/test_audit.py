"""Any single change of a log is found; with an anchor, a cut and a rewritten past too."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from guardrail.audit import MAX_FINDINGS, Anchor, Audit, Unchained
from guardrail.receipts import Chain, Head, Receipt, genesis, public_bytes, record_digest, seal
from guardrail.testing.store_contract import decision

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def build(chain, batches, key=None, opened_at=1.5):
    """A chain and its receipts, over batches of records."""
    public = None if key is None else public_bytes(key)
    head, receipts, signature = Head(0, genesis(chain, opened_at, public)), [], None
    for batch in batches:
        sealed, head = seal(chain, head, batch, key)
        signature = sealed[-1].signature
        receipts += [
            Receipt(r.decision_id, chain, s.position, s.link, s.signature, record_digest(r), r)
            for r, s in zip(batch, sealed, strict=True)
        ]
    return Chain(chain, opened_at, public, head, signature), receipts


def log(sizes=(3, 1, 4), chain="c", key=None):
    count = iter(range(100))
    return build(chain, [[decision(f"{chain}{next(count)}") for _ in range(n)] for n in sizes], key)


def audit(chains, receipts, **options):
    done = Audit(lambda: chains, **options)
    for receipt in receipts:
        done.take(receipt)
    done.finish()
    return done


def codes(chains, receipts, **options):
    return set(audit(chains, receipts, **options).counts)


def edited(receipt, **columns):
    record = replace(receipt.record, **columns)
    return replace(receipt, record=record, digest=record_digest(record))


def anchor_of(chain):
    return Anchor(chain.chain, chain.head.position, chain.head.link, chain.signature)


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_an_honest_log_is_whole(key):
    chain, receipts = log(key=key)
    second, others = log((2,), "d", key)
    keys = [] if key is None else [public_bytes(key)]
    done = audit([chain, second], receipts + others, keys=keys, anchors=[anchor_of(chain), anchor_of(second)])
    assert (done.counts, done.records, done.chains) == ({}, 10, 2)
    assert audit([], []).counts == {}


# ------------------------------------------------------------ one change at a time

COLUMNS = {
    "decision_id": "z",
    "policy": "z",
    "policy_revision": "z",
    "world": "z",
    "posterior_revision": 9,
    "decision": "accept",
    "request": "z",
    "verdict": "z",
    "decided_at": 9.5,
    "generation": 2,
}


@st.composite
def changes(draw):
    """A log of one or two chains, and the same log after one change to a record or a receipt."""
    key = draw(st.sampled_from([None, KEY]))
    logs = [
        log(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), c, key)
        for c in ("c", "d")[: draw(st.integers(1, 2))]
    ]
    chains, receipts = [chain for chain, _ in logs], [r for _, more in logs for r in more]
    at = draw(st.integers(0, len(receipts) - 1))
    kind = draw(
        st.sampled_from(["edit", "link", "signature", "delete", "swap", "move", "rows", "insert", "truncate", "type"])
    )
    changed, one = list(receipts), receipts[at]
    if kind == "edit":
        column = draw(st.sampled_from(sorted(COLUMNS)))
        changed[at] = edited(one, **{column: COLUMNS[column]})
    elif kind == "link":
        changed[at] = replace(one, link=bytes(32))
    elif kind == "signature":
        changed[at] = replace(one, signature=bytes(64))
    elif kind == "delete":
        del changed[at]
    elif kind == "insert":
        changed.insert(at, replace(edited(one, decision_id="new"), decision_id="new"))
    elif kind == "truncate":
        changed = [r for i, r in enumerate(receipts) if r.chain != one.chain or i < at]
    elif kind == "type":
        changed[at] = replace(one, position=draw(st.sampled_from([None, "1", 1.0, 0, -1, True])))
    else:
        # How the records of several chains alternate says nothing.
        others = [i for i, r in enumerate(receipts) if i != at and (kind != "rows" or r.chain == one.chain)]
        if not others:
            return None
        to = draw(st.sampled_from(others))
        other = receipts[to]
        if kind == "swap":  # the records are exchanged, their receipts stay
            content = ("decision_id", "digest", "record")
            changed[at] = replace(one, **{name: getattr(other, name) for name in content})
            changed[to] = replace(other, **{name: getattr(one, name) for name in content})
        elif kind == "move":  # each gets the place of the other, and keeps its link
            changed[at] = replace(other, chain=one.chain, position=one.position)
            changed[to] = replace(one, chain=other.chain, position=other.position)
        else:  # the order of two rows is another
            changed[at], changed[to] = other, one
    return chains, receipts, changed, key


@given(changes())
def test_any_single_change_is_found_without_an_anchor_and_without_a_key(change):
    if change is None:
        return
    chains, receipts, changed, key = change
    keys = [] if key is None else [public_bytes(key)]
    assert codes(chains, receipts, keys=keys) == set()
    assert codes(chains, changed)
    assert codes(chains, changed, keys=keys)


@given(st.sampled_from([None, KEY]), st.data())
def test_any_change_of_a_chains_own_row_is_found(key, data):
    chain, receipts = log(key=key)
    changed = data.draw(
        st.sampled_from(
            [
                replace(chain, opened_at=2.5),
                replace(chain, public_key=public_bytes(OTHER)),
                replace(chain, head=Head(chain.head.position - 1, chain.head.link)),
                replace(chain, head=Head(chain.head.position + 1, chain.head.link)),
                replace(chain, head=replace(chain.head, link=bytes(32))),
                replace(chain, signature=bytes(64)),
                replace(chain, chain="e"),
            ]
        )
    )
    assert codes([changed], receipts)
    assert codes([], receipts)


# ------------------------------------------------------------ what a whole new story takes


def test_a_cut_end_with_a_row_that_fits_takes_an_anchor():
    chain, _ = log((3, 2))
    shorter, receipts = log((3,))
    assert codes([shorter], receipts) == set()
    assert codes([shorter], receipts, anchors=[anchor_of(chain)]) == {"CUT"}
    assert codes([], [], anchors=[anchor_of(chain)]) == {"CUT"}


def test_a_rewritten_past_takes_an_anchor_or_a_key():
    chain, _ = log(key=KEY)
    forged, receipts = build("c", [[decision(f"f{i}") for i in range(9)]])
    assert codes([forged], receipts) == set()
    assert codes([forged], receipts, anchors=[anchor_of(chain)]) >= {"EDITED"}
    assert codes([forged], receipts, keys=[public_bytes(KEY)]) == {"UNSIGNED"}


def test_an_anchor_that_was_taken_before_a_rewritten_past_counts_beside_one_that_was_taken_after():
    chain, _ = log()
    rewritten, receipts = build("c", [[decision("x"), *[decision(f"c{n}") for n in range(1, 8)]]])
    anchors = [anchor_of(chain), anchor_of(rewritten)]
    assert chain.head.position == rewritten.head.position
    for told in (anchors, anchors[::-1]):
        assert codes([rewritten], receipts, anchors=told) == {"EDITED"}


def test_a_chain_of_another_key_is_foreign():
    chain, receipts = log(key=KEY)
    forged, others = log(chain="d", key=OTHER)
    assert codes([chain, forged], receipts + others) == set()
    found = audit([chain, forged], receipts + others, keys=[public_bytes(KEY)])
    assert {(f.code, f.chain) for f in found.findings} == {("FOREIGN", "d")}
    posing = replace(forged, public_key=public_bytes(KEY))
    assert "FOREIGN" in codes([posing], others, keys=[public_bytes(KEY)])


def test_records_after_the_last_signature_are_unsigned():
    chain, receipts = log((3, 2), key=KEY)
    more, end = seal("c", chain.head, [decision("put in")], None)
    extra = Receipt("put in", "c", 6, more[0].link, None, record_digest(decision("put in")), decision("put in"))
    longer = replace(chain, head=end)
    assert codes([longer], [*receipts, extra]) == {"FOREIGN", "UNSIGNED"}


def test_findings_name_the_record():
    chain, receipts = log()
    receipts[4] = edited(receipts[4], verdict="{}")
    (found,) = audit([chain], receipts).findings
    assert (found.code, found.chain, found.position, found.decision_id) == ("EDITED", "c", 5, "c4")
    chain, receipts = log()
    del receipts[2:4]
    (found,) = audit([chain], receipts).findings
    assert (found.code, found.position) == ("MISSING", 3)
    assert "positions 3 to 4" in found.message
    chain, receipts = log()
    (found,) = audit([chain], receipts[:-2]).findings
    assert (found.code, found.position) == ("CUT", 7)


def test_exchanged_records_are_called_so():
    chain, receipts = log()
    one, other = receipts[1], receipts[5]
    receipts[1] = replace(one, record=other.record, digest=other.digest)
    receipts[5] = replace(other, record=one.record, digest=one.digest)
    found = audit([chain], receipts).findings
    assert [(f.code, f.position) for f in found] == [("SWAPPED", 2), ("SWAPPED", 6)]


# ------------------------------------------------------------ beside the chains


def old(decision_id):
    record = decision(decision_id)
    return Receipt(decision_id, None, None, None, None, record_digest(record), record)


def test_a_record_that_stands_twice_is_called_so():
    chain, receipts = log()
    assert "SWAPPED" in codes([chain], [*receipts[:4], receipts[3], *receipts[4:]])
    assert "SWAPPED" in codes([chain], [*receipts, receipts[0]])


def test_records_from_before_chains_are_told_unless_an_anchor_knows_them():
    receipts = [old("a"), old("b")]
    known = Unchained().and_one(receipts[0].digest).and_one(receipts[1].digest)
    assert codes([], receipts) == {"UNCHAINED"}
    assert codes([], receipts, unchained=[known]) == set()
    assert codes([], receipts, unchained=[Unchained(), known]) == codes([], [], unchained=[Unchained(), known])
    assert codes([], receipts, unchained=[known, Unchained()]) == {"UNCHAINED"}
    assert codes([], receipts[:1], unchained=[known]) == {"UNCHAINED"}
    assert codes([], [*receipts, old("c")], unchained=[known]) == {"UNCHAINED"}
    assert codes([], [receipts[0], old("x")], unchained=[known]) == {"UNCHAINED"}
    assert codes([], [], unchained=[known]) == {"UNCHAINED"}


def test_a_record_that_does_not_fit_its_checksum_is_edited():
    chain, receipts = log()
    receipts[0] = replace(receipts[0], whole=False)
    assert codes([chain], receipts) == {"EDITED"}
    receipts[0] = replace(receipts[0], whole=True, digest=None)
    assert codes([chain], receipts) == {"EDITED"}


def test_what_is_written_while_the_log_is_read_is_no_finding():
    before, _ = log((3,), key=KEY)
    after, receipts = log((3, 2), key=KEY)
    late, others = log((2,), "d", key=KEY)
    told = iter([[before], [after, late], [after, late]])
    done = Audit(lambda: next(told), keys=[public_bytes(KEY)])
    for receipt in receipts + others:
        done.take(receipt)
    done.finish()
    assert done.counts == {}


def test_many_findings_are_counted_and_not_all_kept():
    chain, receipts = build("c", [[decision(f"{i}") for i in range(1_500)]])
    done = audit([chain], [replace(r, whole=False) for r in receipts])
    assert (done.counts["EDITED"], len(done.findings)) == (1_500, MAX_FINDINGS)
