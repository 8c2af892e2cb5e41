"""A policy while it is being checked: the parts that are right in themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from guardrail.policy.memory_schema import IntegerOutcomeSpec
from guardrail.policy.schema import (
    DecisionSpec,
    HypothesesSpec,
    IidBound,
    OutcomeSpec,
    PlausibleBound,
    PredictiveBound,
    RatioBound,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guardrail.domain import HarmEvent
    from guardrail.policy.document import Document
    from guardrail.policy.reporting_schema import ReportingSpec

_Bound: TypeAlias = PredictiveBound | IidBound | PlausibleBound | RatioBound


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """A feature: one number (length None), or a list of `length` numbers."""

    name: str
    length: int | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a policy that are right in themselves; None for the others.

    Attributes:
        document: where they stand.
        features: in the policy's order.
        category_type: string or int; None if there is no category or it is wrong.
    """

    document: Document
    hypotheses: HypothesesSpec | None
    outcome: OutcomeSpec | IntegerOutcomeSpec | None
    bound: _Bound | None
    decision: DecisionSpec | None
    reporting: ReportingSpec | None
    harm: HarmEvent | None
    features: Sequence[FeatureShape] | None
    category_type: str | None
