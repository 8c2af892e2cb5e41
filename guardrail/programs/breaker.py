"""Answering at once while a program keeps failing."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3
COOL_DOWN_SECONDS = 30.0


class Breaker:
    """Opens after some failures in a row; lets one try through after each cool-down.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._since = 0.0

    def waits(self) -> float:
        """Seconds until the next try; 0 if one may be made now."""
        if self._failures < FAILURES:
            return 0.0
        return max(0.0, self._since + COOL_DOWN_SECONDS - self._clock())

    def succeeded(self) -> None:
        """The last try went well."""
        self._failures = 0

    def failed(self) -> None:
        """The last try failed."""
        self._failures += 1
        self._since = self._clock()
