"""pydantic's findings, put into words and placed in the document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from guardrail.policy.expressions import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from guardrail.errors import Problem
    from guardrail.policy.document import Document, Node, Route

_MAX_SHOWN = 60
_NEEDS = {
    "string_type": "needs a string",
    "float_type": "needs a number",
    "int_type": "needs an integer",
    "int_from_float": "needs an integer",
    "bool_type": "needs true or false",
    "dict_type": "needs a mapping",
    "model_type": "needs a mapping",
    "model_attributes_type": "needs a mapping",
    "tuple_type": "needs a list",
    "finite_number": "needs a finite number",
}
_LIMITS = {
    "greater_than": ("needs a number greater than {}", "gt"),
    "greater_than_equal": ("needs a number of at least {}", "ge"),
    "less_than": ("needs a number less than {}", "lt"),
    "less_than_equal": ("needs a number of at most {}", "le"),
    "string_too_short": ("needs at least {} characters", "min_length"),
    "string_too_long": ("needs at most {} characters", "max_length"),
    "too_short": ("needs at least {} entries", "min_length"),
    "too_long": ("needs at most {} entries", "max_length"),
}
_IDENTIFIER_PATTERN = "^[A-Za-z_]"
_SCALAR_BRANCH = re.compile(r"literal\[.*|constrained-\w+|float|int|str|bool")


def problems(document: Document, model: type[BaseModel], errors: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """At least one problem for each value that pydantic refused.

    Args:
        document: what was validated.
        model: the model it was validated against.
        errors: `ValidationError.errors()`.
    """
    found: dict[tuple[Route, str], Problem] = {}
    unmeant: dict[Route, list[str]] = {}
    for error in errors:
        route, union = _route(document, error["loc"])
        node = document.nearest(route)
        if union is not None:
            unmeant.setdefault(union, []).append(_need(error["type"], error.get("ctx", {}), node, error))
            continue
        if _already_told(node, error):
            continue
        problem = _problem(document, model, route, node, error)
        found.setdefault((route, problem.message), problem)
    for union, needs in unmeant.items():
        if not any(route[: len(union)] == union for route, _ in found):
            need = " or ".join(dict.fromkeys(needs)).replace(" or needs", " or")
            message = f"{_where(union)}is {_what(document.nearest(union))}; {need}"
            found[union, message] = document.problem(union, message)
    return list(found.values())


def _route(document: Document, loc: Sequence[str | int]) -> tuple[Route, Route | None]:
    """The part of pydantic's location that the document has.

    pydantic puts the names of union branches between keys; they are skipped. If one of them is a
    branch that the author did not mean, the union's own route comes second.
    """
    route: list[str | int] = []
    node = document.root
    for part in loc:
        child = node.child(part)
        if child is not None:
            node = child
            route.append(part)
        elif not _meant(node, str(part)):
            return tuple(route), tuple(route)
    return tuple(route), None


def _meant(node: Node, branch: str) -> bool:
    """False if a union's branch is of another kind than what the author wrote."""
    if branch.startswith("dict["):
        return node.kind == "mapping" and not _looks_like_normal(node)
    if branch == "NormalSpec":
        return node.kind == "mapping" and _looks_like_normal(node)
    if branch.startswith("tuple["):
        return node.kind == "sequence"
    if branch in ("FieldSpec", "ProductPrior", "CategoryCount"):
        return node.kind == "mapping"
    return node.kind == "scalar" if _SCALAR_BRANCH.fullmatch(branch) else True


def _already_told(node: Node, error: Mapping[str, Any]) -> bool:
    """True if a list is only too short because its elements were refused, each with an error of its own."""
    return error["type"] == "too_short" and len(node.items) >= int(error["ctx"]["min_length"])


def _looks_like_normal(node: Node) -> bool:
    return bool({"mean", "sd"} & node.entries.keys())


def _problem(document: Document, model: type[BaseModel], route: Route, node: Node, error: Mapping[str, Any]) -> Problem:
    kind, context = error["type"], error.get("ctx", {})
    loc = error["loc"]
    if kind == "missing":
        return document.problem(route, f"field {loc[-1]!r} is missing; add it")
    if kind == "extra_forbidden":
        owner = model_at(model, loc[:-1])
        known = [f.alias or n for n, f in owner.model_fields.items()] if owner else []
        return document.key_problem(route, f"unknown field {loc[-1]!r}; {suggest(str(loc[-1]), known)}")
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        message = f"unknown {tag} {context['tag']!r}; {suggest(context['tag'], _quoted(context['expected_tags']))}"
        return document.problem((*route, tag), message)
    if kind == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        return document.problem(route, f"field {tag!r} is missing; add it")
    if kind == "invalid_key":
        return document.key_problem(route, f"the name {_shown(loc[-1])} is not a string; quote it")
    if loc and loc[-1] == "[key]":
        need = _NEEDS["int_type"] if kind in ("int_type", "int_parsing") else _pattern(context)
        return document.key_problem(route, f"the name {_shown(route[-1])} is not allowed; {need}")
    return document.problem(route, f"{_where(route)}is {_what(node)}; {_need(kind, context, node, error)}")


def _need(kind: str, context: Mapping[str, Any], node: Node, error: Mapping[str, Any]) -> str:
    if kind == "literal_error" and node.value == "list":
        return "needs {type: list, length: N}"
    if kind == "literal_error":
        expected = _quoted(context["expected"])
        close = suggest(node.value, expected) if isinstance(node.value, str) and len(expected) > 1 else ""
        allowed = "needs " + " or ".join(filter(None, [", ".join(expected[:-1]), expected[-1]]))
        return f"{allowed}; {close}" if close.startswith("did") else allowed
    if kind == "string_pattern_mismatch":
        return _pattern(context)
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "must not be empty"
    if kind in _LIMITS:
        template, name = _LIMITS[kind]
        return template.format(context[name])
    return _NEEDS.get(kind, str(error["msg"]))


def _pattern(context: Mapping[str, Any]) -> str:
    pattern = str(context.get("pattern", ""))
    if pattern.startswith(_IDENTIFIER_PATTERN):
        return "needs letters, digits and underscores, at most 63, not starting with a digit"
    if pattern.startswith("^[a-z]"):
        return "needs lower-case letters, digits and hyphens, at most 63, starting with a letter"
    if ":" in pattern:
        return "needs file.py:function, the file in the policy's folder, without '..' and not starting with '/'"
    if pattern.startswith("^[A-Za-z0-9_]["):
        return "needs the name of a file in the same folder"
    return f"needs to match {pattern}" if pattern else "needs a string; quote it"


def _where(route: Route) -> str:
    return f"{route[-1]} " if route and isinstance(route[-1], str) else "the value "


def _what(node: Node) -> str:
    if node.kind != "scalar":
        return "a mapping" if node.kind == "mapping" else "a list"
    return "empty" if node.value is None else _shown(node.value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


# ---------------------------------------------------------------- the model behind a location


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that a location of an error lies in; None if it is not one."""
    current: Any = model
    for part in loc:
        current = _step(current, part)
    models = [m for m in _members(current) if _is_model(m)]
    return models[0] if len(models) == 1 else None


def _step(annotation: Any, part: str | int) -> Any:
    for member in _members(annotation):
        if _is_model(member):
            if len(_members(annotation)) > 1:
                if part == member.__name__ or part in _tags(member):
                    return member
                continue
            named = {f.alias or n: f.annotation for n, f in member.model_fields.items()}
            return named.get(str(part))
        if get_origin(member) is tuple and isinstance(part, int):
            return get_args(member)[0]
        if get_origin(member) is dict:
            value_type = get_args(member)[1]
            return member if str(part).startswith("dict[") else value_type
    return None


def _members(annotation: Any) -> list[Any]:
    """The branches of a union, with Annotated and None taken away."""
    origin = get_origin(annotation)
    if annotation is None or annotation is type(None):
        return []
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _members(get_args(annotation)[0])
    if origin is not None and origin not in (dict, tuple, list, Literal):
        return [m for branch in get_args(annotation) for m in _members(branch)]
    return [annotation]


def _tags(model: type[BaseModel]) -> set[object]:
    tags: set[object] = set()
    for name in ("family", "kind", "type"):
        if name in model.model_fields:
            tags |= set(get_args(model.model_fields[name].annotation))
    return tags


def _is_model(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, BaseModel)
