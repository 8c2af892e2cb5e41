"""Which checks are taken on under load: better a quick refusal than an answer that comes too late.

Two bounds. At the door: so many checks at once, for the whole service; one more is refused before its request is
parsed. And when a check's turn at its kernel comes: how long it may have waited, by controlled delay (Nichols and
Jacobson, "Controlling queue delay", 2012, as applied to servers by Maurer, "Fail at scale", 2015). A queue that a burst
filled empties again, and its checks may wait for `patience`. A queue that stands is overload: when even the shortest
wait of an interval as long as `patience` took more than a fifth of it, a fifth is all that is allowed, so that what is
answered comes soon.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from guardrail.errors import LimitExceeded

if TYPE_CHECKING:
    from types import TracebackType

OVERLOADED: Final = "OVERLOADED"
FORGET: Final = 0.8
"""What a kernel call leaves of the longest one before it: the present longest is that of the last few."""
STANDING_SHARE: Final = 0.2
"""Of `patience`, what a wait may take while a queue stands."""
RETRY_SECONDS: Final = (0.05, 5.0)
"""Least and most that a refused caller is told to wait."""


def overloaded(message: str, seconds: float) -> LimitExceeded:
    """The refusal; `seconds` is how long things seem to take now."""
    least, most = RETRY_SECONDS
    return LimitExceeded(message, OVERLOADED, retry_after=min(max(seconds, least), most))


class Door:
    """Counts the checks that are under way; a context manager for one of them. Call it from the event loop only.

    :raises LimitExceeded: OVERLOADED, on entering, if there are `limit` of them already.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    @property
    def inside(self) -> int:
        """Number of checks under way."""
        return self._inside

    def __enter__(self) -> None:
        if self._inside >= self._limit:
            raise overloaded(f"{self._inside} checks are under way already", 0.0)
        self._inside += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._inside -= 1


class ControlledDelay:
    """Says of each check whose turn has come whether it waited too long. For one kernel thread, on that thread.

    Args:
        patience: seconds that a check may wait at most. Twice the longest of the last kernel calls may always be
            waited for: the one under way and the one before one's own. One slow call is no queue.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._interval_ends = 0.0
        self._shortest = 0.0
        self._standing = False
        self._call_seconds = 0.0

    def called(self, seconds: float) -> None:
        """Take note of how long a kernel call took."""
        self._call_seconds = max(seconds, FORGET * self._call_seconds)

    def refusal(self, waited: float, now: float | None = None) -> LimitExceeded | None:
        """Why a check that waited so many seconds is refused; None if it is not.

        Args:
            waited: seconds.
            now: of `time.monotonic()`.
        """
        now = time.monotonic() if now is None else now
        if now >= self._interval_ends:
            # After a pause nothing stands, whatever was before it.
            unbroken = now < self._interval_ends + self._patience
            self._standing = unbroken and self._shortest > self._allowed(STANDING_SHARE)
            self._interval_ends, self._shortest = now + self._patience, waited
        elif waited < self._shortest:
            self._shortest = waited
        if waited <= self._allowed(STANDING_SHARE if self._standing else 1.0):
            return None
        return overloaded(f"the check waited {waited:.3f} s for its turn: too many arrive", waited)

    def _allowed(self, share: float) -> float:
        return max(share * self._patience, 2.0 * self._call_seconds)
