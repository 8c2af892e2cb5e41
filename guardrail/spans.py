"""What OpenTelemetry spans say of verdicts and errors, for clients and services. It loads no OpenTelemetry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from guardrail.domain import Verdict
from guardrail.errors import GuardrailError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MAX_IDS: Final = 64
"""Most decision ids in one span: a call may ask about a thousand actions."""


@contextlib.contextmanager
def failing(span: Span) -> Iterator[None]:
    """Mark a span as failed by an error that passes, with its stable reason."""
    from opentelemetry.trace import StatusCode

    try:
        yield
    except BaseException as error:
        reason = error.reason if isinstance(error, GuardrailError) else type(error).__name__
        span.set_attribute("error.type", reason)
        span.set_status(StatusCode.ERROR, reason)
        raise


def verdict_attributes(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What a span says of verdicts: of one all that a person wants to know first, of several their ids and number."""
    if len(verdicts) != 1:
        found = [verdict.found.value for verdict in verdicts]
        return {
            "guardrail.decision_ids": [verdict.decision_id for verdict in verdicts[:MAX_IDS]],
            **{f"guardrail.decisions.{decision}": found.count(decision) for decision in sorted(set(found))},
        }
    (verdict,) = verdicts
    attributes: dict[str, Any] = {
        "guardrail.decision_id": verdict.decision_id,
        "guardrail.decision": verdict.found.value,
        "guardrail.harm_bound": verdict.harm_bound,
        "guardrail.shadow": verdict.shadow,
        "guardrail.policy_revision": verdict.policy_revision,
        "guardrail.posterior_revision": verdict.posterior_revision,
    }
    if verdict.reasons:
        attributes["guardrail.reason"] = verdict.reasons[0].code.value
    return attributes
