"""What must fit together between the parts of a policy. Each check yields every problem it finds.

A part that is itself wrong is None, and the checks that need it are silent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guardrail.domain import ModelHarm
from guardrail.policy.memory_checks import finite_mdp, hidden_markov
from guardrail.policy.memory_schema import FiniteMdp, HiddenMarkov
from guardrail.policy.program_checks import program
from guardrail.policy.program_schema import NumpyroProgram, ProgramSpec, PyroProgram
from guardrail.policy.schema import (
    MAX_FEATURES,
    MAX_HYPOTHESES,
    BernoulliLogistic,
    BetaBernoulli,
    CoefficientGrid,
    FiniteTable,
    GaussianLinear,
    LinearGaussianLattice,
    PredictiveBound,
    ProductPrior,
    RatioBound,
)
from guardrail.policy.table_checks import beta_bernoulli, finite_table, sums_to_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guardrail.errors import Problem
    from guardrail.policy.document import Document
    from guardrail.policy.parts import Parts

MAX_LOGISTIC_FEATURES = 4


def problems(parts: Parts) -> Iterator[Problem]:
    """Everything that does not fit together."""
    yield from _thresholds(parts)
    yield from _outcome_fits_family(parts)
    yield from _bound_fits_family(parts)
    yield from _reporting(parts)
    family = parts.hypotheses
    if family is None:
        return
    check = _FAMILY_CHECKS[type(family)]
    yield from check(parts, family)


def _thresholds(parts: Parts) -> Iterator[Problem]:
    decision = parts.decision
    if decision is None or decision.escalate_above is None:
        return
    if not decision.escalate_above < decision.reject_above:
        message = (
            f"escalate_above {decision.escalate_above:g} is not below reject_above {decision.reject_above:g}, "
            "so nothing would be escalated; lower it or leave it out"
        )
        yield parts.document.problem(("decision", "escalate_above"), message)


def _reporting(parts: Parts) -> Iterator[Problem]:
    reporting, route = parts.reporting, ("reporting", "overdue")
    if reporting is None:
        return
    if reporting.within is None and "overdue" in reporting.model_fields_set:
        message = "nothing is ever overdue without a time for reports; add reporting.within, for instance 15m"
        yield parts.document.problem(route, message)
    if reporting.overdue != "assume_harm" or parts.hypotheses is None or parts.outcome is None:
        return
    if isinstance(parts.hypotheses, FiniteMdp):
        what = "harm lies some steps ahead, and which state came next cannot be assumed"
    elif parts.outcome.type != "bool":
        what = f"{_a(parts.outcome.type)} outcome has no one value that stands for harm"
    elif isinstance(parts.harm, ModelHarm):
        what = "harm is a site of the program, and no outcome stands for it"
    else:
        return
    message = f"{what}; assume_harm takes a bool outcome and harm as a predicate on it: use reject or escalate"
    yield parts.document.problem(route, message)


def _outcome_fits_family(parts: Parts) -> Iterator[Problem]:
    family, outcome = parts.hypotheses, parts.outcome
    if family is None or outcome is None:
        return
    if isinstance(family, FiniteTable | HiddenMarkov | ProgramSpec):
        # bool or number: each row of the table, or the program, says which, and is checked there.
        if outcome.type != "integer":
            return
        needed = "bool or number"
    elif isinstance(family, FiniteMdp):
        needed = "integer"
    else:
        needed = "bool" if isinstance(family, (BernoulliLogistic, BetaBernoulli)) else "number"
    if outcome.type != needed:
        message = f"family {family.family} models {_a(needed)} outcome, not {_a(outcome.type)}; change one of them"
        yield parts.document.problem(("outcome", "type"), message)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _bound_fits_family(parts: Parts) -> Iterator[Problem]:
    family, bound, document = parts.hypotheses, parts.bound, parts.document
    if not isinstance(family, (BetaBernoulli, GaussianLinear)) or bound is None:
        return
    if not isinstance(bound, (PredictiveBound, RatioBound)):
        message = (
            f"family {family.family} is continuous, so a single hypothesis has no posterior mass and the kinds "
            "plausible and iid do not apply; use ratio or predictive"
        )
        yield document.problem(("bound", "kind"), message)
    if isinstance(family, GaussianLinear) and isinstance(bound, RatioBound) and bound.running:
        message = "an intersection of ellipsoids has no closed form, so gaussian-linear needs running: false"
        yield document.problem(("bound", "running"), message)


# ---------------------------------------------------------------- families


def _lattice(parts: Parts, family: LinearGaussianLattice) -> Iterator[Problem]:
    yield from _needs_features(parts, family.family, MAX_FEATURES)
    document = parts.document
    dimension = _dimension(parts)
    if dimension and dimension * math.log(family.levels) > math.log(MAX_HYPOTHESES) + 1e-9:
        message = (
            f"{family.levels} levels for each of {dimension} features are {family.levels}^{dimension} hypotheses, "
            f"at most {MAX_HYPOTHESES} are allowed; use fewer levels or features"
        )
        yield document.problem(("hypotheses", "levels"), message)
    if isinstance(family.prior, ProductPrior):
        masses = family.prior.probabilities
        route = ("hypotheses", "prior", "probabilities")
        if len(masses) != family.levels:
            yield document.problem(route, f"has {len(masses)} probabilities for {family.levels} levels; give one each")
        yield from sums_to_one(document, route, masses, "the probabilities")


def _logistic(parts: Parts, family: BernoulliLogistic) -> Iterator[Problem]:
    document = parts.document
    yield from _needs_features(parts, family.family, MAX_LOGISTIC_FEATURES)
    yield from _grid(document, ("hypotheses", "intercept"), family.intercept)
    for name, grid in family.coefficients.items():
        yield from _grid(document, ("hypotheses", "coefficients", name), grid)
    size = math.prod(grid.points for grid in (family.intercept, *family.coefficients.values()))
    if size > MAX_HYPOTHESES:
        message = f"the grid has {size} hypotheses, at most {MAX_HYPOTHESES} are allowed; use fewer points"
        yield document.key_problem(("hypotheses", "coefficients"), message)
    if parts.features is None:
        return
    names = {feature.name for feature in parts.features}
    for name in sorted(names - family.coefficients.keys()):
        message = f"feature {name!r} has no coefficient; add hypotheses.coefficients.{name}"
        yield document.key_problem(("features", name), message)
    for name in sorted(family.coefficients.keys() - names):
        message = f"coefficient {name!r} belongs to no feature; add features.{name} or leave it out"
        yield document.key_problem(("hypotheses", "coefficients", name), message)
    for feature in parts.features:
        if feature.length is not None:
            message = "a coefficient belongs to one number, this feature is a list; make one feature of each element"
            yield document.problem(("features", feature.name), message)


def _grid(document: Document, route: tuple[str, ...], grid: CoefficientGrid) -> Iterator[Problem]:
    if grid.points == 1:
        if grid.lower != grid.upper:
            message = "one point needs lower equal to upper; use more points, or make them equal"
            yield document.problem((*route, "points"), message)
    elif not grid.lower < grid.upper:
        message = f"lower {grid.lower:g} is not below upper {grid.upper:g}; swap them, or use points: 1"
        yield document.problem((*route, "lower"), message)


def _gaussian_linear(parts: Parts, family: GaussianLinear) -> Iterator[Problem]:
    yield from _needs_features(parts, family.family, MAX_FEATURES)
    if family.box is not None and not family.box.lower < family.box.upper:
        message = f"lower {family.box.lower:g} is not below upper {family.box.upper:g}; swap them"
        yield parts.document.problem(("hypotheses", "box", "lower"), message)
    if family.box is not None and isinstance(parts.bound, PredictiveBound):
        message = "a box has no effect on the predictive bound; leave it out, or use bound kind ratio"
        yield parts.document.problem(("hypotheses", "box"), message)


_FAMILY_CHECKS: dict[type, Callable[..., Iterator[Problem]]] = {
    FiniteTable: finite_table,
    BetaBernoulli: beta_bernoulli,
    LinearGaussianLattice: _lattice,
    BernoulliLogistic: _logistic,
    GaussianLinear: _gaussian_linear,
    HiddenMarkov: hidden_markov,
    FiniteMdp: finite_mdp,
    NumpyroProgram: program,
    PyroProgram: program,
}


# ---------------------------------------------------------------- shared


def _dimension(parts: Parts) -> int | None:
    if parts.features is None:
        return None
    return sum(1 if feature.length is None else feature.length for feature in parts.features)


def _needs_features(parts: Parts, family: str, most: int) -> Iterator[Problem]:
    dimension = _dimension(parts)
    if dimension == 0:
        message = f"family {family} needs at least one feature; add features"
        yield parts.document.problem(("hypotheses", "family"), message)
    elif dimension is not None and dimension > most:
        message = f"family {family} takes at most {most} numbers, the features are {dimension}; use fewer"
        yield parts.document.key_problem(("features",), message)
