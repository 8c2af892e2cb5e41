"""The chain that a store writes: through transactions of unknown fate, and against a database that somebody changed."""

from contextlib import closing, contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.audit import Audit
from guardrail.errors import StoreCorrupt, StoreError
from guardrail.receipts import public_bytes
from guardrail.store import open_store
from guardrail.testing.store_contract import audited, decision

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return request.getfixturevalue("postgres_url")


@contextmanager
def failing(store, when):
    """Writing transactions fail before their commit, or after it, when nobody can tell."""
    sessions = store._sessions
    real = sessions.write

    @contextmanager
    def write(exclude=()):
        with real(exclude) as connection:
            yield connection
            if when == "before":
                raise StoreError("it failed before the commit")
        raise StoreError("the connection was lost while it was committed")

    sessions.write = write
    try:
        yield
    finally:
        sessions.write = real


def places(store):
    return [(r.decision_id, r.position) for r in store.receipts()]


@pytest.mark.parametrize(("when", "there"), [("before", 0), ("after", 2)])
def test_a_transaction_of_unknown_fate_leaves_neither_a_gap_nor_a_double(url, when, there):
    with closing(open_store(url)) as store:
        for first in (True, False):
            name = "a" if first else "b"
            batch = [decision(f"{name}{i}") for i in range(2)]
            with failing(store, when), pytest.raises(StoreError):
                store.append_decisions(batch)
            assert len(places(store)) == there + (0 if first else 3)
            store.append_decisions([*batch, decision(f"{name}2")])
        assert places(store) == [(n, p + 1) for p, n in enumerate(["a0", "a1", "a2", "b0", "b1", "b2"])]
        assert audited(store) == {}


def test_a_transaction_that_fails_again_and_again(url):
    with closing(open_store(url, signing_key=KEY)) as store:
        for size in (1, 2, 3):
            with failing(store, "before"), pytest.raises(StoreError):
                store.append_decisions([decision(f"{i}") for i in range(size)])
        store.append_decisions([decision(f"{i}") for i in range(4)])
        assert places(store) == [(f"{i}", i + 1) for i in range(4)]
        assert audited(store) == {}


CHANGES = [
    "UPDATE chains SET head_position = 1",
    "UPDATE chains SET head_link = (SELECT link FROM decisions WHERE position = 1), head_position = 1",
    "DELETE FROM chains",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_chain_that_somebody_changed_is_not_continued(url, change):
    with closing(open_store(url, signing_key=KEY)) as store:
        store.append_decisions([decision("a"), decision("b")])
        with store._sessions.write() as connection:
            connection.exec_driver_sql(change)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match="somebody changed it"):
                store.append_decisions([decision("c")])
        assert [name for name, _ in places(store)] == ["a", "b"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=5), st.sampled_from(["", "before", "after"])), max_size=6)
)
def test_any_history_of_appends_and_failures_is_one_whole_chain(tmp_path_factory, history):
    with closing(open_store(tmp_path_factory.mktemp("chain") / "store.db", signing_key=KEY)) as store:
        expected = []
        for numbers, when in history:
            batch = [decision(f"{i}") for i in numbers]
            new = [i for i in dict.fromkeys(numbers) if i not in expected]
            if when and batch:
                with failing(store, when), pytest.raises(StoreError):
                    store.append_decisions(batch)
            else:
                store.append_decisions(batch)
            expected += new if when != "before" else []
        assert places(store) == [(f"{i}", p + 1) for p, i in enumerate(expected)]
        audit = Audit(store.chains, keys=[public_bytes(KEY)])
        for receipt in store.receipts():
            audit.take(receipt)
        audit.finish()
        assert audit.counts == {}
