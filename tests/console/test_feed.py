"""The feed: bounded, without gaps at its start, honest about what it misses."""

from __future__ import annotations

import queue
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from console_stage import wait_for

from guardrail.console import feed as module
from guardrail.console.feed import KEPT, Feed
from guardrail.errors import LimitExceeded, PermissionDenied, ServiceError, Unauthenticated

START = datetime(2026, 1, 1, tzinfo=UTC)


def decision(place):
    verdict = SimpleNamespace(decision_id=f"id-{place}", policy="p", world="w")
    return SimpleNamespace(verdict=verdict, decided_at=START + timedelta(seconds=place))


class Stream:
    def __init__(self):
        self.items = queue.Queue()

    def __enter__(self):
        return self

    def __exit__(self, *more):
        self.close()

    def begin(self):
        return True

    def close(self):
        self.items.put(None)

    def __iter__(self):
        while (item := self.items.get(timeout=60)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class Client:
    """A service: `past` is its log, `streams` what was opened."""

    def __init__(self, past=()):
        self.past, self.streams, self.refuses = list(past), [], None

    def watch(self):
        if self.refuses is not None:
            raise self.refuses
        self.streams.append(Stream())
        return self.streams[-1]

    def decisions(self, limit):
        return iter(sorted(self.past, key=lambda one: one.decided_at, reverse=True)[:limit])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.01)


@pytest.fixture
def start():
    started = []

    def make(client, heard=lambda error: None):
        feed = Feed(client, heard)
        feed.start()
        started.append(feed)
        return feed

    yield make
    for feed in started:
        feed.stop()


def ids(feed):
    return [one.verdict.decision_id for one in feed.newest()]


def test_what_was_before_and_what_comes_newest_first(start):
    client = Client(map(decision, range(3)))
    feed = start(client)
    wait_for(lambda: feed.link.connected)
    before = feed.version
    client.streams[0].items.put(decision(3))
    client.streams[0].items.put(decision(2))  # in both
    wait_for(lambda: feed.version >= before + 2)
    assert ids(feed) == ["id-3", "id-2", "id-1", "id-0"]
    assert [one.verdict.decision_id for one in feed.about("p", "w", [decision(-1)])][-1] == "id--1"
    assert feed.about("p", "other") == []


def test_it_keeps_so_many_and_no_more(start):
    client = Client(map(decision, range(KEPT)))
    feed = start(client)
    wait_for(lambda: feed.link.connected)
    for place in range(KEPT, KEPT + 10):
        client.streams[0].items.put(decision(place))
    wait_for(lambda: ids(feed)[:1] == [f"id-{KEPT + 9}"])
    assert len(ids(feed)) == KEPT
    assert ids(feed)[-1] == "id-10"


def test_a_stream_that_broke_is_opened_again_and_nothing_is_missing(start):
    client = Client()
    heard = []
    feed = start(client, heard.append)
    wait_for(lambda: feed.link.connected)
    client.past.append(decision(1))
    client.refuses = ServiceError("gone", "UNREACHABLE", "UNAVAILABLE")
    client.streams[0].items.put(client.refuses)
    wait_for(lambda: not feed.link.connected)
    assert feed.link.reason == "UNREACHABLE"
    client.refuses = None
    wait_for(lambda: feed.link.connected)
    assert ids(feed) == ["id-1"]
    assert heard


def test_falling_behind_is_a_gap_and_no_fault(start):
    client = Client()
    feed = start(client)
    wait_for(lambda: feed.link.connected)
    client.streams[0].items.put(LimitExceeded("this watcher fell behind"))
    wait_for(lambda: feed.link.gaps == 1)
    assert feed.link.connected


def test_more_than_can_be_followed_are_not_read_at_once(start, monkeypatch):
    monkeypatch.setattr(module, "MAX_PER_SECOND", 5)
    client = Client()
    feed = start(client)
    waits = []
    wait_for(lambda: feed.link.connected)
    monkeypatch.setattr(feed._stopped, "wait", waits.append)
    for place in range(11):
        client.streams[0].items.put(decision(place))
    wait_for(lambda: len(ids(feed)) == 11)
    assert len(waits) == 2
    assert all(0 < seconds <= 1.0 for seconds in waits)


@pytest.mark.parametrize("error", [Unauthenticated("who?"), PermissionDenied("no")])
def test_a_refusal_is_told(start, error):
    client = Client()
    client.refuses = error
    heard = []
    feed = start(client, heard.append)
    wait_for(lambda: heard)
    wait_for(lambda: feed.link.reason == error.reason)
    assert heard[0] is error


def test_once_stopped_it_knows_nothing(start):
    client = Client(map(decision, range(3)))
    feed = start(client)
    wait_for(lambda: feed.link.connected)
    feed.stop()
    assert ids(feed) == []
    feed.start()
    wait_for(lambda: not feed._thread.is_alive())
    assert ids(feed) == []
