"""One log of a world, read as it grows: each report is compared with the decision under whose id it came.

The log is what is read, never a copy of the reports in memory: nothing can be dropped on the way, and what a replica
that starts anew finds is what this one found, bit for bit. So is what `guardrail calibration` finds.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from guardrail.outcomes import Outcome, Unusable, outcome_of
from guardrail.promises import ALPHA, Compared, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from guardrail.policy import Policy
    from guardrail.store.base import DecisionRecord, ObservationRecord, Store

CHUNK: Final = 256
"""Reports that are read in one go: others get their turn in between."""
PIECE: Final = 16
"""Reports after which the interpreter is let go of: the event loop would else wait for a whole switch interval."""
BREATH_SECONDS: Final = 1e-5
"""For how long at least."""
SECONDS_FOR_DECISIONS: Final = 5.0
"""How long a report whose decision is not in the log is waited with, where another replica may have yet to write it."""

Place = tuple[str, str, str, int]
"""Policy name, its revision, world id, and generation of the log: what evidence is about."""


class Progress(enum.Enum):
    """How a reading ended."""

    LEVEL = "level"
    """The log holds no more."""
    MORE = "more"
    """There is more to read."""
    HELD = "held"
    """The next report's decision may come yet."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What outcomes say of the promises of one world so far.

    Attributes:
        place: what it is about.
        compared: the sums; never changed.
        unnamed: number of reports whose id is no decision's.
        unusable: number of reports that say nothing about their decision.
    """

    place: Place
    compared: Compared
    unnamed: int
    unusable: int

    @property
    def alarm(self) -> bool:
        """True if harm is more frequent than was promised."""
        return self.compared.alarm_at is not None


class OutcomeWatch:
    """Compares the reports of one log with decisions of one policy revision. Used by one thread at a time.

    Args:
        store: where the log lies.
        policy: the present one.
        world: the world's id.
        generation: of its log.
        find: a decision by its id; None if there is none so far.
        patience: seconds that a report without a decision is waited with.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        world: str,
        generation: int,
        find: Callable[[str], DecisionRecord | None],
        patience: float,
    ) -> None:
        self.place: Place = (policy.name, policy.revision, world, generation)
        self._store, self._policy, self._find, self._patience = store, policy, find, patience
        self._start()

    def _start(self) -> None:
        self._compared = Compared(steps=steps_of(self._policy))
        self._unnamed = self._unusable = 0
        self._taken, self._last_id = 0, ""
        # Lengths that the log was known to have, and since when: how long each report has been waited with at least.
        self._known: list[tuple[int, float]] = []

    def standing(self) -> Standing:
        """What was found so far."""
        return Standing(self.place, dataclasses.replace(self._compared), self._unnamed, self._unusable)

    def read_on(self, length: int, now: float) -> Progress:
        """Read the next reports of the log, at most CHUNK of them.

        A log that is not the one that was read before, as after a restored backup, is read from its start.

        Args:
            length: that the log is known to have.
            now: of `time.monotonic()`.

        :raises StoreCorrupt: if a record is damaged; what was read before stands.
        :raises StoreError: if the store cannot be read; what was read before stands.
        """
        policy, _, world, generation = self.place
        self._note(length, now)
        reports = iter(self._store.observations(policy, world, after=max(self._taken - 1, 0), generation=generation))
        if self._taken:
            last = next(reports, None)
            if last is None or last.observation_id != self._last_id:
                self._start()
                return Progress.MORE
        read, told = 0, list[Outcome]()
        try:
            for report in islice(reports, CHUNK):
                record = self._find(report.observation_id)
                if record is None and not self._waited(report.sequence, now):
                    return Progress.HELD
                found = outcome_of(report, record, (policy, world, generation), self._policy_of)
                self._count(report, found, told)
                read += 1
                if read % PIECE == 0:
                    self._compared.take(told, ALPHA)
                    told.clear()
                    time.sleep(BREATH_SECONDS)
        finally:  # what is counted as read is taken up, whatever came after it
            self._compared.take(told, ALPHA)
        return Progress.MORE if read == CHUNK else Progress.LEVEL

    def _count(self, report: ObservationRecord, found: Outcome | Unusable | None, told: list[Outcome]) -> None:
        if found is None:
            self._unnamed += 1
        elif found.record is not None and found.record.policy_revision != self._policy.revision:
            pass  # that revision had a guarantee, and has evidence, of its own
        elif isinstance(found, Unusable):
            self._unusable += 1
        else:
            told.append(found)
        self._taken, self._last_id = report.sequence, report.observation_id

    def _policy_of(self, revision: str) -> Policy | str:
        return self._policy if revision == self._policy.revision else f"revision {revision[:12]} is not the present one"

    def _note(self, length: int, now: float) -> None:
        """Remember since when the log is known to be so long."""
        waited = [known for known in self._known if now - known[1] >= self._patience]
        rest = [known for known in self._known if now - known[1] < self._patience]
        self._known = waited[-1:] + rest
        if not self._known or length > self._known[-1][0]:
            self._known.append((length, now))

    def _waited(self, sequence: int, now: float) -> bool:
        return self._patience <= 0.0 or any(
            length >= sequence and now - since >= self._patience for length, since in self._known
        )
