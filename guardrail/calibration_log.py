"""Calibration of what was logged: for each world and policy revision, harm that was promised against harm that came.

A new revision of a policy starts a new guarantee, so each has its own evidence. Outcomes are taken up in the order of
the observation log, and a decision's bound was fixed before its outcome: it rests on earlier observations only.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guardrail.calibration import evidence, residuals
from guardrail.domain import Decision
from guardrail.errors import LogUnusable
from guardrail.log_checks import require_decisions
from guardrail.outcomes import Outcome, Policies, Unusable, outcomes
from guardrail.promises import ALPHA, Compared, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guardrail.policy import Policy
    from guardrail.store.base import DecisionRecord, Store

_POINTS = 1_000
CURVES_KEPT = 6
"""Worlds whose course is kept to be drawn: those with the most evidence against their bounds."""


@dataclass(slots=True)
class Course:
    """How the numbers of one world moved, in at most 2,000 points whatever its length.

    Attributes:
        points: number of outcomes, log e-value in nats and the sums of the predicted ones, after some of the outcomes.
    """

    points: list[tuple[int, float, residuals.Residuals]] = field(default_factory=list)
    _stride: int = 1

    def add(self, outcome: int, log_e_value: float, sums: residuals.Residuals) -> None:
        """Take up what was reached after an outcome."""
        if outcome % self._stride:
            return
        self.points.append((outcome, log_e_value, sums))
        if len(self.points) >= 2 * _POINTS:
            self._stride *= 2
            self.points = [point for point in self.points if point[0] % self._stride == 0]


@dataclass(slots=True)
class Row(Compared):
    """One log of a world under one revision of its policy: its decisions, and what came of them.

    Attributes:
        policy: name of the policy.
        policy_revision: digest of the policy document.
        world: id of the world.
        generation: of its log; each reset starts the next.
        decisions: number of decisions.
        accepted: how many of them are accepts.
        accepted_reported: how many of those have a report under their id.
        course: to be drawn; None if it was not asked for.
    """

    policy: str
    policy_revision: str
    world: str
    generation: int
    decisions: int = 0
    accepted: int = 0
    accepted_reported: int = 0
    course: Course | None = None

    @property
    def title(self) -> str:
        """What to call it."""
        generation = f", generation {self.generation}" if self.generation > 1 else ""
        return f"{self.policy}, world {self.world}{generation}, revision {self.policy_revision[:12]}"

    @property
    def accepted_unreported(self) -> int:
        """Accepted decisions of which nobody said what came of them."""
        # A decision may be logged, and its outcome reported, while the log is being read.
        return max(0, self.accepted - self.accepted_reported)


class Calibration:
    """Reads the logs once and keeps sums.

    Args:
        store: where the logs lie; only read.
        policy: only decisions of this policy.
        world: only decisions of this world.
        policies: policies whose hypotheses are programs.
        alpha: probability in (0, 1) of an alarm without cause, for each row.
        courses: whether to keep what is drawn.

    Attributes:
        alpha: as given.
        threshold: the log e-value of an alarm, in nats.
        rows: by policy, world and revision.
        unnamed: number of reports whose id is no decision's.
        unusable: how many reports say nothing about their decision, by code.
        examples: one message for each of these codes.

    :raises ValueError: if alpha is not in (0, 1).
    :raises LogUnusable: LOG_EMPTY or OTHER_POLICY; see `log_checks.require_decisions`.
    :raises StoreError: if the store cannot be read.
    """

    def __init__(
        self,
        store: Store,
        *,
        policy: str | None = None,
        world: str | None = None,
        policies: Sequence[Policy] = (),
        alpha: float = ALPHA,
        courses: bool = False,
    ) -> None:
        self.alpha, self.threshold = alpha, evidence.threshold(alpha)
        require_decisions(store, policy, world)
        self._store, self._policy, self._world = store, policy, world
        self._policies, self._courses = Policies(store, policies), courses
        self.rows: list[Row] = []
        self.unnamed = 0
        self.unusable: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    @property
    def alarms(self) -> int:
        """Number of rows with an alarm."""
        return sum(row.alarm_at is not None for row in self.rows)

    def run(self) -> Iterator[None]:
        """Read everything; yields once for each record.

        :raises LogUnusable: LOG_UNREPORTED, at the end, if no report could be joined with a decision.
        :raises StoreCorrupt: if a record's checksum does not fit it.
        :raises StoreError: if the store cannot be read.
        """
        logged = self._store.decisions(self._policy, self._world)
        for place, records in itertools.groupby(logged, _log_of):
            rows: dict[str, Row] = {}
            for record in records:
                self._count(rows, record)
                yield
            for joined in outcomes(self._store, self._policies, *place):
                self._take(rows, joined)
                yield
            self.rows.extend(rows.values())
            self._forget_courses()
        if not any(row.outcomes for row in self.rows):
            raise LogUnusable(self._why_none(), "LOG_UNREPORTED")

    def _count(self, rows: dict[str, Row], record: DecisionRecord) -> None:
        row = rows.get(record.policy_revision)
        if row is None:
            row = rows[record.policy_revision] = Row(
                record.policy, record.policy_revision, record.world, record.generation
            )
            policy = self._policies.get(record.policy_revision)
            if not isinstance(policy, str):
                row.steps = steps_of(policy)
            row.course = Course() if self._courses else None
        row.decisions += 1
        row.accepted += record.decision == Decision.ACCEPT

    def _take(self, rows: dict[str, Row], joined: Outcome | Unusable | None) -> None:
        if joined is None:
            self.unnamed += 1
            return
        # A decision that was logged after the reading began has no row; the next reading will find it.
        row = rows.get(joined.record.policy_revision) if joined.record is not None else None
        if row is not None and joined.record is not None:
            row.accepted_reported += joined.record.decision == Decision.ACCEPT
        if isinstance(joined, Unusable):
            self.unusable[joined.code] += 1
            self.examples.setdefault(joined.code, joined.message)
        elif row is not None:
            self._learn(row, joined)

    def _learn(self, row: Row, outcome: Outcome) -> None:
        row.take([outcome], self.alpha)
        if row.course is not None:
            row.course.add(row.outcomes, row.evidence.log_e_value, row.residuals)

    def _forget_courses(self) -> None:
        drawn = sorted((row for row in self.rows if row.course is not None), key=lambda row: -row.evidence.peak)
        for row in drawn[CURVES_KEPT:]:
            row.course = None

    def _why_none(self) -> str:
        if not self.unusable:
            return f"no outcome was reported under a decision's id ({self.unnamed} reports under other ids)"
        code, count = self.unusable.most_common(1)[0]
        return f"no report can be used; {count} are {code}, for instance: {self.examples[code]}"


def _log_of(record: DecisionRecord) -> tuple[str, str, int]:
    return record.policy, record.world, record.generation
