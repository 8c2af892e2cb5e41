"""The shape of a policy file (`guardrail/v1`): types, limits and what each field means.

Only shapes live here. What needs CEL or looks across fields is checked in `loader`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from guardrail.policy.budget_schema import BudgetSpec
from guardrail.policy.durations import Duration
from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov, IntegerOutcomeSpec, NormalSpec
from guardrail.policy.program_schema import NumpyroProgram, PyroProgram
from guardrail.policy.reporting_schema import ReportingSpec
from guardrail.policy.schema_base import (
    CategoryCount,
    CategoryKey,
    Expression,
    Finite,
    Identifier,
    Model,
    Name,
    OpenProbability,
    Positive,
    Probability,
)

MAX_HYPOTHESES = 2**27
"""Largest enumerated class. A posterior takes about 13 bytes for each hypothesis, an observation twice as much."""
PRIOR_SUM_TOLERANCE = 1e-6
"""How far prior masses may sum from one: decimal rounding. They are divided by their sum."""
MAX_FEATURES = 1_000
MAX_FIELDS = 1_000
MAX_LIST_LENGTH = 1_024
MAX_STRING_LENGTH = 10_000


class FieldSpec(Model):
    """A declared field of the context or the action."""

    type: Literal["number", "integer", "bool", "string", "list"] = Field(
        description="number (a double), integer, bool, string, or list (of numbers)"
    )
    length: Annotated[int, Field(ge=1, le=MAX_LIST_LENGTH)] | None = Field(
        None, description="number of elements; required for a list, not allowed otherwise"
    )
    optional: bool = Field(
        False, description="may be absent: guard its use with has(); a check without any other field is rejected"
    )


FieldDeclaration: TypeAlias = Literal["number", "integer", "bool", "string"] | FieldSpec
"""`number` is short for `{type: number}`."""


# ---------------------------------------------------------------- hypothesis classes


class TableHypothesis(Model):
    """One row of a finite table: one full model of the outcome, per category."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    prior: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="prior mass; give it for every hypothesis (sum 1) or for none (uniform)"
    )
    rates: dict[CategoryKey, Probability] | Probability | None = Field(
        None, description="P(outcome = true), per category or one for all; for a bool outcome"
    )
    normal: dict[CategoryKey, NormalSpec] | NormalSpec | None = Field(
        None, description="Gaussian outcome, per category or one for all; for a number outcome"
    )


class FiniteTable(Model):
    """A named table of hypotheses."""

    family: Literal["finite-table"]
    category: Expression | None = Field(None, description="CEL, a string or an integer; none if there is one category")
    table: Annotated[tuple[TableHypothesis, ...], Field(min_length=1, max_length=100_000)]


class ProductPrior(Model):
    """Independent weights: one probability for each level."""

    probabilities: tuple[Positive, ...] = Field(description="P(weight = 0), P(weight = 1), ...; sum 1")


class LinearGaussianLattice(Model):
    """outcome ~ Normal(w . features, noise_sd^2), every weight in {0, ..., levels - 1}."""

    family: Literal["linear-gaussian-lattice"]
    levels: Annotated[int, Field(ge=2, le=64)] = Field(description="number of values a weight may take")
    noise_sd: Positive = Field(description="known standard deviation, in the outcome's unit")
    prior: Literal["uniform"] | ProductPrior = "uniform"


class CoefficientGrid(Model):
    """An evenly spaced grid for one coefficient with a Gaussian prior on it."""

    lower: Finite
    upper: Finite
    points: Annotated[int, Field(ge=1, le=100_000)]
    mean: Finite = Field(0.0, description="prior mean")
    sd: Positive = Field(description="prior standard deviation, before restriction to the grid")


class BernoulliLogistic(Model):
    """P(outcome = true) = sigmoid(intercept + sum_j coefficient_j * feature_j) on a grid."""

    family: Literal["bernoulli-logistic"]
    intercept: CoefficientGrid
    coefficients: dict[Identifier, CoefficientGrid] = Field(description="one for each feature, at most 4")


class BetaPrior(Model):
    """Beta(a, b) prior on a rate."""

    a: Positive
    b: Positive


class BetaBernoulli(Model):
    """P(outcome = true) = an unknown rate for each category, with independent Beta priors.

    The guarantee covers all categories at once: delta is shared evenly among them.
    """

    family: Literal["beta-bernoulli"]
    category: Expression | None = Field(None, description="CEL, a string or an integer; none if there is one category")
    categories: tuple[CategoryKey, ...] | CategoryCount | None = Field(
        None, description="the categories' names, or {count: N} for 0..N-1; required with `category`"
    )
    prior: BetaPrior = Field(description="prior of every rate")


class WeightPrior(Model):
    """Independent Gaussian prior of every weight."""

    mean: Finite = 0.0
    sd: Positive


class WeightBox(Model):
    """An assumed range of every weight: part of the class, stated in the guarantee."""

    lower: Finite
    upper: Finite


class GaussianLinear(Model):
    """outcome ~ Normal(w . features, noise_sd^2) with continuous weights."""

    family: Literal["gaussian-linear"]
    noise_sd: Positive = Field(description="known standard deviation, in the outcome's unit")
    prior: WeightPrior
    box: WeightBox | None = Field(
        None, description="assumed range of every weight; without it unseen directions bound 1"
    )


HypothesesSpec = Annotated[
    FiniteTable
    | LinearGaussianLattice
    | BernoulliLogistic
    | BetaBernoulli
    | GaussianLinear
    | HiddenMarkov
    | FiniteMdp
    | NumpyroProgram
    | PyroProgram,
    Field(discriminator="family"),
]


# ---------------------------------------------------------------- bounds


class PredictiveBound(Model):
    """Posterior predictive harm. No guarantee."""

    kind: Literal["predictive"]


class IidBound(Model):
    """The cautious plausible hypothesis (UAI 2025, Proposition 3.3). Asymptotic."""

    kind: Literal["iid"]


class PlausibleBound(Model):
    """Largest harm over the plausible set I^alpha (UAI 2025, Proposition 4.5)."""

    kind: Literal["plausible"]
    alpha: OpenProbability = Field(description="the guarantee holds with delta = alpha / (smallest prior mass)")
    running: bool = Field(False, description="intersect the sets of all times")


class RatioBound(Model):
    """Largest harm over the prior-posterior ratio set (Waudby-Smith and Ramdas 2020)."""

    kind: Literal["ratio"]
    delta: OpenProbability = Field(description="the guarantee holds with confidence 1 - delta")
    running: bool = Field(False, description="intersect the sets of all times")


BoundSpec = Annotated[
    PredictiveBound | IidBound | PlausibleBound | RatioBound,
    Field(discriminator="kind"),
]


# ---------------------------------------------------------------- the whole


class OutcomeSpec(Model):
    """What is reported after an action."""

    name: Identifier
    type: Literal["bool", "number"]
    unit: Annotated[str, Field(max_length=40)] | None = Field(None, description="for people, shown with numbers")


Outcome: TypeAlias = Annotated[OutcomeSpec | IntegerOutcomeSpec, Field(discriminator="type")]


class EscalationSpec(Model):
    """How long a person may take over an escalated action."""

    expires: Duration = Field(
        "15m",
        validate_default=True,
        description="after this an escalated action can be neither approved nor carried out: 90s, 15m, 24h or 7d",
    )


class DecisionSpec(Model):
    """Thresholds on the harm bound."""

    reject_above: Probability = Field(description="reject when the harm bound exceeds this")
    escalate_above: Probability | None = Field(
        None, description="escalate when the harm bound exceeds this; below reject_above"
    )
    escalation: EscalationSpec = EscalationSpec()
    budget: BudgetSpec | None = Field(None, description="most that the bounds of accepted actions may add up to")


class RuleSpec(Model):
    """A hard rule, checked before any statistics; the first match wins.

    A rule may reject or escalate. It may not accept: only a bound can. An escalating rule
    leaves the bound in force, and the more cautious of the two decides.
    """

    when: Expression = Field(description="CEL, bool")
    decide: Literal["reject", "escalate"]
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class RedactSpec(Model):
    """Fields whose values are kept nowhere: not in a log, and not with those who watch.

    No expression may read them, so their values are not looked at either, whatever their type.
    """

    context: Annotated[tuple[Identifier, ...], Field(max_length=MAX_FIELDS)] = Field(
        (), description="names of declared context fields"
    )
    action: Annotated[tuple[Identifier, ...], Field(max_length=MAX_FIELDS)] = Field(
        (), description="names of declared action fields"
    )


class PolicySpec(Model):
    """A safety specification."""

    schema_: Literal["guardrail/v1"] = Field(alias="schema")
    name: Name
    description: Annotated[str, Field(min_length=1, max_length=2_000)]
    context: dict[Identifier, FieldDeclaration] = Field(
        default_factory=dict, max_length=MAX_FIELDS, description="the fields that describe the situation"
    )
    action: dict[Identifier, FieldDeclaration] = Field(
        default_factory=dict, max_length=MAX_FIELDS, description="the fields that describe what the agent wants to do"
    )
    features: dict[Identifier, Expression] = Field(
        default_factory=dict,
        max_length=MAX_FEATURES,
        description="CEL: numbers, booleans or lists of numbers; their order is that of their names",
    )
    hypotheses: HypothesesSpec
    outcome: Outcome
    harm: Expression | None = Field(
        None,
        description="CEL over the outcome: a threshold, an interval, a Boolean, or a set of integers; left out only if "
        "a program says it",
    )
    bound: BoundSpec
    decision: DecisionSpec
    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=200)] = ()
    reporting: ReportingSpec = ReportingSpec()
    mode: Literal["enforce", "shadow"] = Field(
        "enforce", description="shadow only watches: every action is let through, and what was found is logged and said"
    )
    redact: RedactSpec = Field(
        RedactSpec(), description="fields of the context and the action whose values no log and nobody who watches gets"
    )


JSON_SCHEMA_ID = "urn:guardrail:v1:policy"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy file, for editors that complete and check YAML."""
    schema = _closed(PolicySpec.model_json_schema(by_alias=True))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": JSON_SCHEMA_ID,
        **schema,
        "title": "Guardrail policy",
    }


def _closed(schema: Any) -> Any:
    """The schema with every map of named things refusing the names that its pattern does not match."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {**closed, "additionalProperties": False} if "patternProperties" in closed else closed
