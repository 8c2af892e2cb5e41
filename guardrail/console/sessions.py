"""Who is signed in. Credentials are kept here, in memory, and nowhere else."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guardrail.console.desk import Desk

IDLE_SECONDS: Final = 1_800.0
"""A session without an open page ends after so long."""
LIFE_SECONDS: Final = 43_200.0
"""Every session ends after so long."""
MAX_SESSIONS: Final = 64
"""Most sessions at once."""
MAX_EACH: Final = 8
"""Most sessions with one credential; one more ends the oldest."""

FAILURE_SECONDS: Final = 60.0
MAX_FAILURES: Final = 10
"""Most failed attempts to sign in from one address in FAILURE_SECONDS."""
MAX_FAILURES_ANYWHERE: Final = 100
"""Most of them from everywhere."""

SIGNED_OUT: Final = "SIGNED_OUT"
SESSION_EXPIRED: Final = "SESSION_EXPIRED"
SESSION_REPLACED: Final = "SESSION_REPLACED"
CONSOLE_CLOSED: Final = "CONSOLE_CLOSED"


class SessionsFull(Exception):
    """As many people as may be are signed in."""


@dataclass(eq=False, slots=True)
class Session:
    """One browser that signed in.

    Attributes:
        desk: asks the service with the credential of this session.
        opened_at: monotonic seconds.
        used_at: when a request or an open page last used it, monotonic seconds.
        pages: how many pages are open.
        ended: why it ended, a stable code; None while it lives.
    """

    desk: Desk
    key: bytes = field(repr=False)
    credential: bytes = field(repr=False)
    opened_at: float
    used_at: float
    pages: int = 0
    ended: str | None = None


class Sessions:
    """All sessions. Call it from the console's event loop only.

    Args:
        make_desk: makes a desk for a credential; None is asked for where callers are not told apart.
        clock: seconds, monotonic.
    """

    def __init__(self, make_desk: Callable[[str | None], Desk], clock: Callable[[], float] = time.monotonic) -> None:
        self._make_desk, self._clock = make_desk, clock
        self._sessions: dict[bytes, Session] = {}
        self._salt = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def open(self, token: str | None) -> tuple[str, Session]:
        """A new session, and the id that its browser is to send.

        :raises SessionsFull: if there are too many.
        """
        credential = self._digest(token or "")
        own = [one for one in self if one.credential == credential]
        if len(own) >= MAX_EACH:
            self.end(min(own, key=lambda one: one.opened_at), SESSION_REPLACED)
        if len(self._sessions) >= MAX_SESSIONS:
            raise SessionsFull(f"{MAX_SESSIONS} people are signed in already")
        name, now = secrets.token_urlsafe(32), self._clock()
        session = Session(self._make_desk(token), self._digest(name), credential, now, now)
        self._sessions[session.key] = session
        return name, session

    def find(self, name: str | None) -> Session | None:
        """The session that a browser means; None if there is none, or none any more."""
        if not name:
            return None
        session = self._sessions.get(self._digest(name))
        if session is None or self._expire(session):
            return None
        session.used_at = self._clock()
        return session

    def end(self, session: Session, why: str) -> None:
        """End a session: nothing is asked in its name any more."""
        if self._sessions.pop(session.key, None) is not None:
            session.ended = why
            session.desk.close()

    def sweep(self) -> None:
        """End what is over: by time, or because the service does not know the credential any more."""
        for session in self:
            if session.desk.refused is not None:
                self.end(session, session.desk.refused)
            else:
                self._expire(session)

    def close(self) -> None:
        """End all of them."""
        for session in self:
            self.end(session, CONSOLE_CLOSED)

    def _expire(self, session: Session) -> bool:
        now = self._clock()
        if session.pages:
            session.used_at = now
        if now - session.opened_at >= LIFE_SECONDS or now - session.used_at >= IDLE_SECONDS:
            self.end(session, SESSION_EXPIRED)
        return session.ended is not None

    def _digest(self, secret: str) -> bytes:
        # What is looked up is a hash, so that how long a look-up takes says nothing about the secret.
        return hashlib.sha256(self._salt + secret.encode()).digest()


class Attempts:
    """Failed attempts to sign in. The answer to one more than may be is no, without asking the service."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: deque[tuple[float, str]] = deque(maxlen=MAX_FAILURES_ANYWHERE)

    def allowed(self, address: str) -> bool:
        """True if somebody at this address may try."""
        now = self._clock()
        while self._failures and now - self._failures[0][0] >= FAILURE_SECONDS:
            self._failures.popleft()
        there = sum(where == address for _, where in self._failures)
        return there < MAX_FAILURES and len(self._failures) < MAX_FAILURES_ANYWHERE

    def failed(self, address: str) -> None:
        """An attempt failed."""
        self._failures.append((self._clock(), address))
