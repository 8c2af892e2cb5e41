"""Verdicts as plain JSON values: the decision log's text and what `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from guardrail.domain import (
    Approval,
    CautiousHypothesis,
    Decision,
    Guarantee,
    GuaranteeKind,
    HarmBudget,
    Reason,
    ReasonCode,
    Search,
    Verdict,
)


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain JSON values; field names are those of `Verdict`."""
    cautious = verdict.cautious_hypothesis
    return {
        "decision": verdict.decision.value,
        "harm_bound": verdict.harm_bound,
        "threshold": verdict.threshold,
        "escalate_above": verdict.escalate_above,
        "predictive_harm": verdict.predictive_harm,
        "cautious_hypothesis": None
        if cautious is None
        else {
            "name": cautious.name,
            "parameters": dict(cautious.parameters),
            "harm": cautious.harm,
            "log_posterior": cautious.log_posterior,
        },
        "guarantee": guarantee_to_dict(verdict.guarantee),
        "reasons": [{"code": r.code.value, "message": r.message} for r in verdict.reasons],
        "policy": verdict.policy,
        "policy_revision": verdict.policy_revision,
        "world": verdict.world,
        "posterior_revision": verdict.posterior_revision,
        "decision_id": verdict.decision_id,
        "search": None
        if verdict.search is None
        else {"truncated": verdict.search.truncated, "scanned": verdict.search.scanned},
        "notices": [{"code": n.code.value, "message": n.message} for n in verdict.notices],
        "budget": None if verdict.budget is None else asdict(verdict.budget),
        "approval": None if verdict.approval is None else asdict(verdict.approval),
        "escalation_expires": verdict.escalation_expires,
        "shadow": verdict.shadow,
        "enforced_decision": None if verdict.enforced_decision is None else verdict.enforced_decision.value,
    }


def guarantee_to_dict(guarantee: Guarantee) -> dict[str, Any]:
    """A guarantee as plain JSON values."""
    return {
        "kind": guarantee.kind.value,
        "confidence": guarantee.confidence,
        "assumptions": list(guarantee.assumptions),
        "source": guarantee.source,
    }


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_dict` wrote.

    :raises KeyError, ValueError: if the data is not such a verdict.
    """
    cautious, guarantee = data["cautious_hypothesis"], data["guarantee"]
    search = data.get("search")  # older records have none, as with all that is read with `get`
    budget, approval, enforced = data.get("budget"), data.get("approval"), data.get("enforced_decision")
    return Verdict(
        decision=Decision(data["decision"]),
        harm_bound=data["harm_bound"],
        threshold=data["threshold"],
        escalate_above=data["escalate_above"],
        predictive_harm=data["predictive_harm"],
        cautious_hypothesis=None if cautious is None else CautiousHypothesis(**cautious),
        guarantee=Guarantee(
            GuaranteeKind(guarantee["kind"]),
            guarantee["confidence"],
            tuple(guarantee["assumptions"]),
            guarantee["source"],
        ),
        reasons=tuple(Reason(ReasonCode(r["code"]), r["message"]) for r in data["reasons"]),
        policy=data["policy"],
        policy_revision=data["policy_revision"],
        world=data["world"],
        posterior_revision=data["posterior_revision"],
        decision_id=data["decision_id"],
        search=None if search is None else Search(**search),
        notices=tuple(Reason(ReasonCode(n["code"]), n["message"]) for n in data.get("notices", ())),
        budget=None if budget is None else HarmBudget(**budget),
        approval=None if approval is None else Approval(**approval),
        escalation_expires=data.get("escalation_expires"),
        shadow=data.get("shadow", False),
        enforced_decision=None if enforced is None else Decision(enforced),
    )
