"""Warnings: a policy that is valid but promises or does less than its author may think."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guardrail.policy.analysis import fields_tested
from guardrail.policy.document import Document, Route, in_order
from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov
from guardrail.policy.mixture import combinations
from guardrail.policy.program_schema import GridUse, PosteriorUse, ProgramSpec, SampledUse
from guardrail.policy.schema import (
    BernoulliLogistic,
    CoefficientGrid,
    FieldSpec,
    FiniteTable,
    GaussianLinear,
    LinearGaussianLattice,
    PlausibleBound,
    ProductPrior,
    RatioBound,
)
from guardrail.policy.yaml_source import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.errors import Problem
    from guardrail.policy.policy import Policy


def lint(policy: Policy) -> list[Problem]:
    """Everything worth a second look, sorted by position; empty if there is nothing."""
    document = read_document(policy.document, policy.path)
    found = [*_guarantee(policy, document), *_thresholds(policy, document), *_budget(policy, document)]
    found += [*_fields(policy, document), *_rules(policy, document), *_class(policy, document)]
    return in_order(document, found)


def log_smallest_prior(policy: Policy) -> float | None:
    """Natural logarithm of the smallest prior mass of a hypothesis; None for a continuous class."""
    family, dimension = policy.spec.hypotheses, len(policy.feature_names)
    if isinstance(family, FiniteMdp) and family.mixture is not None:
        return -math.log(sum(1 for _ in combinations(family.mixture)))
    if isinstance(family, FiniteTable | HiddenMarkov | FiniteMdp):
        table = family.table or ()
        masses = [row.prior for row in table if row.prior is not None]
        return math.log(min(masses)) if masses else -math.log(len(table))
    if isinstance(family, LinearGaussianLattice):
        if isinstance(family.prior, ProductPrior):
            return dimension * math.log(min(family.prior.probabilities))
        return -dimension * math.log(family.levels)
    if isinstance(family, ProgramSpec):
        if isinstance(family.use, GridUse) and isinstance(family.use.points, dict):
            return -sum(map(math.log, family.use.points.values()))
        return -math.log(family.use.draws) if isinstance(family.use, SampledUse) else None
    if isinstance(family, BernoulliLogistic):
        return sum(map(_log_smallest_mass, (family.intercept, *family.coefficients.values())))
    return None


def _log_smallest_mass(grid: CoefficientGrid) -> float:
    step = (grid.upper - grid.lower) / max(grid.points - 1, 1)
    logs = [-0.5 * ((grid.lower + i * step - grid.mean) / grid.sd) ** 2 for i in range(grid.points)]
    top = max(logs)
    return min(logs) - top - math.log(math.fsum(math.exp(log - top) for log in logs))


def _guarantee(policy: Policy, document: Document) -> Iterator[Problem]:
    if policy.spec.mode == "shadow":
        yield document.problem(("mode",), "in shadow mode every action is let through; `enforce` ends that")
    if policy.spec.reporting.self_report:
        message = (
            "an agent that reports its own outcomes can argue itself into permission; the guarantee assumes that it "
            "does not, and says so"
        )
        yield document.problem(("reporting", "self_report"), message)
    if policy.spec.reporting.within is not None and policy.spec.mode == "shadow":
        message = "in shadow mode no outcome is awaited: what is let through is not what the policy accepts"
        yield document.problem(("reporting", "within"), message)
    if policy.spec.reporting.overdue == "assume_harm":
        message = (
            "one outcome that is taken for harm without having been seen ends the guarantee of its world until a "
            "reset; reject and escalate keep it"
        )
        yield document.problem(("reporting", "overdue"), message)
    bound, route = policy.spec.bound, ("bound", "kind")
    if bound.kind == "predictive":
        yield document.problem(route, "predictive harm has no guarantee; kind ratio holds with confidence 1 - delta")
    elif bound.kind == "iid":
        message = "the iid bound holds only from some unknown time on, for i.i.d. data; kind ratio holds at all times"
        yield document.problem(route, message)
    elif isinstance(bound, PlausibleBound):
        smallest = log_smallest_prior(policy)
        if smallest is not None and math.log(bound.alpha) - smallest >= 0:
            message = (
                f"alpha {bound.alpha:g} is not below the smallest prior mass {math.exp(smallest):.3g}, so the "
                "confidence 1 - alpha / (smallest prior mass) is 0; lower alpha, or use kind ratio"
            )
            yield document.problem(("bound", "alpha"), message)


def _thresholds(policy: Policy, document: Document) -> Iterator[Problem]:
    threshold = policy.spec.decision.reject_above
    if threshold >= 1:
        message = "no harm bound exceeds 1, so the bound rejects nothing; lower it"
        yield document.problem(("decision", "reject_above"), message)
    elif threshold == 0:
        message = "any positive harm bound exceeds 0, so nearly everything is rejected; raise it"
        yield document.problem(("decision", "reject_above"), message)


def _budget(policy: Policy, document: Document) -> Iterator[Problem]:
    decision, bound = policy.spec.decision, policy.spec.bound
    if decision.budget is None:
        return
    route, total = ("decision", "budget", "total"), decision.budget.total
    least = decision.reject_above if decision.escalate_above is None else decision.escalate_above
    if total < least:
        message = f"a bound of up to {least:g} would be accepted, but none above {total:g} ever fits in the budget"
        yield document.problem(route, message)
    smallest = log_smallest_prior(policy)
    delta = bound.delta if isinstance(bound, RatioBound) else None
    if isinstance(bound, PlausibleBound) and smallest is not None:
        delta = bound.alpha / math.exp(smallest) if smallest > -700 else 1.0
    if delta is None:
        message = "the bound promises nothing at all times at once, so neither does a sum of bounds; ratio does"
        yield document.key_problem(("decision", "budget"), message)
    elif delta + total >= 1:
        message = (
            f"delta and the total add up to {delta + total:.4g}: that any harm happens with at most this says nothing"
        )
        yield document.problem(route, message)


def _fields(policy: Policy, document: Document) -> Iterator[Problem]:
    programs = policy.programs
    expressions = [feature.expression for feature in programs.features] + list(programs.rules)
    if programs.category is not None:
        expressions.append(programs.category)
    inputs = {"context": policy.spec.context, "action": policy.spec.action}
    declared = {owner: {name: FieldSpec(type="number") for name in fields} for owner, fields in inputs.items()}
    read = {reference for expression in expressions for reference in expression.reads}
    tested = {reference for expression in expressions for reference in fields_tested(expression.tree, declared)}
    for owner, fields in inputs.items():
        for name, declaration in fields.items():
            if name in getattr(policy.spec.redact, owner):
                continue
            if (owner, name) not in read | tested:
                message = f"{owner}.{name} is declared but nothing uses it; it is only logged"
                yield document.key_problem((owner, name), message)
            elif isinstance(declaration, FieldSpec) and declaration.optional and (owner, name) not in tested:
                message = (
                    f"{owner}.{name} is optional, but nothing tests has({owner}.{name}), so a check without it is "
                    "rejected as if it were required"
                )
                yield document.key_problem((owner, name), message)


def _rules(policy: Policy, document: Document) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, rule in enumerate(policy.spec.rules):
        if rule.when in first:
            message = f"rule {index + 1} never matches: rule {first[rule.when] + 1} has the same condition"
            yield document.problem(("rules", index, "when"), message)
        first.setdefault(rule.when, index)
        if not policy.programs.rules[index].reads and not _tests_anything(policy, index):
            message = "this condition reads no field, so it is the same for every action"
            yield document.problem(("rules", index, "when"), message)


def _tests_anything(policy: Policy, index: int) -> bool:
    return any(node.kind == "has" for node in policy.programs.rules[index].tree.walk())


def _class(policy: Policy, document: Document) -> Iterator[Problem]:
    family = policy.spec.hypotheses
    route: Route = ("hypotheses",)
    if isinstance(family, FiniteTable | HiddenMarkov | FiniteMdp) and len(family.table or ()) == 1:
        yield document.problem((*route, "table"), "one hypothesis only: nothing can be learned from outcomes")
    if isinstance(family, ProgramSpec) and isinstance(family.use, PosteriorUse):
        message = "the posterior is approximated, so every bound is an estimate; sampled and grid have a theorem"
        yield document.problem((*route, "use", "kind"), message)
    if isinstance(family, ProgramSpec) and family.monte_carlo is not None:
        message = (
            "harm is simulated, so every bound is an estimate; an outcome with a cdf, or a site harm, has a theorem"
        )
        yield document.problem((*route, "monte_carlo"), message)
    if isinstance(family, ProgramSpec) and not family.prior_predictive.inputs:
        message = (
            "no example inputs are given, so the program is tried with every feature 1.0; add prior_predictive.inputs"
        )
        yield document.key_problem((*route, "prior_predictive"), message)
    if isinstance(family, GaussianLinear) and family.box is None and isinstance(policy.spec.bound, RatioBound):
        message = (
            "without a box the bound of an action is 1 until outcomes determine its direction; "
            "add hypotheses.box if a range of the weights can be assumed"
        )
        yield document.problem((*route, "family"), message)
