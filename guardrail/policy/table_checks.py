"""What must fit together in the families that tell inputs apart by a category."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from guardrail.policy.schema import PRIOR_SUM_TOLERANCE, BetaBernoulli, FiniteTable, TableHypothesis
from guardrail.policy.schema_base import CategoryCount, CategoryKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from guardrail.errors import Problem
    from guardrail.policy.document import Document, Route
    from guardrail.policy.parts import Parts
    from guardrail.policy.program_schema import ProgramSpec


def finite_table(parts: Parts, family: FiniteTable) -> Iterator[Problem]:
    """What does not fit in a finite table."""
    document = parts.document
    yield from no_features(parts, family.family)
    yield from repeated(document, ("hypotheses", "table"), [row.name for row in family.table], "name")
    yield from _table_kinds(parts, family)
    yield from table_priors(parts, [(row.name, row.prior) for row in family.table])
    yield from _table_categories(parts, family)


def _table_kinds(parts: Parts, family: FiniteTable) -> Iterator[Problem]:
    wanted = {"bool": "rates", "number": "normal"}.get(parts.outcome.type) if parts.outcome else None
    for index, row in enumerate(family.table):
        route = ("hypotheses", "table", index)
        given = [kind for kind in ("rates", "normal") if getattr(row, kind) is not None]
        if len(given) != 1:
            what = "both rates and normal" if given else "neither rates nor normal"
            yield parts.document.problem(route, f"hypothesis {row.name!r} gives {what}; give exactly one")
        elif wanted is not None and given[0] != wanted and parts.outcome is not None:
            message = f"a {parts.outcome.type} outcome needs {wanted}, hypothesis {row.name!r} gives {given[0]}"
            yield parts.document.key_problem((*route, given[0]), message)


def table_priors(parts: Parts, rows: Sequence[tuple[str, float | None]]) -> Iterator[Problem]:
    """What is wrong with the prior masses of a table's hypotheses, given as (name, prior)."""
    priors = [prior for _, prior in rows]
    given = [prior for prior in priors if prior is not None]
    if not given:
        return
    if len(given) < len(priors):
        for index, (name, prior) in enumerate(rows):
            if prior is None:
                message = f"hypothesis {name!r} has no prior but others do; give one to all or to none"
                yield parts.document.problem(("hypotheses", "table", index), message)
        return
    yield from sums_to_one(parts.document, ("hypotheses", "table"), given, "the priors")


def _table_categories(parts: Parts, family: FiniteTable) -> Iterator[Problem]:
    document, rows = parts.document, family.table
    keyed = [(index, keys) for index, row in enumerate(rows) if (keys := _row_categories(row)) is not None]
    if family.category is None:
        for index, _ in keyed:
            message = "rows differ by category, but no category is given; add hypotheses.category"
            yield document.problem(("hypotheses", "table", index), message)
        return
    if not keyed:
        message = "no row tells categories apart, so the category has no effect; leave it out"
        yield document.key_problem(("hypotheses", "category"), message)
        return
    first_index, first = keyed[0]
    for index, keys in keyed:
        route = ("hypotheses", "table", index, "rates" if rows[index].rates is not None else "normal")
        if not keys:
            yield document.problem(route, "names no category; name at least one")
        elif keys != first and first:
            missing, extra = first - keys, keys - first
            detail = f"lacks {listed(missing)}" if missing else f"adds {listed(extra)}"
            message = f"categories differ from those of hypothesis {rows[first_index].name!r}: {detail}"
            yield document.problem(route, message)
        else:
            for key in keys:
                yield from category_type(parts, (*route, key), key)


def _row_categories(row: TableHypothesis) -> set[CategoryKey] | None:
    for values in (row.rates, row.normal):
        if isinstance(values, dict):
            return set(values)
    return None


def beta_bernoulli(parts: Parts, family: BetaBernoulli) -> Iterator[Problem]:
    """What does not fit in a beta-bernoulli class."""
    yield from no_features(parts, family.family)
    yield from listed_categories(parts, family)


def listed_categories(parts: Parts, family: BetaBernoulli | ProgramSpec) -> Iterator[Problem]:
    """What does not fit in a list of categories."""
    document, categories = parts.document, family.categories
    if family.category is None:
        if categories is not None:
            message = "categories are listed, but no category is given; add hypotheses.category"
            yield document.key_problem(("hypotheses", "categories"), message)
        return
    if categories is None:
        message = "the categories are missing; add hypotheses.categories: a list, or {count: N}"
        yield document.key_problem(("hypotheses", "category"), message)
    elif isinstance(categories, CategoryCount):
        if parts.category_type == "string":
            message = "{count: N} means the integers 0..N-1, but the category is a string; list its values"
            yield document.problem(("hypotheses", "categories"), message)
    elif not categories:
        yield document.problem(("hypotheses", "categories"), "no category is listed; list at least one")
    else:
        yield from repeated(document, ("hypotheses", "categories"), categories, None)
        for index, key in enumerate(categories):
            yield from category_type(parts, ("hypotheses", "categories", index), key)


def repeated(
    document: Document, route: tuple[str, ...], values: Sequence[CategoryKey], key: str | None
) -> Iterator[Problem]:
    """A problem for every value that stands earlier in the list too; `key` names the field of a list of mappings."""
    if max(Counter(values).values(), default=0) < 2:
        return
    seen: set[CategoryKey] = set()
    for index, value in enumerate(values):
        if value in seen:
            at: Route = (*route, index) if key is None else (*route, index, key)
            yield document.problem(at, f"{value!r} is given twice; every one needs its own name")
        seen.add(value)


def sums_to_one(document: Document, route: Route, masses: Sequence[float], what: str) -> Iterator[Problem]:
    """A problem if prior masses do not sum to 1."""
    total = math.fsum(masses)
    if abs(total - 1) > PRIOR_SUM_TOLERANCE:
        yield document.problem(route, f"{what} sum to {total:.9g}; they must sum to 1")


def no_features(parts: Parts, family: str) -> Iterator[Problem]:
    """A problem for every feature: the family tells inputs apart by the category alone."""
    for feature in parts.features or ():
        message = f"feature {feature.name!r} has no effect in family {family}, which uses hypotheses.category"
        yield parts.document.key_problem(("features", feature.name), f"{message}; leave it out")


def category_type(parts: Parts, route: tuple[str | int, ...], key: CategoryKey) -> Iterator[Problem]:
    """A problem if a category is not of the type that the category's expression gives."""
    needed = {"string": str, "int": int}.get(parts.category_type or "")
    if needed is not None and not isinstance(key, needed):
        other = "a string; quote it" if needed is str else "an integer; unquote it"
        yield parts.document.key_problem(route, f"category {key!r} does not fit: the category's value is {other}")


def listed(keys: AbstractSet[CategoryKey]) -> str:
    """The first few keys, for a message."""
    shown = sorted(map(repr, keys))
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
