"""Reads, checks and compiles policy files. Everything wrong is found in one run, with its position."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from pydantic import BaseModel, ValidationError, create_model

from guardrail.domain import ModelHarm
from guardrail.errors import PolicyError, Problem
from guardrail.policy import checks, redaction, wording
from guardrail.policy.analysis import MAX_POLICY_COST, FieldRef, Finding, fields_tested, is_numeric, list_length
from guardrail.policy.document import Document, Route, in_order
from guardrail.policy.expressions import CheckedExpression, Environment, Program
from guardrail.policy.harm import harm_event, integer_event
from guardrail.policy.inputs import FieldReader
from guardrail.policy.memory_schema import IntegerOutcomeSpec
from guardrail.policy.parts import FeatureShape, Parts
from guardrail.policy.policy import Feature, Policy, Programs
from guardrail.policy.program_schema import ProgramSpec
from guardrail.policy.program_source import ProgramSource, read_program
from guardrail.policy.reporting_schema import ReportingSpec
from guardrail.policy.schema import (
    EscalationSpec,
    FieldDeclaration,
    FieldSpec,
    Outcome,
    PolicySpec,
    RedactSpec,
)
from guardrail.policy.schema_base import MAX_EXPRESSION_LENGTH, Model
from guardrail.policy.yaml_source import read_document, read_file

if TYPE_CHECKING:
    from guardrail.domain import HarmEvent

_SCALAR_LISTS = "a number, a bool or a list of numbers"


def load_policy(path: str | Path) -> Policy:
    """Read, check and compile a policy file.

    :raises PolicyError: if the file cannot be read or the policy is wrong; holds every problem.
    """
    return parse_policy(read_file(Path(path)), str(path), folder=Path(path).parent)


def parse_policy(text: str, path: str = "policy.yaml", *, folder: Path | None = None) -> Policy:
    """Check and compile a policy document.

    Args:
        text: the YAML document.
        path: what to call it in messages.
        folder: where the files lie that it names; without it a policy that names a program is refused.

    :raises PolicyError: if the policy is wrong; holds every problem.
    """
    draft = _Draft(read_document(text, path), folder)
    spec = draft.check()
    if spec is None or draft.harm is None:
        raise PolicyError(in_order(draft.document, draft.problems))
    programs = _programs(draft, spec)
    names = tuple(name for feature in programs.features for name in feature.flattened)
    digest = None if draft.program is None else draft.program.digest
    return Policy(spec, text, path, revision(spec, digest), draft.harm, names, programs, draft.program)


_WHAT_HOLDS_ANYWAY: Final[dict[tuple[str, ...], object]] = {
    ("reporting", "within"): None,
    ("reporting", "overdue"): "reject",
    ("reporting",): ReportingSpec(),
    ("mode",): "enforce",
    ("decision", "escalation"): EscalationSpec(),
    ("decision", "budget"): None,
    ("redact",): RedactSpec(),
}
"""Saying it makes no other policy, and data logged before policies could say it stays under its revision."""


def revision(spec: PolicySpec, program: str | None = None) -> str:
    """SHA-256 (hexadecimal) of the canonical JSON of a validated policy, and of its program's digest if it has one."""
    plain = spec.model_dump(by_alias=True)
    for (*sections, name), default in _WHAT_HOLDS_ANYWAY.items():
        owner, part = plain, spec
        for section in sections:
            owner, part = owner[section], getattr(part, section)
        if getattr(part, name) == default:
            del owner[name]
    text = json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"))
    if program is not None:
        text += program
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    # JSON has text keys only: writing them as JSON keeps the category 1 apart from the category "1".
    if isinstance(value, Mapping):
        return {json.dumps(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value


@dataclass
class _Draft:
    """A policy while it is being checked: what is right so far, and what is wrong."""

    document: Document
    folder: Path | None = None
    problems: list[Problem] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    environment: Environment | None = None
    features: dict[str, CheckedExpression] = field(default_factory=dict)
    lengths: dict[str, int | None] = field(default_factory=dict)
    category: CheckedExpression | None = None
    rules: list[CheckedExpression] = field(default_factory=list)
    harm: HarmEvent | None = None
    harm_program: Program | None = None
    program: ProgramSource | None = None
    costs: dict[Route, float] = field(default_factory=dict)
    used: dict[Route, frozenset[FieldRef]] = field(default_factory=dict)
    data: dict[Any, Any] = field(default_factory=dict)

    def check(self) -> PolicySpec | None:
        """Check everything; the validated policy, or None if anything is wrong."""
        self.problems.extend(self.document.problems)
        self.data = self.document.root.data()
        spec = self._check_shape()
        self._check_declarations()
        if self.environment is not None:
            self._check_expressions(self.environment)
        self._check_harm()
        self._check_redaction()
        self._read_program()
        self.problems.extend(checks.problems(self._parts()))
        return spec if not self.problems else None

    def _check_shape(self) -> PolicySpec | None:
        try:
            spec = PolicySpec.model_validate(self.data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            self.problems.extend(wording.problems(self.document, PolicySpec, found))
        else:
            self.sections = {name: getattr(spec, name) for name in PolicySpec.model_fields}
            return spec
        for name, model in _section_models().items():
            alias = PolicySpec.model_fields[name].alias or name
            part = {alias: self.data[alias]} if alias in self.data else {}
            try:
                self.sections[name] = getattr(model.model_validate(part), name)
            except ValidationError:
                self.sections[name] = None
        return None

    def _check_declarations(self) -> None:
        inputs = {}
        for owner in ("context", "action"):
            declared = self.sections[owner]
            if declared is None:
                return
            inputs[owner] = {name: _field(value) for name, value in declared.items()}
            for name, spec in inputs[owner].items():
                if (spec.type == "list") != (spec.length is not None):
                    message = "a list needs a length" if spec.type == "list" else f"a {spec.type} has no length"
                    self._at((owner, name), f"{message}; write {{type: list, length: N}} or drop it")
        self.environment = Environment(inputs)

    def _check_expressions(self, environment: Environment) -> None:
        for name, text in _texts(self.data.get("features")):
            checked = self._checked(environment, ("features", name), text)
            if checked is not None and self._has_shape(environment, ("features", name), checked):
                self.features[str(name)] = checked
                self.lengths[str(name)] = list_length(checked.tree, environment.inputs)
        family = self.data.get("hypotheses")
        category = family.get("category") if isinstance(family, dict) else None
        if _is_expression(category):
            self.category = self._checked(environment, ("hypotheses", "category"), category)
            if self.category is not None and self.category.tree.type not in ("string", "int"):
                self._at(("hypotheses", "category"), f"needs a string or an integer, this is {self.category.tree.type}")
                self.category = None
        rules = self.data.get("rules")
        for index, rule in enumerate(rules if isinstance(rules, tuple) else ()):
            if isinstance(rule, dict) and _is_expression(rule.get("when")):
                checked = self._checked(environment, ("rules", index, "when"), rule["when"])
                if checked is not None and checked.tree.type != "bool":
                    self._at(("rules", index, "when"), f"a rule needs true or false, this is {checked.tree.type}")
                elif checked is not None:
                    self.rules.append(checked)
        self._check_cost()

    def _checked(self, environment: Environment, route: Route, text: str) -> CheckedExpression | None:
        checked = environment.check(text)
        if isinstance(checked, CheckedExpression):
            self.costs[route] = checked.cost
            self.used[route] = checked.reads | fields_tested(checked.tree, environment.inputs)
            return checked
        for finding in checked:
            self._inside(route, finding)
        return None

    def _has_shape(self, environment: Environment, route: Route, checked: CheckedExpression) -> bool:
        type_ = checked.tree.type
        if not is_numeric(type_):
            mixed = "; write 1.0 instead of 1 where numbers are mixed" if type_.startswith("list(") else ""
            self._at(route, f"a feature must be {_SCALAR_LISTS}, this is {type_}{mixed}")
            return False
        if type_.startswith("list(") and not list_length(checked.tree, environment.inputs):
            self._at(route, "the list's length is not known in advance, or zero; use a declared list, [...], map or +")
            return False
        return True

    def _check_cost(self) -> None:
        total = sum(self.costs.values())
        if total > MAX_POLICY_COST:
            message = (
                f"the expressions can take {total:.2g} steps on the largest inputs, this one the most; at most "
                f"{MAX_POLICY_COST} are allowed: use shorter lists, no loop over long ones, or fewer expressions"
            )
            self._at(max(self.costs, key=lambda route: self.costs[route]), message)

    def _check_harm(self) -> None:
        outcome: Outcome | None = self.sections["outcome"]
        text = self.data.get("harm")
        if text is None and self.sections["hypotheses"] is not None:  # `harm:` with nothing behind it says nothing
            self._harm_of_model()
        if outcome is None or not _is_expression(text):
            return
        environment = Environment({"outcome": {outcome.name: FieldSpec(type=outcome.type)}})
        checked = self._checked(environment, ("harm",), text)
        if checked is None:
            return
        if isinstance(outcome, IntegerOutcomeSpec):
            event = integer_event(checked.tree, checked.program, outcome.name, outcome.count)
        else:
            event = harm_event(checked.tree, outcome.name, outcome.type)
        if isinstance(event, Finding):
            self._inside(("harm",), event)
        else:
            self.harm, self.harm_program = event, checked.program

    def _harm_of_model(self) -> None:
        if isinstance(self.sections["hypotheses"], ProgramSpec):
            self.harm = ModelHarm()
        else:
            self._at((), "field 'harm' is missing; add it (only a program can have a site of that name instead)")

    def _check_redaction(self) -> None:
        redact = self.sections["redact"]
        if redact is not None and self.environment is not None:
            for route, message in redaction.problems(redact, self.environment.inputs, self.used):
                self._at(route, message)

    def _read_program(self) -> None:
        family = self.sections["hypotheses"]
        if not isinstance(family, ProgramSpec):
            return
        if self.folder is None:
            message = (
                "names a program, and a program is code: it is read only from the folder of a policy file, never from "
                "a policy's text alone; save the policy beside its program and load the file"
            )
            self._at(("hypotheses", "model"), message)
            return
        found = read_program(family, self.folder)
        if isinstance(found, ProgramSource):
            self.program = found
        else:
            self.problems.extend(self.document.problem(("hypotheses", *key), message) for key, message in found)

    def _parts(self) -> Parts:
        declared = self.sections["features"]
        known = declared is not None and self.environment is not None and declared.keys() == self.features.keys()
        shapes = [FeatureShape(name, self.lengths[name]) for name in self.features] if known else None
        return Parts(
            document=self.document,
            hypotheses=self.sections["hypotheses"],
            outcome=self.sections["outcome"],
            bound=self.sections["bound"],
            decision=self.sections["decision"],
            reporting=self.sections["reporting"],
            harm=self.harm,
            features=shapes,
            category_type=self.category.tree.type if self.category is not None else None,
        )

    def _at(self, route: Route, message: str) -> None:
        self.problems.append(self.document.problem(route, message))

    def _inside(self, route: Route, finding: Finding) -> None:
        self.problems.append(self.document.problem_inside(route, finding.offset, finding.message))


@cache
def _section_models() -> dict[str, type[BaseModel]]:
    """For each field of a policy a model of that field alone, to know which parts are right."""
    models: dict[str, type[BaseModel]] = {}
    for name, info in PolicySpec.model_fields.items():
        definition: Any = (info.annotation, info)
        models[name] = create_model(f"Only_{name}", __base__=Model, **{name: definition})
    return models


def _field(declaration: FieldDeclaration) -> FieldSpec:
    return declaration if isinstance(declaration, FieldSpec) else FieldSpec(type=declaration)


def _is_expression(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_EXPRESSION_LENGTH


def _texts(section: object) -> list[tuple[str | int, str]]:
    if not isinstance(section, dict):
        return []
    return [(name, text) for name, text in section.items() if _is_expression(text)]


def _programs(draft: _Draft, spec: PolicySpec) -> Programs:
    environment = draft.environment
    assert environment is not None
    features = tuple(Feature(name, draft.features[name], draft.lengths[name]) for name in spec.features)
    outputs = [feature.expression.program.text for feature in features]
    if draft.category is not None:
        outputs.append(draft.category.program.text)
    rules = tuple(draft.rules)
    return Programs(
        context=FieldReader("context", environment.inputs["context"], spec.redact.context),
        action=FieldReader("action", environment.inputs["action"], spec.redact.action),
        features=features,
        category=draft.category,
        rules=rules,
        harm=draft.harm_program,
        feature_list=environment.combine("[]", outputs),
        any_rule=environment.combine(" || ", [rule.program.text for rule in rules]) if rules else None,
    )
