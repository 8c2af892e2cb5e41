"""What decisions promised and predicted, compared with what came of them: sums over outcomes, taken up in order.

The service keeps one of these for each world as reports come in, and `guardrail calibration` makes them from the logs.
Both are the same numbers, bit for bit, however outcomes are batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from guardrail.calibration import evidence, residuals
from guardrail.policy.memory_schema import FiniteMdp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.outcomes import Outcome
    from guardrail.policy import Policy

ALPHA: Final = 0.01
"""Probability of an alarm without cause, for each generation of a world and revision of its policy."""


@dataclass(slots=True, kw_only=True)
class Compared:
    """The outcomes of one log of a world under one revision of its policy.

    Attributes:
        outcomes: number of reports that are joined with a decision, accepted or not.
        harms: how many of them are harm.
        bounds: sum of their bounds.
        steps: harm is promised within so many steps; an outcome shows the first.
        evidence: against the bounds.
        alarm_at: number of outcomes at the first alarm; None if there was none.
        residuals: of those with a predictive harm.
    """

    outcomes: int = 0
    harms: int = 0
    bounds: float = 0.0
    steps: int = 1
    evidence: evidence.Evidence = field(default_factory=evidence.init)
    alarm_at: int | None = None
    residuals: residuals.Residuals = field(default_factory=residuals.init)

    def take(self, told: Sequence[Outcome], alpha: float) -> None:
        """Take up outcomes in the order of the log.

        Args:
            told: the outcomes.
            alpha: probability in (0, 1) of an alarm without cause.

        :raises ValueError: if alpha is not in (0, 1).
        """
        self.evidence, values = evidence.update(self.evidence, [o.bound for o in told], [o.harm for o in told])
        reached = np.flatnonzero(values >= evidence.threshold(alpha))
        if self.alarm_at is None and len(reached):
            self.alarm_at = self.outcomes + 1 + int(reached[0])
        predicted = [(o.predicted, o.harm) for o in told if o.predicted is not None]
        if predicted:
            self.residuals, _ = residuals.update(self.residuals, *zip(*predicted, strict=True))
        self.outcomes += len(told)
        for outcome in told:
            self.harms += outcome.harm
            self.bounds += outcome.bound


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted harm against harm, over the outcomes that have a prediction.

    Attributes:
        outcomes: how many there are.
        predicted: mean predicted harm.
        harm: mean harm.
        radius: of the confidence sequence for the mean of the true probabilities of harm, around `harm`.
    """

    outcomes: int
    predicted: float
    harm: float
    radius: float

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence sequence, cut to [0, 1]."""
        return max(0.0, self.harm - self.radius), min(1.0, self.harm + self.radius)

    @property
    def finding(self) -> str:
        """`too low` or `too high` if predictions are off on average, `plausible` if they may be right."""
        low, high = self.interval
        return "too low" if self.predicted < low else "too high" if self.predicted > high else "plausible"


def predictions(compared: Compared, alpha: float) -> Predictions | None:
    """What came of predictions; None if there are none, or they are about more steps than outcomes show.

    :raises ValueError: if alpha is not in (0, 1).
    """
    sums = compared.residuals
    if compared.steps > 1 or not sums.outcomes:
        return None
    count = float(sums.outcomes)
    radius = float(residuals.radius(sums, alpha))
    return Predictions(int(count), float(sums.predicted) / count, float(sums.harms) / count, radius)


def steps_of(policy: Policy) -> int:
    """Within how many steps a policy promises that there is no harm: 1, or the horizon of a decision process."""
    hypotheses = policy.spec.hypotheses
    return hypotheses.horizon if isinstance(hypotheses, FiniteMdp) else 1
