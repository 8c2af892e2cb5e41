"""Turning a verdict that accepts into one that does not, and what shadow mode says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from guardrail.domain import Decision, HarmBudget, Reason, ReasonCode, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence


def accepts_safest_first(verdicts: Sequence[Verdict]) -> list[int]:
    """Places of the verdicts that found an accept, smallest harm bound first: the order in which a budget is shared."""
    accepts = (place for place, verdict in enumerate(verdicts) if verdict.found is Decision.ACCEPT)
    return sorted(accepts, key=lambda place: verdicts[place].harm_bound)


def watched(found: Decision) -> Reason:
    """The notice of a policy that only watches."""
    return Reason(ReasonCode.SHADOW_MODE, f"the policy only watches (mode: shadow): enforced, it would {found.value}")


def overruled(verdict: Verdict, reason: Reason, budget: HarmBudget | None = None) -> Verdict:
    """The verdict as a reject for another reason; its harm bound stays. In shadow mode that is what was found."""
    if not verdict.shadow:
        return replace(verdict, decision=Decision.REJECT, reasons=(reason,), budget=budget)
    told = tuple(watched(Decision.REJECT) if n.code is ReasonCode.SHADOW_MODE else n for n in verdict.notices)
    return replace(verdict, enforced_decision=Decision.REJECT, reasons=(reason,), notices=told, budget=budget)
