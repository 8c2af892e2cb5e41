"""What every verdict tells of the state in which it was decided; notices change no decision."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from guardrail.domain import Reason, ReasonCode

MAX_WHY: Final = 300
"""Longest cause, in characters, that a notice repeats."""


class Notices:
    """The notices of the moment. Call it from the event loop; `stale_since` may be read on any thread."""

    def __init__(self) -> None:
        self._stale_since: float | None = None
        self._present: tuple[Reason, ...] = ()

    @property
    def stale_since(self) -> float | None:
        """When (seconds since the epoch) a reload first failed since the last that succeeded; None if none has."""
        return self._stale_since

    @property
    def present(self) -> tuple[Reason, ...]:
        """What verdicts carry now."""
        return self._present

    def reload_failed(self, error: Exception) -> None:
        """The policy files could not be loaded: the last good ones answer."""
        if self._stale_since is None:
            self._stale_since = time.time()
        since = datetime.fromtimestamp(self._stale_since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = f"since {since} the policy files cannot be loaded, and those loaded before answer: {_line(error)}"
        self._present = (Reason(ReasonCode.POLICY_STALE, message),)

    def reload_succeeded(self) -> None:
        """The policy files are loaded as they are."""
        self._stale_since, self._present = None, ()


def _line(error: Exception) -> str:
    """The first line of what is wrong; a defect's message may hold anything, so it is named by its type."""
    from guardrail.errors import GuardrailError

    text = str(error) if isinstance(error, GuardrailError) else type(error).__name__
    line, *more = text.splitlines() or [""]
    shown = line if len(line) <= MAX_WHY else f"{line[:MAX_WHY]}…"
    return f"{shown} (and {len(more)} more)" if more else shown
