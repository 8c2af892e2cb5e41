"""The SQL store on PostgreSQL: the contract of every store, several writers, and a server that fails."""

import contextlib
import multiprocessing
import re
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import PASSWORD, PostgresServer

from guardrail.errors import MissingExtra, SchemaMismatch, StoreCorrupt, StoreError
from guardrail.store import feed as feed_module
from guardrail.store import open_store, postgres
from guardrail.store.base import Changes, Snapshot
from guardrail.store.feed import read_payloads
from guardrail.store.records import observation_checksum
from guardrail.store.tables import VERSION_TABLE, metadata
from guardrail.testing.store_contract import (
    DIGEST,
    StoreContract,
    decision,
    duplicate_of,
    escalation,
    new_at,
    observation,
    race_for,
    reservation,
)

WRITERS = 3


class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def database(self, postgres_url):
        self.url = postgres_url

    def open(self, directory):
        return open_store(self.url)


@pytest.fixture
def store(postgres_url):
    with closing(open_store(postgres_url)) as store:
        yield store


@pytest.fixture
def own_server():
    """A server that a test may stop."""
    server = PostgresServer()
    yield server
    server.close()


def database_of(url):
    return url.rpartition("/")[2]


def refusal(kind, url, **options):
    """The message with which opening fails; it must be of exactly that kind, and without the password."""
    with pytest.raises(StoreError) as caught:
        open_store(url, **options)
    assert type(caught.value) is kind
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------ several writers


def test_of_replicas_that_use_an_approval_at_once_one_may(postgres_url):
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(closing(open_store(postgres_url))) for _ in range(4)]
        for number in range(15):
            name = f"id-{number}"
            stores[0].open_escalations([escalation(name)])
            stores[1].resolve_escalation(name, DIGEST, True, "person", "", 1.0)
            assert race_for(name, stores) == [True, False, False, False]


def append_from_a_process(url, writer, start, answers):
    """Append 40 batches to two worlds, each with ids that every writer uses and ids of its own."""
    with closing(open_store(url)) as store:
        start.wait()
        for batch in range(40):
            ids = [f"shared-{batch}", f"{writer}-{batch}"]
            world = f"w{batch % 2}"
            results = store.append_observations([observation(i, "content of " + i, world=world) for i in ids])
            store.append_decisions([decision(f"shared-{batch}", world=world), decision(f"{writer}-{batch}")])
            store.record_policy("policy", f"r{batch}", "document")
            store.save_snapshot(Snapshot("policy", "r", world, batch, b"state"))
            answers.put([(world, i, r.sequence, r.duplicate, r.conflict) for i, r in zip(ids, results, strict=True)])


def test_processes_that_write_at_once_number_without_gaps_and_count_once(postgres_url):
    context = multiprocessing.get_context("spawn")
    answers, start = context.Queue(), context.Barrier(WRITERS)
    writers = [
        context.Process(target=append_from_a_process, args=(postgres_url, w, start, answers)) for w in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    told = [answer for _ in range(40 * WRITERS) for answer in answers.get(timeout=60)]
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    with closing(open_store(postgres_url)) as store:
        for world in ("w0", "w1"):
            log = list(store.observations("policy", world))
            assert [o.sequence for o in log] == list(range(1, 20 * (WRITERS + 1) + 1))
            places = {o.observation_id: o.sequence for o in log}
            assert len(places) == len(log)
            assert {(i, s) for w, i, s, _, _ in told if w == world} == set(places.items())
        new = [i for _, i, _, duplicate, _ in told if not duplicate]
        assert sorted(new) == sorted(set(new)), "two writers were told that the same id is new"
        assert not any(conflict for *_, conflict in told)
        assert len(list(store.decisions())) == 40 * (WRITERS + 1)
        assert store.latest_snapshot("policy", "w1", "r").sequence == 39


def test_one_writer_a_world_while_other_worlds_go_on(postgres_url):
    done = threading.Event()
    with closing(open_store(postgres_url)) as first, closing(open_store(postgres_url)) as second:

        def append():
            assert second.append_observations([observation("b")]) == [new_at(2)]
            done.set()

        thread = threading.Thread(target=append)
        with first._sessions.write([("world", "policy", "world")]):
            thread.start()
            with closing(open_store(postgres_url)) as third:
                assert third.append_observations([observation("a", world="other")]) == [new_at(1)]
            assert not done.is_set()
            # From a connection of its own, as the writer of this world that got there first would.
            with psycopg.connect(postgres_url) as connection:
                insert_by_hand(connection)
            assert not done.is_set()
        thread.join(30)
        assert done.is_set()
        assert [o.sequence for o in first.observations("policy", "world")] == [1, 2]


def insert_by_hand(connection):
    (world,) = connection.execute(
        "INSERT INTO worlds (policy, world, observations) VALUES ('policy', 'world', 1) RETURNING id"
    ).fetchone()
    checksum = observation_checksum(("policy", "world", 1), 1, "a", "d", "{}", 1.0)
    connection.execute("INSERT INTO observations VALUES (%s, 1, 'a', 'd', '{}', 1.0, %s)", (world, checksum))


def test_batches_over_the_same_worlds_in_other_orders_do_not_lock_each_other_out(postgres_url):
    worlds = [f"w{i}" for i in range(10)]
    failures = []

    def write(name, order):
        try:
            with closing(open_store(postgres_url)) as store:
                start.wait()
                for batch in range(15):
                    store.append_decisions([decision(f"{name}-{batch}-{w}", world=f"{batch}-{w}") for w in order])
                    store.append_observations([observation(f"{name}-{batch}", world=f"{batch}-{w}") for w in order])
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    start = threading.Barrier(3)
    orders = [worlds, worlds[::-1], worlds[5:] + worlds[:5]]
    threads = [threading.Thread(target=write, args=(name, order)) for name, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(open_store(postgres_url)) as store:
        assert {w.observations for w in store.worlds()} == {3}


def test_stores_that_start_together_build_the_schema_once(postgres_url):
    code = "import sys; from guardrail.store import open_store; open_store(sys.argv[1]).close()"
    starting = [
        subprocess.Popen([sys.executable, "-c", code, postgres_url], stderr=subprocess.PIPE, text=True)
        for _ in range(WRITERS)
    ]
    for process in starting:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")


# ------------------------------------------------------------ schema and damage


def test_migrations_build_the_tables_of_the_code(store, postgres_url):
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        collations = connection.exec_driver_sql(
            "SELECT column_name, collation_name FROM information_schema.columns"
            " WHERE table_name = 'worlds' AND data_type = 'character varying'"
        ).all()
    engine.dispose()
    assert {collation for _, collation in collations} == {"C"}


def test_other_databases_are_refused(postgres_url, postgres_server):
    database = database_of(postgres_url)
    assert "is empty" in refusal(SchemaMismatch, postgres_url, read_only=True)
    postgres_server.execute("CREATE TABLE customers (name text)", database=database)
    for read_only in (False, True):
        assert "another program" in refusal(SchemaMismatch, postgres_url, read_only=read_only)
    postgres_server.execute("DROP TABLE customers", database=database)
    open_store(postgres_url).close()
    postgres_server.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'guardrail_9999'", database=database)
    assert "guardrail_9999" in refusal(SchemaMismatch, postgres_url)


def test_damage_is_named(store, postgres_url, postgres_server):
    store.append_observations([observation(str(i)) for i in range(3)])
    store.append_decisions([decision("d")])
    database = database_of(postgres_url)
    postgres_server.execute("UPDATE observations SET content = '[]' WHERE sequence = 2", database=database)
    with pytest.raises(StoreCorrupt, match="observation 2 of world 'world' of policy 'policy' is damaged"):
        list(store.observations("policy", "world"))
    postgres_server.execute("UPDATE decisions SET decision = 'accept'", database=database)
    with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
        store.decision("d")
    postgres_server.execute("DELETE FROM observations WHERE sequence = 3", database=database)
    with pytest.raises(StoreCorrupt, match="should hold 3 observations and ends with 2"):
        store.append_observations([observation("new")])


def test_a_reader_writes_nothing(store, postgres_url):
    store.append_observations([observation("a")])
    with closing(open_store(postgres_url, read_only=True)) as reader:
        assert reader.observation_count("policy", "world") == 1
        with pytest.raises(StoreError, match="read-only"):
            reader.append_observations([observation("b")])
        with reader._sessions._backend.connect_reader() as connection, pytest.raises(sa.exc.DBAPIError):
            connection.exec_driver_sql("DELETE FROM observations")


def test_numbers_and_bytes_are_exact(store):
    times = (0.1, 1e-300, 1.7976931348623157e308, 2.0**53 + 2, -0.0)
    store.append_decisions([decision(str(i), decided_at=t) for i, t in enumerate(times)])
    assert [store.decision(str(i)).decided_at.hex() for i in range(len(times))] == [t.hex() for t in times]
    payload = bytes(range(256)) * 300
    store.save_snapshot(Snapshot("policy", "r", "world", 2**40, payload))
    assert store.latest_snapshot("policy", "world", "r").payload == payload


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_the_database_cannot_hold_is_an_error_and_nothing_else(store, text):
    with pytest.raises(StoreError):
        store.append_observations([observation("a"), observation(text, "{}")])
    with pytest.raises(StoreError):
        store.observation_count("policy", text)
    with pytest.raises(StoreError):
        store.append_decisions([decision(text)])
    assert store.append_observations([observation("b")]) == [new_at(1)]


# ------------------------------------------------------------ connecting


def test_urls_with_and_without_a_password_open_the_same_database(postgres_url, postgres_server):
    socket_url = postgres_server.socket_url(database_of(postgres_url))
    with closing(open_store(postgres_url.replace("postgresql://", "postgresql+psycopg://"))) as store:
        store.append_observations([observation("a")])
    for url in (socket_url, f"{postgres_url}?sslmode=disable&application_name=test"):
        with closing(open_store(url, read_only=True)) as store:
            assert store.observation_count("policy", "world") == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("/test_", "/none_"), "does not exist"),
        (("%20", "%2020"), "authentication failed"),
        (("guardrail:", "nobody:"), "authentication failed"),
        (("@127.0.0.1:", "@127.0.0.1:1"), "cannot be reached"),
        (("", "?sslmode=nonsense"), "sslmode"),
        (("", "?sslmode=require"), "cannot be reached"),
        (("", "?password=secret"), "among the options"),
        (("", "?nonsense=1"), "nonsense"),
    ],
)
def test_what_cannot_be_connected_to_is_said(postgres_url, change, expected):
    old, new = change
    message = refusal(StoreError, postgres_url.replace(old, new, 1) if old else postgres_url + new)
    assert expected in message


@pytest.mark.parametrize("url", ["postgresql://", "postgresql://user:hidden@host", "postgresql://u:hidden@h:port/db"])
def test_urls_that_name_no_database(url):
    assert "hidden" not in refusal(StoreError, url)


def test_only_a_store_that_never_writes_may_read_from_a_standby(postgres_url, postgres_server):
    """A proxy, or a URL with several hosts, may lead a connection for reading to a server that lags behind."""
    with closing(open_store(postgres_url)) as store:
        store.append_observations([observation("a")])
        postgres_server.execute(
            "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
            database=database_of(postgres_url),
        )
        misled = f"{postgres_url}?options=-csearch_path%3Dpublic,pg_catalog"
        assert "connect to the primary" in refusal(StoreError, misled)
        with closing(open_store(misled, read_only=True)) as reader:
            assert reader.observation_count("policy", "world") == 1


def test_a_missing_driver_is_named(postgres_url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="postgres"):
        open_store(postgres_url)


def test_a_user_without_rights_is_told_so(postgres_url, postgres_server):
    database = database_of(postgres_url)
    postgres_server.execute(f"CREATE ROLE reader_{database} LOGIN")
    try:
        url = postgres_server.socket_url(database).replace("guardrail@", f"reader_{database}@")
        assert "rights" in refusal(StoreError, url)
    finally:
        postgres_server.execute(f"DROP ROLE reader_{database}")


def test_the_rights_in_the_manual_are_enough(postgres_url, postgres_server):
    database = database_of(postgres_url)
    open_store(postgres_url).close()
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    grants = re.findall(r"^GRANT .* TO guardrail_service;$", manual, flags=re.M)
    assert len(grants) == 4
    role = f"service_{database}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for grant in grants:
            postgres_server.execute(grant.replace("guardrail_service", role), database=database)
        url = postgres_server.socket_url(database).replace("guardrail@", f"{role}@")
        with closing(open_store(url)) as store:
            feed = store.follow()
            assert feed.next(0).missed
            for sequence in range(1, 5):
                store.append_observations([observation(str(sequence))])
                store.append_decisions([decision(str(sequence))])
                store.save_snapshot(Snapshot("policy", "r", "world", sequence, b"state"))
            for name in ("first", "second"):
                store.reserve([reservation(name, 0.01)])
            store.record_policy("policy", "r", "document")
            store.open_escalations([escalation("e")])
            store.resolve_escalation("e", DIGEST, True, "approver", "", 2.0)
            store.reset_world("policy", "world", 1, "why", "who")
            assert store.append_observations([observation("4"), observation("5")]) == [duplicate_of(4), new_at(1, 2)]
            assert feed.next(30).worlds == {("policy", "world")}
            with store._sessions.write() as connection, pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                connection.exec_driver_sql("DELETE FROM observations")
    finally:
        postgres_server.execute(f"DROP OWNED BY {role}", database=database)
        postgres_server.execute(f"DROP ROLE {role}")


def test_a_server_that_loses_commits_is_refused():
    server = PostgresServer(fsync="off")
    try:
        url = server.url(server.create_database())
        assert "fsync = on" in refusal(StoreError, url)
    finally:
        server.close()


def test_settings_of_the_sessions(postgres_url, postgres_server):
    database = database_of(postgres_url)
    postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")

    def settings(connection):
        names = ("synchronous_commit", "transaction_isolation", "transaction_read_only", "statement_timeout")
        return [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    with closing(open_store(postgres_url)) as store:
        with store._sessions.write() as connection:
            assert settings(connection) == ["on", "read committed", "off", f"{postgres.STATEMENT_SECONDS}s"]
        with store._sessions._backend.connect_reader() as connection:
            assert settings(connection)[1:3] == ["read committed", "on"]
    postgres_server.execute(f"ALTER DATABASE {database} SET synchronous_commit = remote_apply")
    with closing(open_store(postgres_url)) as store, store._sessions.write() as connection:
        assert settings(connection)[0] == "remote_apply"


# ------------------------------------------------------------ a server that fails


def test_a_lost_connection_is_an_error_and_the_next_call_works(store, postgres_url, postgres_server):
    def end_connections():
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database_of(postgres_url)
        )

    store.append_observations([observation("a")])
    assert store.observation_count("policy", "world") == 1
    end_connections()
    assert store.observation_count("policy", "world") == 1
    with pytest.raises(StoreError):
        store.append_observations([observation("b")])
    assert store.append_observations([observation("b")]) == [new_at(2)]
    with pytest.raises(StoreError), store._sessions.write() as connection:
        end_connections()
        connection.exec_driver_sql("SELECT 1")
    assert store.append_observations([observation("b"), observation("c")]) == [duplicate_of(2), new_at(3)]


def test_a_crash_loses_nothing_that_was_acknowledged(own_server):
    with closing(open_store(own_server.url(own_server.create_database()))) as store:
        acknowledged = 0
        for _ in range(3):
            for _ in range(20):
                acknowledged += 1
                store.append_observations([observation(str(acknowledged))])
            own_server.stop("immediate")
            with pytest.raises(StoreError):
                store.append_observations([observation(str(acknowledged + 1))])
            with pytest.raises(StoreError, match="cannot be reached"):
                store.worlds()
            own_server.start()
            assert store.observation_count("policy", "world") == acknowledged
        assert [o.observation_id for o in store.observations("policy", "world")] == [
            str(i + 1) for i in range(acknowledged)
        ]


def test_a_server_that_hangs_is_an_error_within_its_time(own_server, monkeypatch):
    monkeypatch.setattr(postgres, "SILENCE_SECONDS", 1)
    with closing(open_store(own_server.url(own_server.create_database()))) as store:
        store.append_observations([observation("a")])
        assert store.observation_count("policy", "world") == 1
        own_server.pause()
        try:
            for use in (
                lambda: store.append_observations([observation("b")]),
                lambda: store.observation_count("policy", "world"),
            ):
                with pytest.raises(StoreError, match="cannot be reached"):
                    use()
        finally:
            own_server.resume()
        # What was sent before the connection was cut may have been committed; the retry tells.
        (result,) = store.append_observations([observation("b")])
        assert (result.sequence, result.conflict) == (2, False)
        assert store.observation_count("policy", "world") == 2


def test_a_feed_that_lost_its_connection_says_that_it_missed_something(own_server):
    url = own_server.url(own_server.create_database())
    with closing(open_store(url)) as store:
        feed = store.follow()
        assert feed.next(0).missed
        own_server.stop()
        with pytest.raises(StoreError):
            feed.next(30)
        with pytest.raises(StoreError, match="cannot be reached"):
            feed.next(30)
        own_server.start()
        with closing(open_store(url)) as other:
            other.append_observations([observation("a")])
        assert feed.next(30) == Changes(frozenset(), missed=True)
        with closing(open_store(url)) as other:
            other.append_observations([observation("b")])
        assert feed.next(30) == Changes(frozenset({("policy", "world")}), missed=False)


def test_a_feed_notices_a_server_that_hangs(own_server, monkeypatch):
    monkeypatch.setattr(feed_module, "ANSWER_SECONDS", 1)
    with closing(open_store(own_server.url(own_server.create_database()))) as store:
        feed = store.follow()
        feed.next(0)
        own_server.pause()
        try:
            with pytest.raises(StoreError, match="cannot be reached"):
                feed.next(0.1)
        finally:
            own_server.resume()
        assert feed.next(30).missed


@pytest.mark.parametrize("payload", ["", "nonsense", "[]", "[1]", '["a"]', '"ab"', "{}", "null"])
def test_a_notification_that_cannot_be_read_means_any_world(payload):
    assert read_payloads(['["p", "w"]', payload]) == Changes(frozenset({("p", "w")}), missed=True)


def test_rows_that_are_exchanged_between_logs_of_a_world_are_damage(store, postgres_url, postgres_server):
    store.append_observations([observation("a")])
    store.append_decisions([decision("d")])
    store.reset_world("policy", "world", 1, "why", "who")
    store.append_observations([observation("b")])
    database = database_of(postgres_url)
    other = "(SELECT sum(id) FROM worlds) - world_id"
    postgres_server.execute("ALTER TABLE observations DROP CONSTRAINT pk_observations", database=database)
    for table in ("observations", "decisions"):
        postgres_server.execute(f"UPDATE {table} SET world_id = {other}", database=database)
    for generation, named in ((1, "policy 'policy' is"), (2, "policy 'policy' in generation 2 is")):
        with pytest.raises(StoreCorrupt, match=f"observation 1 of world 'world' of {named} damaged"):
            list(store.observations("policy", "world", generation=generation))
    with pytest.raises(StoreCorrupt, match="decision 'd' is damaged"):
        store.decision("d")
    postgres_server.execute("UPDATE observations SET reporter = 'other'", database=database)
    postgres_server.execute(f"UPDATE observations SET world_id = {other}", database=database)
    with pytest.raises(StoreCorrupt, match="is damaged"):
        list(store.observations("policy", "world"))
    postgres_server.execute("UPDATE resets SET caller = 'other'", database=database)
    with pytest.raises(StoreCorrupt, match="the reset of world 'world' of policy 'policy' is damaged"):
        store.resets("policy", "world")
