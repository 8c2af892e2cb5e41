"""A reset closes a world's log and starts the next one from the prior, once, and says so in what it promises."""

import asyncio
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import AsyncClient, Decision, Guarantee, GuaranteeKind, Guard, InvalidInput
from guardrail.domain import NO_GUARANTEE
from guardrail.errors import (
    GenerationMismatch,
    PolicyNotFound,
    ReportConflict,
    ServiceError,
    StoreError,
    WorldNotFound,
)
from guardrail.generations import in_generation
from guardrail.replay import replay
from guardrail.server import app
from guardrail.store import open_store

LOW, HIGH = {"kind": "low"}, {"kind": "high"}


def check(client, action=LOW, world="w"):
    return client.check(policy="coin", world=world, context={}, action=action)


def report(client, hurt, name=None, action=HIGH, world="w"):
    return client.report(
        policy="coin", world=world, context={}, action=action, outcome={"hurt": hurt}, observation_id=name
    )


def reset(client, generation=1, reason="the coin was replaced", world="w"):
    return client.reset_world("coin", world, generation=generation, reason=reason)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "guardrail.db")
    return request.getfixturevalue("postgres_url")


def refute(client, world="w"):
    """Outcomes that leave no coin: first only the mildest fits, then only the wildest."""
    for hurt in (False, True):
        for _ in range(40):
            report(client, hurt, world=world)
    assert client.world("coin", world).posterior.refuted


def test_a_refuted_world_starts_again_from_the_prior(start_service, store_url):
    service = start_service(store=store_url, snapshot_every=7)
    with service.client() as client:
        fresh = check(client, world="other")
        refute(client)
        refused = check(client)
        assert (refused.decision, refused.guarantee.kind) == (Decision.REJECT, GuaranteeKind.NONE)
        done = reset(client)
        assert (done.generation, done.closed_observations) == (2, 80)
        again = check(client)
        assert (again.harm_bound, again.posterior_revision) == (fresh.harm_bound, 0)
        assert again.guarantee.assumptions[:-1] == fresh.guarantee.assumptions
        assert "reset once" in again.guarantee.assumptions[-1]
        assert "add up" in again.guarantee.assumptions[-1]
        view = client.world("coin", "w")
        assert (view.generation, view.posterior.revision, view.posterior.refuted) == (2, 0, False)
        assert view.guarantee == again.guarantee
        assert [(w.world, w.observations, w.generation) for w in client.worlds("coin")] == [("w", 0, 2)]
        news = [report(client, False) for _ in range(2)]
        assert [(r.posterior_revision, r.generation) for r in news] == [(1, 2), (2, 2)]
        logged = [client.decision(v.decision_id) for v in (refused, again, check(client))]
        assert [(d.generation, d.verdict.posterior_revision) for d in logged] == [(1, 80), (2, 0), (2, 2)]
        assert "reset" not in " ".join(check(client, world="other").guarantee.assumptions)
        present = check(client)
    service.stop()
    with closing(open_store(store_url, read_only=True)) as store:
        replayed = list(replay(store))
        assert len(replayed) == 6
        assert [r.differences for r in replayed] == [()] * 6
        (record,) = store.resets("coin", "w")
        assert (record.generation, record.observations, record.reason) == (1, 80, "the coin was replaced")
    with start_service(store=store_url).client() as client:
        after = check(client)
        assert (after.harm_bound, after.posterior_revision, after.guarantee) == (
            present.harm_bound,
            2,
            present.guarantee,
        )
        assert reset(client, 2).closed_observations == 2
        assert "reset 2 times" in check(client).guarantee.assumptions[-1]


def test_a_reset_world_without_reports_is_still_there_after_a_restart(start_service, store_url):
    service = start_service(store=store_url)
    with service.client() as client:
        report(client, False)
        reset(client)
    service.stop()
    with start_service(store=store_url).client() as client:
        verdict = check(client)
        assert "reset once" in verdict.guarantee.assumptions[-1]
        assert client.decision(verdict.decision_id).generation == 2
        assert client.world("coin", "w").generation == 2
        assert (report(client, False).posterior_revision, check(client).posterior_revision) == (1, 1)


def test_a_repeated_reset_happens_once(client):
    report(client, False)
    first = reset(client)
    report(client, False)
    assert reset(client) == first
    for generation, reason in [(1, "another reason"), (3, "the coin was replaced")]:
        with pytest.raises(GenerationMismatch, match="is in generation 2"):
            reset(client, generation, reason)
    assert check(client).posterior_revision == 1


def test_there_must_be_a_world_to_reset(client):
    check(client)
    with pytest.raises(WorldNotFound):
        reset(client)
    with pytest.raises(PolicyNotFound):
        client.reset_world("none", "w", generation=1, reason="why")
    for generation in (0, -1, 2**63):
        with pytest.raises(ValueError, match="counts from 1"):
            reset(client, generation)


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\x00b"])
def test_a_reason_has_limits(client, reason):
    report(client, False)
    with pytest.raises(InvalidInput):
        reset(client, reason=reason)
    assert client.world("coin", "w").generation == 1


def test_an_observation_id_has_no_nul(client):
    with pytest.raises(InvalidInput, match="observation_id"):
        report(client, False, "a\x00b")


def test_what_was_reported_before_does_not_count_again(client):
    report(client, True, "a")
    report(client, False, "b")
    reset(client)
    for _ in range(2):
        late = report(client, False, "b")
        assert (late.posterior_revision, late.duplicate, late.generation) == (2, True, 1)
    with pytest.raises(ReportConflict):
        report(client, False, "a")
    assert check(client).posterior_revision == 0
    new = report(client, False, "c")
    assert (new.posterior_revision, new.duplicate, new.generation) == (1, False, 2)
    assert report(client, False, "b").duplicate
    assert check(client).posterior_revision == 1


def test_a_world_whose_log_does_not_fit_the_policy_can_be_reset(start_service, policy_folder):
    service = start_service()
    file = policy_folder / "coin" / "policy.yaml"
    with service.client() as client:
        report(client, False, action=HIGH)
        file.write_text(file.read_text().replace("high:", "large:"))
        client.reload_policies()
        with pytest.raises(ServiceError, match="WORLD_UNAVAILABLE"):
            client.world("coin", "w")
        assert reset(client).closed_observations == 1
        assert check(client).posterior_revision == 0
        assert report(client, False, action={"kind": "large"}).posterior_revision == 1
        client.reload_policies()
        assert (client.world("coin", "w").generation, check(client).posterior_revision) == (2, 1)


def test_reports_and_resets_at_once_leave_the_posterior_of_the_present_log(start_service, policy_folder, store_url):
    service = start_service(store=store_url)
    outcomes = {}
    with service.client() as client:
        report(client, False, "first")

        def keep_reporting(thread):
            for i in range(25):
                name = f"{thread}-{i}"
                outcomes[name] = (i + thread) % 3 == 0
                report(client, outcomes[name], name)

        threads = [threading.Thread(target=keep_reporting, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for generation in (1, 2, 3):
            reset(client, generation)
        for thread in threads:
            thread.join()
        verdict = check(client)
        with closing(open_store(store_url, read_only=True)) as store:
            present = list(store.observations("coin", "w"))
            assert sum(store.observation_count("coin", "w", g) for g in (1, 2, 3, 4)) == 76
        guard = Guard.from_file(policy_folder / "coin" / "policy.yaml")
        for record in present:
            guard.observe({}, HIGH, {"hurt": outcomes[record.observation_id]})
        assert verdict.posterior_revision == len(present)
        assert verdict.harm_bound == guard.check({}, LOW).harm_bound


def test_a_reset_whose_answer_is_lost_is_found_out(start_service, monkeypatch):
    real = app.open_store
    lose = threading.Event()

    class Losing:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        def reset_world(self, *arguments):
            record = self._store.reset_world(*arguments)
            if lose.is_set():
                raise StoreError("the connection was lost")
            return record

    monkeypatch.setattr(app, "open_store", lambda *a, **k: Losing(real(*a, **k)))
    with start_service().client() as client:
        for _ in range(3):
            report(client, False)
        lose.set()
        with pytest.raises(ServiceError):
            client.reset_world("coin", "w", generation=1, reason="the coin was replaced", timeout=1.0)
        until(lambda: check(client).posterior_revision == 0)
        lose.clear()
        assert reset(client).closed_observations == 3


def test_replicas_take_up_a_reset(start_service, postgres_url):
    one, other = start_service(store=postgres_url), start_service(store=postgres_url)
    with one.client() as here, other.client() as there:
        for _ in range(3):
            report(here, True)
        until(lambda: check(there).posterior_revision == 3)
        reset(here)
        until(lambda: there.world("coin", "w").generation == 2)
        verdict = check(there)
        assert verdict.posterior_revision == 0
        assert "reset once" in verdict.guarantee.assumptions[-1]
        report(there, False)
        until(lambda: check(here).posterior_revision == 1)
        with pytest.raises(GenerationMismatch):
            reset(there, reason="other")
        assert reset(there, 2).closed_observations == 1


def test_a_late_commit_into_a_closed_log_is_not_taken_up(start_service, monkeypatch):
    """Another replica may reset the world between the commit of a report here and its news."""
    registries = []
    real = app.Registry
    monkeypatch.setattr(app, "Registry", lambda *a, **k: registries.append(real(*a, **k)) or registries[-1])
    service = start_service()
    with service.client() as client:
        report(client, True)
        reset(client)

        async def commit():
            (registry,) = registries
            world = registry.policy("coin").worlds["w"]
            row, outcome = world.judge.encode_observation({}, HIGH, True)
            return world.commit(row, outcome, 1, 1, "late"), world.committed, world.generation

        assert asyncio.run_coroutine_threadsafe(commit(), service.loop).result(20) == (False, 0, 2)


def test_the_asyncio_client_resets(service):
    async def use():
        async with AsyncClient(f"127.0.0.1:{service.port}", timeout=20) as client:
            await client.report(policy="coin", world="w", context={}, action=HIGH, outcome=False)
            return await client.reset_world("coin", "w", generation=1, reason="why")

    done = asyncio.run(use())
    assert (done.generation, done.closed_observations) == (2, 1)


@given(st.integers(1, 10**6))
@settings(derandomize=True)
def test_a_reset_adds_an_assumption_and_changes_nothing_else(generation):
    promise = Guarantee(GuaranteeKind.THEOREM, 0.95, ("independent outcomes",), "a paper")
    said = in_generation(promise, generation)
    assert (said.kind, said.confidence, said.source) == (promise.kind, promise.confidence, promise.source)
    if generation == 1:
        assert said is promise
    else:
        *before, last = said.assumptions
        assert tuple(before) == promise.assumptions
        assert f"generation {generation} " in last
        assert in_generation(promise, generation) is said
    assert in_generation(NO_GUARANTEE, generation) is NO_GUARANTEE
