"""What must fit together in the families with states: hidden Markov models and finite Markov decision processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guardrail.policy import mixture as mixtures
from guardrail.policy.memory_schema import (
    FiniteMdp,
    HiddenMarkov,
    HiddenMarkovHypothesis,
    IntegerOutcomeSpec,
    KernelMixture,
)
from guardrail.policy.schema import PRIOR_SUM_TOLERANCE
from guardrail.policy.schema_base import CategoryKey
from guardrail.policy.table_checks import category_type, listed, no_features, repeated, sums_to_one, table_priors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guardrail.errors import Problem
    from guardrail.policy.document import Route
    from guardrail.policy.memory_schema import Kernel
    from guardrail.policy.parts import Parts

MDP_FEATURES = ("action", "state")
_EMISSIONS = ("rates", "normals")


# ---------------------------------------------------------------- hidden Markov models


def hidden_markov(parts: Parts, family: HiddenMarkov) -> Iterator[Problem]:
    """What does not fit in a table of hidden Markov models."""
    document, table = parts.document, ("hypotheses", "table")
    yield from no_features(parts, family.family)
    yield from repeated(document, table, [row.name for row in family.table], "name")
    yield from table_priors(parts, [(row.name, row.prior) for row in family.table])
    wanted = {"bool": "rates", "number": "normals"}.get(parts.outcome.type) if parts.outcome else None
    for index, row in enumerate(family.table):
        route = (*table, index)
        given = [kind for kind in _EMISSIONS if getattr(row, kind) is not None]
        if len(given) != 1:
            what = "both rates and normals" if given else "neither rates nor normals"
            yield document.problem(route, f"hypothesis {row.name!r} gives {what}; give exactly one")
        elif wanted is not None and given[0] != wanted and parts.outcome is not None:
            message = f"a {parts.outcome.type} outcome needs {wanted}, hypothesis {row.name!r} gives {given[0]}"
            yield document.key_problem((*route, given[0]), message)
        yield from sums_to_one(document, (*route, "initial"), row.initial, "the probabilities")
        yield from _states_of(parts, route, row)
    yield from _categories(parts, family)
    states = max(len(row.initial) for row in family.table)
    named = [keys for row in family.table for keys in hidden_markov_categories(row).values()]
    entries = len(family.table) * states**2 * max(map(len, named), default=1)
    if entries > mixtures.MAX_ENTRIES:
        message = (
            f"hypotheses x states x states x categories are {entries}, at most {mixtures.MAX_ENTRIES} are allowed; "
            "use fewer hypotheses, states or categories"
        )
        yield document.key_problem(table, message)


def _states_of(parts: Parts, route: Route, row: HiddenMarkovHypothesis) -> Iterator[Problem]:
    count, document = len(row.initial), parts.document
    for at, matrix in _per_category((*route, "transitions"), row.transitions):
        if len(matrix) != count:
            yield document.problem(at, f"has {len(matrix)} rows for {count} hidden states; give one each")
        for place, chances in enumerate(matrix):
            if len(chances) != count:
                message = f"has {len(chances)} probabilities for {count} hidden states; give one each"
                yield document.problem((*at, place), message)
            yield from sums_to_one(document, (*at, place), chances, "the probabilities")
    for kind in _EMISSIONS:
        for at, values in _per_category((*route, kind), getattr(row, kind)):
            if values is not None and len(values) != count:
                yield document.problem(at, f"has {len(values)} entries for {count} hidden states; give one each")


def _per_category(route: Route, values: object) -> Iterator[tuple[Route, Sequence[Sequence[float]]]]:
    named = [((*route, key), value) for key, value in values.items()] if isinstance(values, dict) else [(route, values)]
    yield from named  # type: ignore[misc]


def hidden_markov_categories(row: HiddenMarkovHypothesis) -> dict[str, tuple[CategoryKey, ...]]:
    """The categories that each part of a hypothesis tells apart; parts that tell none apart are left out."""
    parts = {name: getattr(row, name) for name in ("transitions", *_EMISSIONS)}
    return {name: tuple(values) for name, values in parts.items() if isinstance(values, dict)}


def _categories(parts: Parts, family: HiddenMarkov) -> Iterator[Problem]:
    document = parts.document
    keyed = [
        (("hypotheses", "table", index, name), keys)
        for index, row in enumerate(family.table)
        for name, keys in hidden_markov_categories(row).items()
    ]
    if family.category is None:
        for route, _ in keyed:
            message = "tells categories apart, but no category is given; add hypotheses.category"
            yield document.key_problem(route, message)
        return
    if not keyed:
        message = "no hypothesis tells categories apart, so the category has no effect; leave it out"
        yield document.key_problem(("hypotheses", "category"), message)
        return
    first = set(keyed[0][1])
    for route, keys in keyed:
        if not keys:
            yield document.problem(route, "names no category; name at least one")
        elif set(keys) != first and first:
            missing, extra = first - set(keys), set(keys) - first
            detail = f"lacks {listed(missing)}" if missing else f"adds {listed(extra)}"
            yield document.problem(route, f"categories differ from those named first: {detail}")
        else:
            for key in keys:
                yield from category_type(parts, (*route, key), key)


# ---------------------------------------------------------------- finite Markov decision processes


def finite_mdp(parts: Parts, family: FiniteMdp) -> Iterator[Problem]:
    """What does not fit in a class of finite Markov decision processes."""
    document = parts.document
    yield from _mdp_features(parts)
    if (family.table is None) == (family.mixture is None):
        what = "neither a table nor a mixture" if family.table is None else "both a table and a mixture"
        yield document.key_problem(("hypotheses",), f"the hypotheses are given by {what}; give exactly one")
        return
    kernels: list[tuple[Route, Kernel]]
    if family.table is not None:
        table = ("hypotheses", "table")
        yield from repeated(document, table, [row.name for row in family.table], "name")
        yield from table_priors(parts, [(row.name, row.prior) for row in family.table])
        kernels = [((*table, index, "kernel"), row.kernel) for index, row in enumerate(family.table)]
    else:
        assert family.mixture is not None
        route = ("hypotheses", "mixture")
        kernels = [((*route, "kernels", name), kernel) for name, kernel in family.mixture.kernels.items()]
        wrong = list(_mixture(parts, family.mixture))
        yield from wrong
        if wrong:
            return
    if not isinstance(parts.outcome, IntegerOutcomeSpec):
        return
    moves = len(kernels[0][1][0])
    wrong = [problem for route, kernel in kernels for problem in _kernel(parts, route, kernel, parts.outcome, moves)]
    wrong += _continuation(parts, family, parts.outcome.count, moves)
    yield from wrong or _size(parts, family)


def _mdp_features(parts: Parts) -> Iterator[Problem]:
    if parts.features is None:
        return
    document, given = parts.document, {feature.name: feature for feature in parts.features}
    for name in MDP_FEATURES:
        if name not in given:
            what = "the number of the present state" if name == "state" else "the number of the action"
            message = f"family finite-mdp needs a feature {name!r}, {what}; add features.{name}"
            yield document.problem(("hypotheses", "family"), message)
    for name, feature in given.items():
        if name not in MDP_FEATURES:
            message = f"feature {name!r} has no effect in family finite-mdp, which uses state and action; leave it out"
            yield document.key_problem(("features", name), message)
        elif feature.length is not None:
            yield document.problem(("features", name), "must be one number, this is a list")


def _mixture(parts: Parts, mixture: KernelMixture) -> Iterator[Problem]:
    document, route = parts.document, ("hypotheses", "mixture")
    if mixture.rest not in mixture.kernels:
        message = f"{mixture.rest!r} is not a kernel; the kernels are {listed(set(mixture.kernels))}"
        yield document.problem((*route, "rest"), message)
        return
    others = mixture.kernels.keys() - {mixture.rest}
    for name in sorted(others - mixture.weights.keys()):
        message = f"kernel {name!r} has no weight; add hypotheses.mixture.weights.{name}"
        yield document.key_problem((*route, "kernels", name), message)
    for name in sorted(mixture.weights.keys() - others):
        why = "has the rest of the probability" if name == mixture.rest else "is not a kernel"
        yield document.key_problem((*route, "weights", name), f"{name!r} {why}, so it has no grid; leave it out")
    for name, grid in mixture.weights.items():
        if (grid.points == 1) != (grid.lower == grid.upper) or grid.lower > grid.upper:
            message = f"{grid.points} points need lower {'equal to' if grid.points == 1 else 'below'} upper"
            yield document.problem((*route, "weights", name), message)
    if others == mixture.weights.keys() and math.fsum(grid.lower for grid in mixture.weights.values()) > 1.0:
        yield document.problem((*route, "weights"), "the smallest weights sum to more than 1; lower them")


def _kernel(parts: Parts, route: Route, kernel: Kernel, outcome: IntegerOutcomeSpec, moves: int) -> Iterator[Problem]:
    document = parts.document
    if len(kernel) != outcome.count:
        message = f"has {len(kernel)} rows, but outcome.count says that there are {outcome.count} states; give one each"
        yield document.problem(route, message)
    for state, row in enumerate(kernel):
        if len(row) != moves:
            message = f"has {len(row)} entries, the first row has {moves}; give one for each action"
            yield document.problem((*route, state), message)
        for move, entry in enumerate(row):
            chances = entry if isinstance(entry, dict) else {entry: 1.0}
            at = (*route, state, move)
            outside = [target for target in chances if target >= outcome.count]
            if outside:
                message = f"state {outside[0]} does not exist; states are 0, ..., {outcome.count - 1}"
                yield document.problem(at, message)
            if not abs(math.fsum(chances.values()) - 1.0) <= PRIOR_SUM_TOLERANCE:
                yield from sums_to_one(document, at, list(chances.values()), "the probabilities")


def _continuation(parts: Parts, family: FiniteMdp, states: int, moves: int) -> Iterator[Problem]:
    document, policy, route = parts.document, family.default_policy, ("hypotheses", "default_policy")
    if policy is None and family.horizon > 1:
        message = "the steps after the action need a default policy; add default_policy, or use horizon: 1"
        yield document.problem(("hypotheses", "horizon"), message)
    if policy is not None and family.horizon == 1:
        message = "a horizon of 1 is the action's own step, so a default policy has no effect; leave it out"
        yield document.key_problem(route, message)
    if isinstance(policy, tuple):
        if len(policy) != states:
            yield document.problem(route, f"has {len(policy)} actions for {states} states; give one each")
        for place, action in enumerate(policy):
            if action >= moves:
                message = f"action {action} does not exist; actions are 0, ..., {moves - 1}"
                yield document.problem((*route, place), message)
    for place, state in enumerate(family.terminal):
        if state >= states:
            message = f"state {state} does not exist; states are 0, ..., {states - 1}"
            yield document.problem(("hypotheses", "terminal", place), message)


def _size(parts: Parts, family: FiniteMdp) -> Iterator[Problem]:
    successors = mixtures.successors(mixtures.kernels_of(family).values())
    each = len(successors) * len(successors[0]) * max(len(found) for row in successors for found in row)
    hypotheses = len(family.table or ()) if family.mixture is None else mixtures.grid_size(family.mixture)
    if hypotheses > mixtures.MAX_COMBINATIONS:
        message = (
            f"the grids have {hypotheses} combinations, at most {mixtures.MAX_COMBINATIONS} are allowed; use fewer"
        )
        yield parts.document.key_problem(("hypotheses", "mixture", "weights"), f"{message} points")
        return
    if each * hypotheses > mixtures.MAX_ENTRIES:
        message = (
            f"{hypotheses} hypotheses of {each} transition probabilities each are {hypotheses * each}, at most "
            f"{mixtures.MAX_ENTRIES} are allowed; use fewer hypotheses or states"
        )
        yield parts.document.key_problem(("hypotheses", "table" if family.mixture is None else "mixture"), message)
