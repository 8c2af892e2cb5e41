"""Observations in order: an immutable view of a list that its successors share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from guardrail.oracles.base import Rows


@dataclass
class _Log:
    """Grows at its end only. `rows` and `outcomes` are chunks."""

    rows: list[Rows] = field(default_factory=list)
    outcomes: list[npt.NDArray[np.float64]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, eq=False)
class History:
    """The first chunks of a log. Extending costs the new observations only, unless the log was extended otherwise."""

    _log: _Log
    _chunks: int
    _length: int

    @classmethod
    def empty(cls) -> History:
        """No observations."""
        return cls(_Log(), 0, 0)

    def __len__(self) -> int:
        return self._length

    def extended(self, rows: Rows, outcomes: npt.NDArray[np.float64]) -> History:
        """This history and N more observations, float64[N, F] and float64[N]; this one stays as it is."""
        log = self._log
        with log.lock:
            if len(log.rows) != self._chunks:
                log = _Log(log.rows[: self._chunks], log.outcomes[: self._chunks])
            log.rows.append(np.array(rows))
            log.outcomes.append(np.array(outcomes))
        return History(log, self._chunks + 1, self._length + len(rows))

    def arrays(self, row_length: int) -> tuple[Rows, npt.NDArray[np.float64]]:
        """float64[N, F] and float64[N]."""
        if not self._length:
            return np.zeros((0, row_length)), np.zeros(0)
        with self._log.lock:
            rows, outcomes = self._log.rows[: self._chunks], self._log.outcomes[: self._chunks]
        return np.concatenate(rows), np.concatenate(outcomes)
