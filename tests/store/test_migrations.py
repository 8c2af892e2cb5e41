"""A database of the first schema, with data, becomes one of the present schema and loses nothing."""

import hashlib
import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa
from alembic import command

from guardrail.errors import SchemaMismatch, StoreCorrupt
from guardrail.store import open_store
from guardrail.store.base import Snapshot, WorldRecord
from guardrail.store.schema import _config
from guardrail.testing.store_contract import audited, decision, duplicate_of, new_at, observation


def checksum_of_first_schema(*fields):
    return hashlib.blake2b(ascii(fields).encode("ascii"), digest_size=16).digest()


def decision_checksum_of_first_schema(record):
    texts = [record.request.encode(), record.verdict.encode()]
    plain = (record.decision_id, record.policy, record.policy_revision, record.world, record.posterior_revision)
    rest = (*plain, record.decision, record.decided_at, *map(len, texts), True)
    return hashlib.blake2b(ascii(rest).encode("ascii") + b"".join(texts), digest_size=16).digest()


def snapshot_checksum_of_first_schema(snapshot):
    place = (snapshot.policy, snapshot.policy_revision, snapshot.world, snapshot.sequence, len(snapshot.payload))
    return hashlib.sha256(ascii(place).encode("ascii") + snapshot.payload).digest()


SNAPSHOT = Snapshot("policy", "r", "w1", 2, b"state")


def build_first_schema(url):
    """Two worlds of three observations each, a decision, a policy and a snapshot, as the first schema has them."""
    engine = sa.create_engine(url)
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "guardrail_0001")
        for world_id, world in ((1, "w1"), (2, "w2")):
            insert(connection, "worlds", id=world_id, policy="policy", world=world, observations=3)
            for sequence in (1, 2, 3):
                new = observation(f"id-{sequence}", f'{{"outcome":{sequence}}}', world=world)
                fields = (sequence, new.observation_id, new.digest, new.content, 1.5)
                names = ("sequence", "observation_id", "digest", "content", "recorded_at")
                checksum = checksum_of_first_schema("policy", world, *fields)
                row = dict(zip(names, fields, strict=True))
                insert(connection, "observations", world_id=world_id, checksum=checksum, **row)
        d = decision("d", world="w1")
        insert(
            connection,
            "decisions",
            **{name: getattr(d, name) for name in ("decision_id", "policy_revision", "posterior_revision", "decision")},
            **{name: getattr(d, name) for name in ("request", "verdict", "decided_at")},
            world_id=1,
            checksum=decision_checksum_of_first_schema(d),
        )
        policy = {"revision": "r", "name": "policy", "document": "document", "recorded_at": 1.5}
        insert(connection, "policies", **policy, checksum=checksum_of_first_schema(*policy.values()))
        insert(
            connection,
            "snapshots",
            world_id=1,
            policy_revision="r",
            sequence=2,
            payload=SNAPSHOT.payload,
            checksum=snapshot_checksum_of_first_schema(SNAPSHOT),
        )
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT setval('worlds_id_seq', 2)")
    engine.dispose()


def insert(connection, table, **row):
    names = ", ".join(row)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES (:{', :'.join(row)})"), row)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        build_first_schema(f"sqlite:///{tmp_path}/store.db")
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        return str(tmp_path / "store.db")
    url = request.getfixturevalue("postgres_url")
    build_first_schema(url.replace("postgresql://", "postgresql+psycopg://"))
    return url


def test_everything_is_there_after_the_upgrade_and_goes_on(url):
    for _ in range(2):
        with closing(open_store(url)) as store:
            assert store.worlds() == [WorldRecord("policy", w, 3) for w in ("w1", "w2")]
            for world in ("w1", "w2"):
                found = list(store.observations("policy", world))
                assert [(o.sequence, o.observation_id, o.reporter) for o in found] == [
                    (i, f"id-{i}", "") for i in (1, 2, 3)
                ]
            assert store.decision("d") == decision("d", world="w1")
            assert store.policy_document("r") == "document"
            assert store.latest_snapshot("policy", "w1", "r") == SNAPSHOT
            assert store.worlds_created_by("") == 2
    with closing(open_store(url)) as store:
        batch = [observation("id-3", '{"outcome":3}', world="w1"), observation("new", world="w1")]
        assert store.append_observations(batch) == [duplicate_of(3), new_at(4)]
        store.reset_world("policy", "w1", 1, "why", "someone")
        assert store.append_observations(batch) == [duplicate_of(3), duplicate_of(4)]
        assert store.append_observations([observation("newer", world="w1")]) == [new_at(1, 2)]
        assert store.append_observations([observation("other", world="w3")]) == [new_at(1)]
        assert audited(store) == {"UNCHAINED": 1}
        store.append_decisions([decision("d", world="w1"), decision("e", world="w1")])
        assert [(r.decision_id, r.position) for r in store.receipts()] == [("d", None), ("e", 1)]


def test_an_older_schema_is_not_read_as_it_is(url):
    with pytest.raises(SchemaMismatch, match="older schema guardrail_0001: open it for writing once"):
        open_store(url, read_only=True)


def test_records_of_no_world_are_not_upgraded(tmp_path):
    path = tmp_path / "store.db"
    build_first_schema(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM worlds WHERE id = 2")
    with pytest.raises(StoreCorrupt, match="records of no world"):
        open_store(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM guardrail_schema").fetchall() == [("guardrail_0001",)]
