"""Values that are kept nowhere: which those are, and what stands in their place.

A mark stands for a redacted value before anything is written or told. Expressions never see the value, live or from a
log, so a decision is the same with the mark in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from guardrail.domain import JsonObject
    from guardrail.policy.analysis import FieldRef
    from guardrail.policy.document import Route
    from guardrail.policy.schema import RedactSpec

REDACTED: dict[str, Any] = {"redacted": True}
"""Stands in place of a value. No declared field holds an object, so it is not taken for data."""


def redacted(values: JsonObject, names: Collection[str], declared: Collection[str]) -> JsonObject:
    """A context or an action as it may be kept: without the values of some fields, and of those that are not declared.

    What is absent, or null, stays so: it is told apart from a value when a decision is recomputed.
    """
    return {
        name: REDACTED if value is not None and (name in names or name not in declared) else value
        for name, value in values.items()
    }


def same_where_kept(left: Any, right: Any) -> bool:
    """Whether two contexts, or two actions, are the same as far as both are kept."""
    if not (isinstance(left, Mapping) and isinstance(right, Mapping)):
        return bool(left == right)
    return left.keys() == right.keys() and all(
        left[name] == right[name] or REDACTED in (left[name], right[name]) for name in left
    )


def problems(
    redact: RedactSpec, declared: Mapping[str, Collection[str]], used: Mapping[Route, frozenset[FieldRef]]
) -> Iterator[tuple[Route, str]]:
    """What may not be redacted, with where it stands: unknown fields, and those that an expression uses.

    Args:
        redact: what is to be.
        declared: the names of the context's and the action's fields.
        used: for each expression, the fields that it reads, or whose presence it tests.
    """
    readers: dict[FieldRef, str] = {}
    for route, references in used.items():
        for reference in references:
            readers.setdefault(reference, _named(route))
    for owner, names in (("context", redact.context), ("action", redact.action)):
        for index, name in enumerate(names):
            route = ("redact", owner, index)
            if name not in declared[owner]:
                yield route, f"{owner} has no field {name!r}; only declared fields can be redacted"
            elif (owner, name) in readers:
                what = f"{readers[owner, name]} reads {owner}.{name}, and no decision could be recomputed without it"
                yield route, f"{what}; take it out of that expression, or do not redact it"


def _named(route: Route) -> str:
    """`features.speed`, `rules[2].when`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in route).removeprefix(".")
