"""Who is signed in, for how long, and how often somebody may try."""

import pytest
from security_files import Clock

from guardrail.console.sessions import (
    FAILURE_SECONDS,
    IDLE_SECONDS,
    LIFE_SECONDS,
    MAX_EACH,
    MAX_FAILURES,
    MAX_FAILURES_ANYWHERE,
    MAX_SESSIONS,
    Attempts,
    Sessions,
    SessionsFull,
)


class Desk:
    def __init__(self, token):
        self.token, self.refused, self.closed = token, None, False

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions(Desk, clock)


def test_only_the_name_that_was_given_out_finds_a_session(sessions):
    name, session = sessions.open("key")
    assert sessions.find(name) is session
    for other in (None, "", name[:-1], f"{name}x", name.upper()):
        assert sessions.find(other) is None


def test_the_credential_is_in_no_text(sessions):
    name, session = sessions.open("grk_secret")
    assert "grk_secret" not in repr(session)
    assert name not in repr(session)


def test_a_session_that_nobody_uses_ends_and_an_open_page_is_use(sessions, clock):
    name, session = sessions.open("key")
    clock.now += IDLE_SECONDS - 1
    assert sessions.find(name) is session
    session.pages = 1
    clock.now += IDLE_SECONDS + 1
    sessions.sweep()
    assert session.ended is None
    session.pages = 0
    clock.now += IDLE_SECONDS
    assert sessions.find(name) is None
    assert (session.ended, session.desk.closed) == ("SESSION_EXPIRED", True)


def test_every_session_ends_at_last(sessions, clock):
    _, session = sessions.open("key")
    session.pages = 1
    for _ in range(int(LIFE_SECONDS / 600)):
        assert session.ended is None
        clock.now += 600
        sessions.sweep()
    assert session.ended == "SESSION_EXPIRED"


def test_a_credential_that_the_service_refuses_ends_its_sessions(sessions):
    name, session = sessions.open("key")
    session.desk.refused = "CREDENTIALS_EXPIRED"
    sessions.sweep()
    assert session.ended == "CREDENTIALS_EXPIRED"
    assert sessions.find(name) is None


def test_one_credential_does_not_take_all_places(sessions, clock):
    opened = []
    for _ in range(MAX_EACH + 1):
        opened.append(sessions.open("same")[1])
        clock.now += 1
    assert [session.ended for session in opened] == ["SESSION_REPLACED", *([None] * MAX_EACH)]


def test_there_is_an_end_to_how_many_there_are(sessions):
    for place in range(MAX_SESSIONS):
        sessions.open(f"key {place}")
    with pytest.raises(SessionsFull):
        sessions.open("one more")
    sessions.close()
    assert len(sessions) == 0
    sessions.open("one more")


def test_failures_are_limited_by_address_and_forgotten(clock):
    attempts = Attempts(clock)
    for _ in range(MAX_FAILURES):
        assert attempts.allowed("here")
        attempts.failed("here")
    assert not attempts.allowed("here")
    assert attempts.allowed("there")
    clock.now += FAILURE_SECONDS
    assert attempts.allowed("here")


def test_failures_are_limited_from_everywhere(clock):
    attempts = Attempts(clock)
    for place in range(MAX_FAILURES_ANYWHERE):
        attempts.failed(f"address {place}")
    assert not attempts.allowed("yet another")
