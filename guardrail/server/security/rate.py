"""How often a caller may ask: token buckets."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from guardrail.errors import LimitExceeded

MAX_BUCKETS = 10_000
"""Most identities that are kept track of. The one that asked longest ago is forgotten first, and starts full again."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit.

    Attributes:
        per_second: requests a second that may go on for ever; positive.
        burst: requests that may come at once; at least 1.
    """

    per_second: float
    burst: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """A token bucket for each identity. Call it from one thread.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, identity: str, rate: Rate) -> None:
        """Count one request.

        :raises LimitExceeded: RATE_LIMITED if it is one too many; says in how many seconds the next one may come.
        """
        now = self._clock()
        bucket = self._buckets.get(identity)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[identity] = _Bucket(rate.burst, now)
        else:
            self._buckets.move_to_end(identity)
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_second)
        bucket.at = now
        if bucket.tokens < 1.0:
            wait = (1.0 - bucket.tokens) / rate.per_second
            message = f"{identity} may send {rate.per_second:g} requests a second; try again in {wait:.3g} s"
            raise LimitExceeded(message, "RATE_LIMITED", retry_after=wait)
        bucket.tokens -= 1.0
