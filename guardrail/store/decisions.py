"""A decision before it is text, and back."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from guardrail.domain import Guarantee, JsonObject, Verdict
from guardrail.records import guarantee_to_dict, verdict_from_dict, verdict_to_dict
from guardrail.store.base import DecisionRecord

_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A verdict with what was asked, before it is text.

    Attributes:
        verdict: as it was given.
        context: as it was asked.
        action: as it was asked.
        decided_at: seconds since the epoch, UTC.
        caller: who asked; empty if callers are not authenticated.
        generation: of the log that the posterior's observations are counted in.
    """

    verdict: Verdict
    context: JsonObject
    action: JsonObject
    decided_at: float
    caller: str = ""
    generation: int = 1

    def to_record(self) -> DecisionRecord:
        """The record as the store keeps it.

        A request may hold NaN, which the log must show as it was: JSON text here is Python's,
        with NaN and Infinity as bare words.
        """
        request: dict[str, object] = {"action": self.action, "context": self.context}
        if self.caller:
            request["caller"] = self.caller
        return DecisionRecord(
            decision_id=self.verdict.decision_id,
            policy=self.verdict.policy,
            policy_revision=self.verdict.policy_revision,
            world=self.verdict.world,
            posterior_revision=self.verdict.posterior_revision,
            decision=self.verdict.found.value,
            request=_to_json(request),
            verdict=_verdict_to_json(self.verdict),
            decided_at=self.decided_at,
            generation=self.generation,
        )

    @classmethod
    def from_record(cls, record: DecisionRecord) -> LoggedDecision:
        """Read a record back.

        :raises KeyError, ValueError: if the record's text is damaged.
        """
        request = json.loads(record.request)
        verdict = verdict_from_dict(json.loads(record.verdict))
        caller = request.get("caller", "")
        return cls(verdict, request["context"], request["action"], record.decided_at, caller, record.generation)


def _verdict_to_json(verdict: Verdict) -> str:
    """The verdict's JSON text. A guarantee is long and the same for all verdicts of a policy: its text is kept."""
    rest = verdict_to_dict(verdict)
    del rest["guarantee"]
    return f'{{"guarantee":{_guarantee_to_json(verdict.guarantee)},{_to_json(rest)[1:]}'


@functools.lru_cache(maxsize=256)
def _guarantee_to_json(guarantee: Guarantee) -> str:
    return _to_json(guarantee_to_dict(guarantee))
