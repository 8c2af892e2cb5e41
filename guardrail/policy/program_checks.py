"""What must fit together in a policy whose hypotheses are a program."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guardrail.policy.program_schema import (
    DRAWS_BLOCK,
    MAX_GRID_SITES,
    MAX_PROGRAM_HYPOTHESES,
    GridUse,
    PosteriorUse,
    ProgramSpec,
    SampledUse,
)
from guardrail.policy.schema_base import CategoryCount
from guardrail.policy.table_checks import listed_categories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardrail.errors import Problem
    from guardrail.policy.parts import Parts


def program(parts: Parts, family: ProgramSpec) -> Iterator[Problem]:
    """What does not fit in a program's policy."""
    yield from listed_categories(parts, family)
    yield from _use(parts, family)
    yield from _bound(parts, family)
    yield from _inputs(parts, family)
    yield from _reserved_names(parts, family)
    ranges = family.prior_predictive
    if ranges.lower is not None and ranges.upper is not None and not ranges.lower < ranges.upper:
        message = f"lower {ranges.lower:g} is not below upper {ranges.upper:g}; swap them"
        yield parts.document.problem(("hypotheses", "prior_predictive", "lower"), message)


def _use(parts: Parts, family: ProgramSpec) -> Iterator[Problem]:
    use, document = family.use, parts.document
    if isinstance(use, SampledUse) and use.draws % DRAWS_BLOCK:
        near = max(1, round(use.draws / DRAWS_BLOCK)) * DRAWS_BLOCK
        message = f"{use.draws} is not a multiple of {DRAWS_BLOCK}, the size of a block of draws; use {near}"
        yield document.problem(("hypotheses", "use", "draws"), message)
    if isinstance(use, GridUse) and isinstance(use.points, dict):
        route = ("hypotheses", "use", "points")
        size = math.prod(use.points.values())
        if not 1 <= len(use.points) <= MAX_GRID_SITES:
            message = f"names {len(use.points)} latent sites; a grid has 1 to {MAX_GRID_SITES}, use sampled for more"
            yield document.problem(route, message)
        elif size > MAX_PROGRAM_HYPOTHESES:
            message = f"the grid has {size} hypotheses, at most {MAX_PROGRAM_HYPOTHESES} are allowed; use fewer points"
            yield document.problem(route, message)
    if isinstance(use, GridUse) and family.family == "pyro":
        message = "Pyro's distributions have too few quantile functions for a grid; use sampled"
        yield document.problem(("hypotheses", "use", "kind"), message)
    if family.monte_carlo is not None and family.family == "pyro":
        message = "simulated harm is for NumPyro programs; use an outcome with a cdf, or a deterministic site 'harm'"
        yield document.key_problem(("hypotheses", "monte_carlo"), message)
    if isinstance(use, PosteriorUse) and family.family == "pyro":
        message = "posterior is for NumPyro programs; use sampled"
        yield document.problem(("hypotheses", "use", "kind"), message)


def _bound(parts: Parts, family: ProgramSpec) -> Iterator[Problem]:
    bound, document = parts.bound, parts.document
    if bound is None:
        return
    approximate = family.monte_carlo is not None or isinstance(family.use, PosteriorUse)
    if approximate and bound.kind not in ("ratio", "predictive"):
        what = "monte_carlo" if family.monte_carlo is not None else "use posterior"
        message = f"{what} goes with the kinds ratio and predictive, not with {bound.kind}; change one of them"
        yield document.problem(("bound", "kind"), message)
    if bound.kind != "ratio":
        return
    if isinstance(family.use, PosteriorUse) and bound.running:
        message = "the sets of a posterior program are not kept, so it needs running: false"
        yield document.problem(("bound", "running"), message)
    if family.monte_carlo is not None and not family.monte_carlo.delta < bound.delta:
        message = (
            f"the Monte-Carlo error {family.monte_carlo.delta:g} is part of the bound's delta {bound.delta:g}, "
            "so it must be smaller; lower it"
        )
        yield document.problem(("hypotheses", "monte_carlo", "delta"), message)


def _inputs(parts: Parts, family: ProgramSpec) -> Iterator[Problem]:
    """Example inputs must be inputs."""
    if parts.features is None:
        return
    shapes: dict[str, int | None] = {feature.name: feature.length for feature in parts.features}
    needed = set(shapes) | ({"category"} if family.category is not None else set())
    for index, example in enumerate(family.prior_predictive.inputs):
        route = ("hypotheses", "prior_predictive", "inputs", index)
        if example.keys() != needed:
            missing, extra = sorted(needed - example.keys()), sorted(example.keys() - needed)
            detail = f"lacks {', '.join(missing)}" if missing else f"adds {', '.join(extra)}"
            yield parts.document.problem(route, f"an example gives every feature and nothing else; this one {detail}")
            continue
        for name, length in shapes.items():
            value = example[name]
            fits = isinstance(value, tuple) and len(value) == length if length is not None else _is_number(value)
            if not fits:
                wanted = "a number" if length is None else f"a list of {length} numbers"
                yield parts.document.problem((*route, name), f"feature {name!r} is {wanted}")
        if family.category is not None and category_index(family, example["category"]) is None:
            message = f"{example['category']!r} is not a category of this policy"
            yield parts.document.problem((*route, "category"), message)


def category_index(family: ProgramSpec, value: object) -> int | None:
    """The index of a category's value; None if it is not of the class."""
    if isinstance(family.categories, CategoryCount):
        return value if type(value) is int and 0 <= value < family.categories.count else None
    for index, key in enumerate(family.categories or ()):
        if type(key) is type(value) and key == value:
            return index
    return None


def _reserved_names(parts: Parts, family: ProgramSpec) -> Iterator[Problem]:
    if family.category is not None and any(feature.name == "category" for feature in parts.features or ()):
        message = "a program gets the category under this name; call the feature otherwise"
        yield parts.document.key_problem(("features", "category"), message)
    if parts.outcome is not None and parts.outcome.name == "harm":
        message = "a program's site 'harm' is its harm probability; call the outcome otherwise"
        yield parts.document.problem(("outcome", "name"), message)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
