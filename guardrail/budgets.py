"""A harm budget: what the bounds of accepted actions may add up to, exactly. Pure: no I/O, no clock.

By a union bound, P(any harm among actions that were accepted with bounds b_1, b_2, ...) is at most delta + (b_1 + b_2
+ ...): each bound is fixed before its outcome, and all of them hold at once with probability 1 - delta. So the sum must
never exceed the budget's total. It is kept in whole units of 2^-60: bounds are rounded up to units and totals down, and
whole numbers are added without rounding, by databases too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from guardrail.domain import Guarantee, GuaranteeKind, HarmBudget, Reason, ReasonCode, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guardrail.policy.schema import DecisionSpec

UNIT: Final = 2.0**-60
"""Of harm probability. Doubles of 2^-8 and more are whole units, and a sum of less than 8 is a 64-bit integer."""
SOURCE: Final = "union bound over the accepted actions"
CHECKED: Final = (
    "every action, in a session under its name, was checked while the policy had this budget and was enforced"
)
CHOSEN: Final = (
    "the session is looked at for a reason that its outcomes have no part in; over several, the totals add up"
)


def units_of(bound: float) -> int:
    """A harm bound in units, rounded up.

    :raises ValueError: if it is not a probability; NaN is none.
    """
    if not 0.0 <= bound <= 1.0:
        raise ValueError(f"a harm bound is a probability, not {bound!r}")
    return math.ceil(Fraction(bound) / Fraction(UNIT))


def total_units(total: float) -> int:
    """A budget's total in units, rounded down.

    :raises ValueError: if it is not in (0, 1].
    """
    if not 0.0 < total <= 1.0:
        raise ValueError(f"a budget's total lies in (0, 1], not {total!r}")
    return math.floor(Fraction(total) / Fraction(UNIT))


def fits(spent: int, units: int, total: float) -> bool:
    """True if, with so much spent, a bound of so many units leaves the sum within the total."""
    return spent >= 0 and units >= 0 and spent + units <= total_units(total)


def amount(units: int) -> float:
    """Units as a probability, rounded up."""
    exact = units * Fraction(UNIT)
    near = float(exact)
    return near if Fraction(near) >= exact else math.nextafter(near, math.inf)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a budget is.

    Attributes:
        per: `session`, or `window` for a rolling window of a world.
        total: most that the bounds may add up to, in (0, 1].
        window_seconds: length of the window; 0 for a session.
    """

    per: str
    total: float
    window_seconds: float = 0.0


def terms_of(decision: DecisionSpec) -> Terms | None:
    """The budget of a policy; None if it has none."""
    spec = decision.budget
    if spec is None:
        return None
    return Terms(spec.per, spec.total, spec.window if spec.per == "window" else 0.0)


MISSING: Final = Reason(
    ReasonCode.SESSION_MISSING, "the policy has a harm budget for each session, and the check names no session"
)


def refusal(code: ReasonCode, terms: Terms, bound: float, spent: float) -> Reason:
    """Why an action is not accepted for want of budget.

    Args:
        code: BUDGET_EXHAUSTED or BUDGET_CHANGED.
        terms: those that the budget began with.
        bound: the harm bound that asked for its share.
        spent: what was spent before.
    """
    whose = "the session" if terms.per == "session" else f"the last {terms.window_seconds:g} s"
    if code is ReasonCode.BUDGET_CHANGED:
        message = (
            f"{whose} began with another harm budget, of {terms.total:g}, than the policy has now: begin a new one"
        )
    else:
        message = f"the harm bound {bound:.4g} does not fit: {whose} has spent {spent:.4g} of {terms.total:g}"
    return Reason(code, message)


@dataclass(slots=True)
class Ledger:
    """One budget in memory. The one of a service is in its store.

    Attributes:
        terms: those that it began with.
        spent: units that count at present.
    """

    terms: Terms
    spent: int = 0
    _last: float = -math.inf
    _kept: list[tuple[float, int]] = field(default_factory=list)

    def reserve(self, bound: float, now: float) -> bool:
        """Set a bound aside if it fits; nothing is ever given back but by a window that moves on.

        Args:
            bound: the harm bound.
            now: seconds of any clock; one that jumps back is taken to stand still.
        """
        self._last = max(self._last, now)
        if self.terms.per == "window":
            edge = self._last - self.terms.window_seconds
            self.spent -= sum(units for at, units in self._kept if at <= edge)
            self._kept = [(at, units) for at, units in self._kept if at > edge]
        units = units_of(bound)
        if not fits(self.spent, units, self.terms.total):
            return False
        self.spent += units
        if self.terms.per == "window":
            self._kept.append((self._last, units))
        return True

    def state(self, session: str) -> HarmBudget:
        """What a verdict says of it."""
        return HarmBudget(self.terms.per, session, self.terms.total, amount(self.spent))


@dataclass(frozen=True, slots=True)
class Ground:
    """What some accepted bounds of a budget rest on.

    Attributes:
        policy_revision: of the policy that they were computed under.
        generation: of the world's log that they were computed from.
        delta: probability that a bound of these fails ever; None if any of them is no theorem, or was only watched.
    """

    policy_revision: str
    generation: int
    delta: float | None


def ground_of(verdict: Verdict, generation: int) -> Ground:
    """What an accepted bound rests on. In shadow mode rejects were carried out, too, so its sum promises nothing."""
    delta = None if verdict.shadow else delta_of(verdict.guarantee)
    return Ground(verdict.policy_revision, generation, delta)


def delta_of(guarantee: Guarantee) -> float | None:
    """With which probability a bound fails ever, rounded up; None if it is no theorem."""
    if guarantee.kind is not GuaranteeKind.THEOREM:
        return None
    return min(1.0, math.nextafter(1.0 - guarantee.confidence, math.inf))


def promise(bounds: Guarantee, grounds: Iterable[Ground], total: float, revision: str) -> Guarantee:
    """What the sum of the bounds promises: P(any harm among the accepted actions) <= sum of the deltas + total.

    Args:
        bounds: what the world's bounds promise at present.
        grounds: what the accepted bounds rest on; each revision and generation has a delta of its own.
        total: what the bounds add up to at most.
        revision: the policy's present one, whose assumptions `bounds` states.
    """
    present = delta_of(bounds)
    deltas = {(g.policy_revision, g.generation): g.delta for g in grounds}
    known = [delta for delta in (*deltas.values(), *(() if deltas else (present,))) if delta is not None]
    if present is None or len(known) < max(1, len(deltas)):
        why = (
            "nothing is promised: not all of the bounds are theorems that hold at all times at once, and were enforced"
        )
        return Guarantee(GuaranteeKind.NONE, 0.0, (why,), SOURCE)
    at_most = sum(map(Fraction, known), Fraction(total))
    if at_most >= 1:
        why = f"nothing is promised: delta and the budget add up to {float(at_most):.4g}, and no probability exceeds 1"
        return Guarantee(GuaranteeKind.NONE, 0.0, (why,), SOURCE)
    confidence = float(1 - at_most)
    if Fraction(confidence) > 1 - at_most:
        confidence = math.nextafter(confidence, 0.0)
    others = sorted({g for g, _ in deltas if g != revision})
    earlier = tuple(f"the assumptions of policy revision {other} hold too" for other in others)
    return Guarantee(
        GuaranteeKind.THEOREM,
        confidence,
        (*bounds.assumptions, *earlier, CHECKED, CHOSEN),
        f"{SOURCE}; {bounds.source}",
    )
