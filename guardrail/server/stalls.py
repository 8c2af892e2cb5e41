"""Since when a thread has been busy with one piece of work: one that never ends is a fault that nothing else shows."""

from __future__ import annotations

import time


class Busy:
    """Marks one piece of work of one thread. Any thread may ask; only the working one marks."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def seconds(self) -> float:
        """How long the present piece of work has taken; 0 between two."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since
