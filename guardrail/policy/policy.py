"""A compiled policy: what the guard asks of it, without YAML and without statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guardrail.errors import InvalidInput
from guardrail.policy.expressions import CheckedExpression, EvaluationError, Program
from guardrail.policy.inputs import FieldReader, read_outcome
from guardrail.policy.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from guardrail.domain import HarmEvent, JsonObject
    from guardrail.policy.analysis import FieldRef
    from guardrail.policy.program_source import ProgramSource
    from guardrail.policy.schema import PolicySpec, RuleSpec


@dataclass(frozen=True, slots=True)
class Inputs:
    """A context and an action that fit the policy's declarations: numbers are finite floats."""

    context: JsonObject
    action: JsonObject


@dataclass(frozen=True, slots=True)
class FeatureValues:
    """What the family encodes.

    Attributes:
        numbers: the numeric features, flattened in the policy's order; finite.
        category: the category's value; None if the family has none.
    """

    numbers: tuple[float, ...]
    category: str | int | None


@dataclass(frozen=True, slots=True)
class MatchedRule:
    """The first hard rule that matches.

    Attributes:
        index: its 0-based place in the policy.
        rule: the rule.
    """

    index: int
    rule: RuleSpec

    @property
    def decide(self) -> str:
        """`reject` or `escalate`."""
        return self.rule.decide

    @property
    def reason(self) -> str:
        """The policy author's sentence."""
        return self.rule.reason


@dataclass(frozen=True, slots=True)
class Feature:
    """A compiled feature: one number, or a list of `length` numbers."""

    name: str
    expression: CheckedExpression
    length: int | None

    @property
    def flattened(self) -> tuple[str, ...]:
        """The names of its numbers: `phi[0]`, `phi[1]`, ... for a list."""
        return (self.name,) if self.length is None else tuple(f"{self.name}[{i}]" for i in range(self.length))


@dataclass(frozen=True, slots=True)
class Programs:
    """Everything compiled.

    Attributes:
        context, action: check the inputs.
        features: in the policy's order.
        category: None if the family has none.
        rules: in the policy's order.
        harm: the predicate over the outcome; None if harm is a site of the world model.
        feature_list: all features and the category as one list; None if CEL's limits forbid it.
        any_rule: true if any rule matches; None if there are no rules or CEL's limits forbid it.
    """

    context: FieldReader
    action: FieldReader
    features: tuple[Feature, ...]
    category: CheckedExpression | None
    rules: tuple[CheckedExpression, ...]
    harm: Program | None
    feature_list: Program | None
    any_rule: Program | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A safety specification, checked and compiled. Immutable and safe to share between threads.

    Attributes:
        spec: the validated document; all its mappings are sorted by key.
        document: the YAML text it was read from.
        path: the file it was read from, for messages.
        revision: SHA-256 (hexadecimal) of the validated content; comments, formatting and the
            order of mapping keys do not change it.
        harm: the event whose probability is bounded.
        feature_names: the flattened numeric features, sorted by feature name; the order of `FeatureValues.numbers`.
        programs: the compiled expressions.
        program: the world model's files, if its hypotheses are a program; else None.
    """

    spec: PolicySpec
    document: str = field(repr=False)
    path: str
    revision: str
    harm: HarmEvent
    feature_names: tuple[str, ...]
    programs: Programs = field(repr=False, compare=False)
    program: ProgramSource | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.spec.name

    @property
    def description(self) -> str:
        """What the policy is for."""
        return self.spec.description

    @property
    def outcome_name(self) -> str:
        """The name of the reported outcome."""
        return self.spec.outcome.name

    @property
    def outcome_type(self) -> str:
        """`bool`, `number` or `integer`."""
        return self.spec.outcome.type

    def inputs(self, context: JsonObject, action: JsonObject) -> Inputs:
        """Check a context and an action against the declared fields.

        Numbers become floats, integral numbers become ints for integer fields, absent fields
        (and None) stay absent.

        :raises InvalidInput: UNKNOWN_FIELD, WRONG_TYPE, NOT_FINITE (NaN or infinity anywhere) or
            INPUT_TOO_LARGE (a string, a list or the number of fields).
        """
        return Inputs(self.programs.context.read(context), self.programs.action.read(action))

    def kept_context(self, context: JsonObject) -> JsonObject:
        """A context as it may be logged and told: a mark stands for each redacted value (see `policy.redaction`)."""
        return self._kept(context, self.spec.redact.context, self.spec.context)

    def kept_action(self, action: JsonObject) -> JsonObject:
        """An action as it may be logged and told; as `kept_context`."""
        return self._kept(action, self.spec.redact.action, self.spec.action)

    def _kept(self, values: JsonObject, names: Collection[str], declared: Collection[str]) -> JsonObject:
        redact = self.spec.redact
        return redacted(values, names, declared) if redact.context or redact.action else values

    def match_rule(self, inputs: Inputs) -> MatchedRule | None:
        """The first rule that matches; None if none does.

        :raises InvalidInput: RULE_ERROR if a rule before the first match cannot be evaluated, for
            instance because it reads an absent field.
        """
        programs = self.programs
        if not programs.rules:
            return None
        data = _data(inputs)
        if programs.any_rule is not None:
            try:
                if programs.any_rule.evaluate(data) is False:
                    return None
            except EvaluationError:
                pass  # one by one below, to find the rule, or an earlier match
        for index, expression in enumerate(programs.rules):
            try:
                matched = expression.program.evaluate(data)
            except EvaluationError as error:
                raise self._rule_error(index, _blame(expression, inputs, error)) from error
            if matched is True:
                return MatchedRule(index, self.spec.rules[index])
            if matched is not False:
                raise self._rule_error(index, "is not a bool")
        return None

    def features(self, inputs: Inputs) -> FeatureValues:
        """The numbers and the category that the family encodes.

        :raises InvalidInput: FEATURE_MISSING if a required field is absent, NOT_FINITE if a feature is
            NaN or infinite, FEATURE_ERROR if it cannot be evaluated for another reason.
        """
        programs = self.programs
        self._require_fields(inputs)
        data = _data(inputs)
        values = None
        if programs.feature_list is not None:
            try:
                values = programs.feature_list.evaluate(data)
            except EvaluationError:
                values = None  # one by one below, to find who is to blame
        if type(values) is not list:
            values = self._features_one_by_one(data, inputs)
        category = values.pop() if programs.category is not None else None
        if programs.category is not None and type(category) not in (str, int):
            raise InvalidInput("the category is neither a string nor an integer", "FEATURE_ERROR")
        return FeatureValues(self._flatten(values), category)

    def outcome_value(self, outcome: object) -> float:
        """The outcome as a float in the outcome's unit; 0 or 1 if Boolean, a whole number if an integer.

        Args:
            outcome: `{name: value}` or the bare value.

        :raises InvalidInput: UNKNOWN_FIELD, WRONG_TYPE or NOT_FINITE.
        """
        return read_outcome(outcome, self.spec.outcome)

    def is_harm(self, outcome: object) -> bool | None:
        """Whether a reported outcome is harm, by the policy's own predicate. None if none says so: harm is then a site
        of the world model, a probability that nobody observes.

        Args:
            outcome: `{name: value}` or the bare value.

        :raises InvalidInput: UNKNOWN_FIELD, WRONG_TYPE or NOT_FINITE if it does not fit; INVALID_INPUT if the predicate
            cannot be evaluated.
        """
        value = self.outcome_value(outcome)
        if self.programs.harm is None:
            return None
        typed = {"bool": bool, "integer": int, "number": float}[self.outcome_type](value)
        try:
            happened = self.programs.harm.evaluate({"outcome": {self.outcome_name: typed}})
        except EvaluationError as error:
            raise InvalidInput(f"harm cannot be evaluated for outcome {typed!r}: {error}") from error
        if type(happened) is not bool:
            raise InvalidInput(f"harm is neither true nor false for outcome {typed!r}")
        return happened

    def _require_fields(self, inputs: Inputs) -> None:
        for owner, reader, values in (
            ("context", self.programs.context, inputs.context),
            ("action", self.programs.action, inputs.action),
        ):
            if reader.required <= values.keys():
                continue
            name = min(reader.required - values.keys())
            needed_by = self._features_that_read((owner, name))
            use = f"{needed_by} needs {owner}.{name}, which is absent"
            message = use if needed_by else f"{owner}.{name} is absent and not declared optional"
            raise InvalidInput(message, "FEATURE_MISSING")

    def _features_that_read(self, reference: FieldRef) -> str:
        for feature in self.programs.features:
            if reference in feature.expression.reads:
                return f"feature {feature.name!r}"
        category = self.programs.category
        return "the category" if category is not None and reference in category.reads else ""

    def _features_one_by_one(self, data: Mapping[str, Any], inputs: Inputs) -> list[Any]:
        named = [(f"feature {f.name!r}", f.expression) for f in self.programs.features]
        if self.programs.category is not None:
            named.append(("the category", self.programs.category))
        values = []
        for name, expression in named:
            try:
                values.append(expression.program.evaluate(data))
            except EvaluationError as error:
                reason = "FEATURE_MISSING" if _absent(expression, inputs) else "FEATURE_ERROR"
                raise InvalidInput(f"{name} {_blame(expression, inputs, error)}", reason) from error
        return values

    def _flatten(self, values: Sequence[Any]) -> tuple[float, ...]:
        numbers: list[float] = []
        for feature, value in zip(self.programs.features, values, strict=True):
            elements = [value] if feature.length is None else value
            if type(elements) is not list or (feature.length is not None and len(elements) != feature.length):
                raise InvalidInput(f"feature {feature.name!r} has not the declared shape", "FEATURE_ERROR")
            if not all(type(element) in (float, int, bool) for element in elements):
                raise InvalidInput(f"feature {feature.name!r} is not a number", "FEATURE_ERROR")
            numbers.extend(map(float, elements))
        if not all(map(math.isfinite, numbers)):
            name = next(n for n, v in zip(self.feature_names, numbers, strict=True) if not math.isfinite(v))
            raise InvalidInput(f"feature {name!r} is not a finite number", "NOT_FINITE")
        return tuple(numbers)

    def _rule_error(self, index: int, why: str) -> InvalidInput:
        return InvalidInput(f"rule {index + 1} ({self.spec.rules[index].reason}) {why}", "RULE_ERROR")


def _data(inputs: Inputs) -> Mapping[str, Any]:
    return {"context": inputs.context, "action": inputs.action}


def _absent(expression: CheckedExpression, inputs: Inputs) -> list[FieldRef]:
    data = _data(inputs)
    return sorted((owner, name) for owner, name in expression.reads if name not in data[owner])


def _blame(expression: CheckedExpression, inputs: Inputs, error: EvaluationError) -> str:
    absent = _absent(expression, inputs)
    if absent:
        return f"needs {absent[0][0]}.{absent[0][1]}, which is absent"
    return f"cannot be evaluated: {error}"
