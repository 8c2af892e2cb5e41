"""Decisions as they are made, kept for pages to look at: bounded, and filled by a thread that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guardrail.errors import GuardrailError, LimitExceeded, PermissionDenied, ServiceError

if TYPE_CHECKING:
    from guardrail.client.results import LoggedDecision
    from guardrail.client.sync import Client
    from guardrail.client.watching import Watch

KEPT: Final = 500
"""Most decisions that are kept."""
MAX_PER_SECOND: Final = 200
"""Most decisions that are read in a second: looking on must not cost the service what it needs to decide. It cuts off
whoever reads too slowly; the newest decisions are then fetched anew, and those between are missing here."""
RETRY_SECONDS: Final = 0.5
"""Pause before a stream that broke is opened again."""
REFUSED_SECONDS: Final = 5.0
"""Pause if the service does not let this caller watch."""


@dataclass(frozen=True, slots=True)
class Link:
    """Whether decisions arrive.

    Attributes:
        connected: True if they do.
        since: since when that is so, seconds since the epoch, UTC.
        reason: a stable code, why not; empty if they do.
        why: the same in words.
        gaps: how often there were more decisions than can be followed one by one.
    """

    connected: bool
    since: float
    reason: str = ""
    why: str = ""
    gaps: int = 0


class Feed:
    """Listens while somebody looks.

    Args:
        client: asks with one person's credential.
        heard: told of every error.
    """

    def __init__(self, client: Client, heard: Callable[[GuardrailError], None]) -> None:
        self._client, self._heard = client, heard
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, LoggedDecision] = OrderedDict()
        self._version = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._stream: Watch | None = None
        self._gaps = 0
        self.link = Link(connected=False, since=time.time(), reason="CONNECTING", why="the stream is being opened")

    @property
    def version(self) -> int:
        """Another number whenever there is something new."""
        return self._version

    def newest(self) -> list[LoggedDecision]:
        """What is kept, newest first."""
        with self._lock:
            return sorted(self._kept.values(), key=lambda one: one.decided_at, reverse=True)

    def about(self, policy: str, world: str, before: Iterable[LoggedDecision] = ()) -> list[LoggedDecision]:
        """What is kept about one world, newest first, and what was known of it before."""
        kept = {one.verdict.decision_id: one for one in before}
        with self._lock:
            kept |= {
                name: one
                for name, one in self._kept.items()
                if (one.verdict.policy, one.verdict.world) == (policy, world)
            }
        return sorted(kept.values(), key=lambda one: one.decided_at, reverse=True)

    def start(self) -> None:
        """Listen from now on; does nothing if it does already."""
        if self._thread is None and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._listen, name="guardrail-console-feed", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it for good, and forget what was heard. Returns at once."""
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        with self._lock:
            self._kept.clear()
            self._version += 1

    def _listen(self) -> None:
        while not self._stopped.is_set():
            pause = RETRY_SECONDS
            try:
                self._follow()
                raise ServiceError("the stream ended", "UNREACHABLE", "UNAVAILABLE")
            except GuardrailError as error:
                if self._stopped.is_set():
                    return
                self._heard(error)
                if isinstance(error, LimitExceeded) and self.link.connected:
                    self._gaps += 1
                else:
                    self._break(error.reason, str(error))
                if isinstance(error, PermissionDenied):
                    pause = REFUSED_SECONDS
            except ValueError:  # the channel was closed
                return
            self._stopped.wait(pause)

    def _follow(self) -> None:
        with self._client.watch() as stream:
            self._stream = stream
            if self._stopped.is_set():
                return
            if stream.begin():
                # First the stream, then what was before it: nothing falls between the two.
                self._take(reversed(list(self._client.decisions(limit=KEPT))))
                since = self.link.since if self.link.connected else time.time()
                self.link = Link(connected=True, since=since, gaps=self._gaps)
                self._version += 1
            second, read = time.monotonic(), 0
            for one in stream:
                self._take((one,))
                read += 1
                left = second + 1.0 - time.monotonic()
                if left <= 0 or read >= MAX_PER_SECOND:
                    self._stopped.wait(max(left, 0.0))
                    second, read = time.monotonic(), 0

    def _take(self, decisions: Iterable[LoggedDecision]) -> None:
        for one in decisions:
            with self._lock:
                if self._stopped.is_set():
                    return
                self._kept[one.verdict.decision_id] = one
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                self._version += 1

    def _break(self, reason: str, why: str) -> None:
        since = time.time() if self.link.connected or self.link.reason == "CONNECTING" else self.link.since
        self.link = Link(connected=False, since=since, reason=reason, why=why, gaps=self._gaps)
        self._version += 1
