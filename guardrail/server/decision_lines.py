"""One log line for each decision, of what may be read by whoever reads the logs."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from guardrail.store.decisions import LoggedDecision

log = structlog.get_logger()


def tell(decisions: Sequence[LoggedDecision]) -> None:
    """A line for each durable decision. No context, no action, and no sentence of a reason, which may quote them."""
    for decision in decisions:
        verdict = decision.verdict
        log.info(
            "decision",
            decision_id=verdict.decision_id,
            policy=verdict.policy,
            world=verdict.world,
            caller=decision.caller,
            decision=verdict.found.value,
            shadow=verdict.shadow,
            reasons=[reason.code.value for reason in verdict.reasons],
            harm_bound=verdict.harm_bound,
            decided_at=decision.decided_at,
        )
