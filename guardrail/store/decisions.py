"""A decision before it is text, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from guardrail.domain import JsonObject, Verdict
from guardrail.records import verdict_from_dict, verdict_to_dict
from guardrail.store.base import DecisionRecord


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A verdict with what was asked, before it is text.

    Attributes:
        verdict: as it was given.
        context: as it was asked.
        action: as it was asked.
        decided_at: seconds since the epoch, UTC.
    """

    verdict: Verdict
    context: JsonObject
    action: JsonObject
    decided_at: float

    def to_record(self) -> DecisionRecord:
        """The record as the store keeps it.

        A request may hold NaN, which the log must show as it was: JSON text here is Python's,
        with NaN and Infinity as bare words.
        """
        return DecisionRecord(
            decision_id=self.verdict.decision_id,
            policy=self.verdict.policy,
            policy_revision=self.verdict.policy_revision,
            world=self.verdict.world,
            posterior_revision=self.verdict.posterior_revision,
            decision=self.verdict.decision.value,
            request=json.dumps({"action": self.action, "context": self.context}, separators=(",", ":")),
            verdict=json.dumps(verdict_to_dict(self.verdict), separators=(",", ":")),
            decided_at=self.decided_at,
        )

    @classmethod
    def from_record(cls, record: DecisionRecord) -> LoggedDecision:
        """Read a record back.

        :raises KeyError, ValueError: if the record's text is damaged.
        """
        request = json.loads(record.request)
        verdict = verdict_from_dict(json.loads(record.verdict))
        return cls(verdict, request["context"], request["action"], record.decided_at)
