"""Faults injected into the store and at the start: nothing lost, nothing accepted without a record."""

from __future__ import annotations

import threading
import time

import pytest

import guardrail
from guardrail import NoVerdict
from guardrail.errors import LimitExceeded, PolicyError, ServiceError, StoreError
from guardrail.server import app

LOW = {"kind": "low"}


class FaultyStore:
    """A real store whose chosen methods fail while their switch is on."""

    def __init__(self, store):
        self._store = store
        self.failing = set()
        self.hold = None

    def __getattr__(self, name):
        real = getattr(self._store, name)

        def call(*arguments, **options):
            if name in self.failing:
                raise StoreError("no space left on device")
            if self.hold is not None and name == "append_decisions":
                assert self.hold.wait(60)
            return real(*arguments, **options)

        return call if callable(real) else real


@pytest.fixture
def store(monkeypatch):
    """The faulty store of the service that starts next."""
    holder = []
    real = app.open_store
    monkeypatch.setattr(app, "open_store", lambda *a, **k: holder.append(FaultyStore(real(*a, **k))) or holder[-1])
    return holder


def check(client):
    return client.check(policy="coin", world="w", context={}, action=LOW)


def report(client, name):
    return client.report(policy="coin", world="w", context={}, action=LOW, outcome=False, observation_id=name)


def test_checks_stop_while_decisions_cannot_be_logged_and_go_on_afterwards(start_service, store):
    service = start_service()
    with service.client() as client:
        store[0].failing.add("append_decisions")
        first = check(client)  # answered before the log was found broken; it stays in the buffer
        with pytest.raises(NoVerdict) as caught:
            for _ in range(10_000):
                check(client)
        assert caught.value.reason == "DECISION_LOG_UNAVAILABLE"
        assert client.decision(first.decision_id).verdict == first
        store[0].failing.clear()
        for _ in range(10_000):
            try:
                last = check(client)
                break
            except NoVerdict:
                continue
    service.stop()
    with start_service().client() as client:
        assert client.decision(first.decision_id).verdict == first
        assert client.decision(last.decision_id).verdict == last


def test_checks_stop_when_too_many_decisions_wait(start_service, store):
    service = start_service(max_unwritten_decisions=5)
    store[0].hold = threading.Event()
    with service.client() as client:
        answered = []
        with pytest.raises(NoVerdict) as caught:
            for _ in range(20):
                answered.append(check(client))
        assert caught.value.reason == "DECISION_LOG_UNAVAILABLE"
        assert len(answered) == 5
        store[0].hold.set()
        for verdict in answered:
            assert client.decision(verdict.decision_id).verdict == verdict


def test_checks_stop_when_decisions_about_too_much_wait(start_service, store):
    """What is asked may be of any content: a rejected request of a mebibyte is kept whole until it is written."""
    service = start_service(max_unwritten_bytes=2_000_000)
    store[0].hold = threading.Event()
    large = {"kind": "low", "unknown": "x" * 500_000}
    with service.client() as client:
        answered = []
        with pytest.raises(NoVerdict) as caught:
            for _ in range(20):
                answered.append(client.check(policy="coin", world="w", context={}, action=large))
        assert caught.value.reason == "DECISION_LOG_UNAVAILABLE"
        assert len(answered) == 4
        store[0].hold.set()
        deadline = time.monotonic() + 20
        while service.metric("guardrail_unwritten_decisions"):
            assert time.monotonic() < deadline
        assert check(client).decision_id


def test_one_request_does_not_fill_the_log(start_service):
    """The log keeps the context beside every action: a mebibyte a thousand times."""
    service = start_service()
    with service.client() as client:

        def ask(size, count):
            return client.check_many(
                policy="coin", world="w", context={"unknown": "x" * size}, actions=[LOW] * count
            ).verdicts

        with pytest.raises(NoVerdict) as caught:
            ask(900_000, 1_000)
        assert caught.value.reason == "INPUT_TOO_LARGE"
        assert len(ask(15_000, 1_000)) == 1_000
        assert len(ask(900_000, 15)) == 15


def test_decisions_about_much_are_written_a_few_at_a_time(start_service, store, monkeypatch):
    service = start_service()
    append, sizes = store[0]._store.append_decisions, []
    monkeypatch.setattr(store[0]._store, "append_decisions", lambda batch: sizes.append(len(batch)) or append(batch))
    store[0].hold = threading.Event()
    with service.client() as client:
        for _ in range(3):
            client.check_many(policy="coin", world="w", context={"unknown": "x" * 900_000}, actions=[LOW] * 10)
        store[0].hold.set()
    service.stop()
    assert sum(sizes) == 30
    assert max(sizes) <= 9


def test_a_report_that_cannot_be_committed_is_not_acknowledged_and_does_not_count(start_service, store):
    service = start_service()
    with service.client() as client:
        report(client, "a")
        store[0].failing.add("append_observations")
        with pytest.raises(ServiceError) as caught:
            report(client, "b")
        assert caught.value.reason == "STORE_UNAVAILABLE"
        assert check(client).posterior_revision == 1
        store[0].failing.clear()
        assert report(client, "b").posterior_revision == 2
        assert check(client).posterior_revision == 2


def test_a_report_that_failed_after_its_commit_is_taken_up_before_it_is_reported_again(
    start_service, store, monkeypatch
):
    """The log holds it, whatever its reporter was told: a posterior without it is not the present one."""
    service = start_service()
    append = store[0]._store.append_observations

    def fail_afterwards(batch):
        append(batch)
        raise StoreError("the disk does not answer")

    with service.client() as client:
        report(client, "a")
        monkeypatch.setattr(store[0]._store, "append_observations", fail_afterwards)
        with pytest.raises(ServiceError):
            report(client, "b")
        monkeypatch.undo()
        deadline = time.monotonic() + 20
        while check(client).posterior_revision < 2:
            assert time.monotonic() < deadline
        assert report(client, "b").duplicate


def test_a_store_that_fails_does_not_hold_up_the_end_for_each_world(start_service, store, monkeypatch):
    """A database that hangs takes its time to be given up, for every attempt."""
    service = start_service()
    asked = []

    def fail(snapshot):
        asked.append(snapshot.world)
        raise StoreError("the database does not answer")

    monkeypatch.setattr(store[0]._store, "save_snapshot", fail)
    with service.client() as client:
        for number in range(5):
            client.report(policy="coin", world=f"w{number}", context={}, action=LOW, outcome=False)
    service.stop()
    assert asked == ["w0"]


def test_snapshots_that_cannot_be_saved_cost_only_time(start_service, store):
    service = start_service(snapshot_every=2)
    store[0].failing.add("save_snapshot")
    with service.client() as client:
        for number in range(7):
            report(client, str(number))
        before = check(client)
    service.stop()
    with start_service().client() as client:
        assert check(client).harm_bound == before.harm_bound


def test_a_policy_that_does_not_compile_stops_the_start_and_names_everything(start_service, policy_folder):
    path = policy_folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace("delta: 0.05", "delta: 5").replace("has(action.size)", "has(action.siez)"))
    with pytest.raises(PolicyError) as caught:
        start_service()
    assert len(caught.value.problems) >= 2


def test_a_folder_without_policies_stops_the_start(start_service, policy_folder):
    (policy_folder / "coin" / "policy.yaml").unlink()
    with pytest.raises(PolicyError, match=r"no policy\.yaml"):
        start_service()


@pytest.mark.parametrize("damage", [b"this is not a database" * 400, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_database_stops_the_start(start_service, tmp_path, damage):
    (tmp_path / "guardrail.db").write_bytes(damage)
    with pytest.raises(StoreError):
        start_service()


def test_a_second_service_on_the_same_store_is_refused(start_service):
    start_service()
    with pytest.raises(StoreError):
        start_service()


def test_a_log_that_does_not_fit_the_new_policy_makes_its_world_unavailable(start_service, policy_folder):
    service = start_service()
    with service.client() as client:
        report(client, "a")
        path = policy_folder / "coin" / "policy.yaml"
        path.write_text(path.read_text().replace("low:", "slow:"))
        client.reload_policies()
        with pytest.raises(NoVerdict) as caught:
            client.check(policy="coin", world="w", context={}, action={"kind": "slow"})
        assert caught.value.reason == "WORLD_UNAVAILABLE"
        assert "observation 1" in str(caught.value)
        client.check(policy="coin", world="other", context={}, action={"kind": "slow"})


def test_a_damaged_snapshot_is_rebuilt_from_the_log(start_service, tmp_path):
    import sqlite3

    service = start_service(snapshot_every=3)
    with service.client() as client:
        for number in range(9):
            report(client, str(number))
        before = check(client)
    service.stop()
    with sqlite3.connect(tmp_path / "guardrail.db") as database:
        assert database.execute("select count(*) from snapshots").fetchone()[0] > 0
        database.execute("update snapshots set payload = zeroblob(100)")
    database.close()
    with start_service().client() as client:
        after = check(client)
        assert (after.harm_bound, after.predictive_harm) == (before.harm_bound, before.predictive_harm)


def test_until_policies_are_loaded_health_says_so_and_nothing_is_decided(start_service, monkeypatch):
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from guardrail.server.registry import Registry

    seen = {}
    real = Registry.load
    ports = []
    listen = app._listen

    async def remember(*arguments):
        server, port = await listen(*arguments)
        ports.append(port)
        return server, port

    async def load(registry):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            seen["health"] = answer.status
        async with guardrail.AsyncClient(f"127.0.0.1:{ports[0]}", timeout=2.0) as client:
            try:
                await client.check(policy="coin", world="w", context={}, action=LOW)
            except NoVerdict as error:
                seen["reason"] = error.reason
        return await real(registry)

    monkeypatch.setattr(app, "_listen", remember)
    monkeypatch.setattr(Registry, "load", load)
    service = start_service()
    assert seen == {"health": health_pb2.HealthCheckResponse.NOT_SERVING, "reason": "NOT_SERVING"}
    with service.client() as client:
        check(client)


def report_until_rebuilt(client, name):
    for _ in range(10_000):
        try:
            return report(client, name)
        except ServiceError as error:
            if error.reason != "WORLD_UNAVAILABLE":
                raise
    raise AssertionError("the world was never rebuilt")


def test_a_commit_whose_confirmation_is_lost_is_not_acknowledged_until_checks_rest_on_it(start_service, store):
    service = start_service()
    real = store[0]._store.append_observations

    def commit_then_fail(batch):
        real(batch)
        raise StoreError("the answer was lost")

    with service.client() as client:
        report(client, "a")
        store[0]._store.append_observations = commit_then_fail
        with pytest.raises(ServiceError):
            report(client, "b")
        store[0]._store.append_observations = real
        for name in ("b", "c"):  # each may find the world behind its log once; it is then rebuilt
            answer = report_until_rebuilt(client, name)
            assert check(client).posterior_revision >= answer.posterior_revision
        assert check(client).posterior_revision == 3


def test_an_interrupted_or_failed_reload_lets_reports_go_on(start_service, store, policy_folder):
    service = start_service()
    path = policy_folder / "coin" / "policy.yaml"
    text = path.read_text()
    with service.client() as client:
        report(client, "a")
        before = client.policy("coin").revision
        store[0].failing.add("record_policy")
        path.write_text(text.replace("delta: 0.05", "delta: 0.04"))
        with pytest.raises(ServiceError):
            client.reload_policies()
        assert client.policy("coin").revision == before
        assert report(client, "b").posterior_revision == 2
        store[0].failing.clear()
        hold = threading.Event()
        real = store[0]._store.observations

        def slow(*arguments, **options):
            assert hold.wait(60)
            return real(*arguments, **options)

        store[0]._store.observations = slow
        with pytest.raises(ServiceError) as caught:
            client.reload_policies(timeout=0.2)
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        hold.set()
        assert report(client, "c").posterior_revision == 3
        client.reload_policies()
        assert check(client).guarantee.confidence == pytest.approx(0.96)
        assert check(client).posterior_revision == 3


def test_reports_that_fail_leave_no_world_behind(start_service, store):
    service = start_service(max_worlds=1)
    store[0].failing.add("append_observations")
    with service.client() as client:
        for world in ("w1", "w2", "w3"):
            with pytest.raises(ServiceError) as caught:
                client.report(policy="coin", world=world, context={}, action=LOW, outcome=False)
            assert caught.value.reason == "STORE_UNAVAILABLE"
        store[0].failing.clear()
        client.report(policy="coin", world="w4", context={}, action=LOW, outcome=False)
        with pytest.raises(LimitExceeded) as caught:
            client.report(policy="coin", world="w5", context={}, action=LOW, outcome=False)
        assert caught.value.reason == "LIMIT_EXCEEDED"


def test_priors_that_sum_to_one_within_rounding_load_and_a_class_that_cannot_be_built_is_a_policy_error(
    start_service, policy_folder, monkeypatch
):
    path = policy_folder / "coin" / "policy.yaml"
    path.write_text(path.read_text().replace("prior: 0.5", "prior: 0.5000005"))
    with start_service().client() as client:
        check(client)
        from guardrail.server import registry

        def refuse(policy, device):
            raise ValueError("the class cannot be built")

        monkeypatch.setattr(registry, "Judge", refuse)
        path.write_text(path.read_text().replace("delta: 0.05", "delta: 0.04"))
        with pytest.raises(ServiceError) as caught:
            client.reload_policies()
        assert caught.value.reason == "POLICY_INVALID"
        check(client)
