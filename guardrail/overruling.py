"""Giving a verdict another decision than its bound's, and what shadow mode says of it."""

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


def instead(verdict: Verdict, decision: Decision, reason: Reason) -> Verdict:
    """The verdict with another decision than the bound's, and why, before the bound's own reasons."""
    reasons = (reason, *verdict.reasons)
    if not verdict.shadow:
        return replace(verdict, decision=decision, reasons=reasons)
    notices = tuple(n for n in verdict.notices if n.code is not ReasonCode.SHADOW_MODE)
    return replace(verdict, enforced_decision=decision, reasons=reasons, notices=(watched(decision), *notices))


def overruled(verdict: Verdict, reason: Reason, budget: HarmBudget | None = None) -> Verdict:
    """The verdict as a reject for want of harm budget. Its harm bound stays; no approval helps it."""
    return replace(instead(verdict, Decision.REJECT, reason), budget=budget, approval=None)
