"""Lists of decisions, newest first, over real gRPC."""

from __future__ import annotations

import contextlib
import threading
import time

import grpc
import pytest
from security_files import CallersFile

from guardrail import InvalidInput, PermissionDenied
from guardrail.server import listing, recent
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.v1 import guardrail_pb2_grpc

LOW, HIGH = {"kind": "low"}, {"kind": "high"}


def ask(client, number, world="w", **context):
    """Ids of verdicts, in the order of time."""
    checked = client.check_many(policy="coin", world=world, context=context, actions=[LOW] * number)
    return [verdict.decision_id for verdict in checked.verdicts]


def ids(decisions):
    return [one.verdict.decision_id for one in decisions]


@pytest.fixture
def stub(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield guardrail_pb2_grpc.GuardrailServiceStub(channel)


def listed(stub, **request):
    """Ids of all pages, and the number of pages."""
    found, token, pages = [], "", 0
    while True:
        answer = stub.ListDecisions(pb.ListDecisionsRequest(page_token=token, **request), timeout=20)
        found += [one.verdict.decision_id for one in answer.decisions]
        token, pages = answer.next_page_token, pages + 1
        assert pages < 100
        if not token:
            return found, pages


def settle(service):
    """Wait until every decision is in the log."""
    until = time.monotonic() + 20
    while service.metric("guardrail_unwritten_decisions"):
        assert time.monotonic() < until


@pytest.fixture
def held(monkeypatch):
    """Decisions are not written until it is set."""
    from guardrail.server.writer import Writer

    release, write = threading.Event(), Writer._write_decisions

    def wait(self):
        assert release.wait(60)
        return write(self)

    monkeypatch.setattr(Writer, "_write_decisions", wait)
    yield release
    release.set()


def test_decisions_come_newest_first_with_what_was_asked(client):
    first = ask(client, 3, level=1.0)
    second = ask(client, 2, "v")
    found = list(client.decisions())
    assert ids(found) == [*second[::-1], *first[::-1]]
    assert found == [client.decision(one) for one in ids(found)]
    assert ids(client.decisions(world="w")) == first[::-1]
    assert ids(client.decisions("coin", "v")) == second[::-1]
    assert ids(client.decisions("coin", limit=4)) == ids(found)[:4]
    assert list(client.decisions("none")) == []
    with pytest.raises(ValueError, match="at least 1"):
        list(client.decisions(limit=0))


def test_those_that_wait_to_be_written_are_there_and_none_comes_twice(service, client, stub, held):
    """Whatever is written between two pages, or while one is read."""
    old = ask(client, 4)
    held.set()
    assert listed(stub)[0] == old[::-1]
    held.clear()
    new = ask(client, 6)
    everything = [*new[::-1], *old[::-1]]
    for size in (1, 2, 3, 6, 7, 100):
        assert listed(stub, page_size=size)[0] == everything
    assert listed(stub, world="other")[0] == []
    first = stub.ListDecisions(pb.ListDecisionsRequest(page_size=3), timeout=20)
    held.set()  # the one that the page ended with is in the log from now on
    settle(service)
    rest = stub.ListDecisions(pb.ListDecisionsRequest(page_token=first.next_page_token), timeout=20)
    assert [one.verdict.decision_id for one in (*first.decisions, *rest.decisions)] == everything


def test_what_is_written_while_a_page_is_read_comes_once(service, client, stub, held, monkeypatch):
    real = recent.RecentDecisions._begin

    def write_meanwhile(self, *arguments):
        held.set()
        while self._writer.unwritten_decisions:
            pass
        return real(self, *arguments)

    new = ask(client, 5)
    monkeypatch.setattr(recent.RecentDecisions, "_begin", write_meanwhile)
    assert listed(stub)[0] == new[::-1]


def test_a_page_ends_before_its_message_is_too_long(client, stub, monkeypatch):
    monkeypatch.setattr(listing, "PAGE_BYTES", 5_000)
    asked = ask(client, 12)
    found, pages = listed(stub)
    assert found == asked[::-1]
    assert pages > 1


def test_a_page_ends_when_what_was_read_is_long_enough(service, client, stub, monkeypatch):
    monkeypatch.setattr(recent, "PAGE_CHARACTERS", 1)
    monkeypatch.setattr(recent, "STEP", 2)
    asked = ask(client, 5)
    settle(service)
    found, pages = listed(stub)
    assert found == asked[::-1]
    assert pages >= 3


@pytest.mark.parametrize("token", ["made up", "-1", "1e3", "٣", str(2**63), "id:none", "9" * 30])
def test_a_token_of_somebody_elses_is_refused(stub, token):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListDecisions(pb.ListDecisionsRequest(page_token=token), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# ---------------------------------------------------------------- who may see what


@pytest.fixture
def callers(tmp_path):
    callers = CallersFile(tmp_path / "callers.yaml")
    callers.add("agent", "agent").add("viewer", "viewer").add("person", "approver").add("reporter", "reporter")
    callers.add("elsewhere", "{roles: [viewer], policies: [coin], worlds: ['v*']}")
    return callers.add("other", "{roles: [viewer], policies: [other], worlds: ['*']}")


@pytest.fixture
def secured(start_service, callers):
    return start_service(callers=callers.write())


@pytest.fixture
def as_caller(secured, callers):
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(secured.client(token=callers.keys[name]))


def test_a_token_tells_nothing_of_decisions_that_one_may_not_see(secured, as_caller, callers, held):
    hidden = ask(as_caller("agent"), 1)[0]
    own = ask(as_caller("agent"), 1, "v1")[0]
    key = (("authorization", f"Bearer {callers.keys['elsewhere']}"),)

    def answer(stub, decision_id):
        request = pb.ListDecisionsRequest(page_token=f"id:{decision_id}")
        try:
            return len(stub.ListDecisions(request, metadata=key, timeout=20).decisions)
        except grpc.RpcError as error:
            return error.code(), error.details()

    with grpc.insecure_channel(f"127.0.0.1:{secured.port}") as channel:
        stub = guardrail_pb2_grpc.GuardrailServiceStub(channel)
        for _ in range(2):
            assert answer(stub, hidden) == answer(stub, "none")
            assert answer(stub, hidden)[0] is grpc.StatusCode.INVALID_ARGUMENT
            assert answer(stub, own) == 0
            held.set()
            settle(secured)


def test_decisions_are_seen_by_whoever_may(secured, as_caller, monkeypatch):
    """Written or not, whatever the page size, and however many others there are."""
    agent = as_caller("agent")
    one = ask(agent, 3, "v1")
    ask(agent, 60)
    two = ask(agent, 2, "v2")
    for _ in range(2):
        for name in ("viewer", "person"):
            assert len(list(as_caller(name).decisions())) == 65
        assert ids(as_caller("elsewhere").decisions()) == [*two[::-1], *one[::-1]]
        assert ids(as_caller("elsewhere").decisions(world="w")) == []
        assert ids(as_caller("elsewhere").decisions(limit=3)) == [*two[::-1], one[-1]]
        assert list(as_caller("other").decisions()) == []
        settle(secured)
    monkeypatch.setattr(recent, "STEPS", 2)
    monkeypatch.setattr(recent, "STEP", 5)
    assert ids(as_caller("elsewhere").decisions()) == [*two[::-1], *one[::-1]]
    for name in ("agent", "reporter"):
        with pytest.raises(PermissionDenied):
            list(as_caller(name).decisions())
    with pytest.raises(InvalidInput):
        list(as_caller("viewer").decisions("x" * 64))
