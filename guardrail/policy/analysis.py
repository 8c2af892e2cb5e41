"""What can be said of a CEL expression without running it: its cost, its fields, its length.

Costs are in steps of about 100 ns, for the largest inputs that the declarations allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from guardrail.policy.schema import MAX_STRING_LENGTH, FieldSpec

if TYPE_CHECKING:
    from guardrail.policy.syntax import Expr

MAX_POLICY_COST = 1_000_000
"""Most steps that all expressions of a policy may take together: about 0.1 s."""

FieldRef: TypeAlias = tuple[str, str]
"""Which input and which field: ("context", "temperature")."""

Declarations: TypeAlias = Mapping[str, Mapping[str, FieldSpec]]
"""The fields of each input: "context", "action" or "outcome"."""

_REFUSED_FUNCTIONS = {
    "dyn": "it would hide a type from the check",
    "type": "types are checked when the policy is loaded",
}
_NUMBER_TYPES = frozenset({"double", "int", "uint", "bool"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong in an expression, `offset` characters from its start."""

    offset: int
    message: str


def findings(tree: Expr, inputs: Declarations) -> Iterator[Finding]:
    """What the type check lets through and a policy must not use."""
    loops = [node for node in tree.walk() if node.kind == "comprehension"]
    for loop in loops[1:]:
        yield Finding(loop.offset, "a second loop; use at most one of all, exists, exists_one, map, filter")
    whole_inputs = _inputs_used_whole(tree, inputs)
    for node in tree.walk():
        if id(node) in whole_inputs:
            yield Finding(node.offset, f"{node.name!r} is used as a whole; name one field: {node.name}.<field>")
        elif node.kind == "message":
            yield Finding(node.offset, "messages cannot be built here; use fields and literals")
        elif node.kind == "call" and node.name in _REFUSED_FUNCTIONS:
            yield Finding(node.offset, f"{node.name}() is not supported: {_REFUSED_FUNCTIONS[node.name]}")
        elif node.kind == "call" and node.name == "matches" and node.parts[-1].kind != "const":
            yield Finding(node.offset, "the pattern of matches() must be a literal string")
        elif node.kind == "const" and isinstance(node.value, float) and not math.isfinite(node.value):
            yield Finding(node.offset, "the number is too large for a double")


def _inputs_used_whole(tree: Expr, inputs: Declarations) -> set[int]:
    """Identities of the nodes that are an input without a field."""
    with_field = {id(node.parts[0]) for node in tree.walk() if node.kind in ("select", "has")}
    return {
        id(node) for node in tree.walk() if node.kind == "ident" and node.name in inputs and id(node) not in with_field
    }


def fields_read(tree: Expr, inputs: Declarations) -> frozenset[FieldRef]:
    """The declared fields whose value the expression reads."""
    return _fields(tree, inputs, "select")


def fields_tested(tree: Expr, inputs: Declarations) -> frozenset[FieldRef]:
    """The declared fields that the expression tests with has()."""
    return _fields(tree, inputs, "has")


def _fields(tree: Expr, inputs: Declarations, kind: str) -> frozenset[FieldRef]:
    return frozenset(
        (node.parts[0].name, node.name)
        for node in tree.walk()
        if node.kind == kind and node.parts[0].kind == "ident" and node.name in inputs.get(node.parts[0].name, {})
    )


def patterns(tree: Expr) -> Iterator[tuple[int, str]]:
    """Offset and text of every literal regular expression."""
    for node in tree.walk():
        if node.kind == "call" and node.name == "matches" and isinstance(node.parts[-1].value, str):
            yield node.parts[-1].offset, node.parts[-1].value


def is_numeric(type_: str) -> bool:
    """True for a number, a bool, or a list of them."""
    return type_ in _NUMBER_TYPES or (type_.startswith("list(") and type_[5:-1] in _NUMBER_TYPES)


def list_length(tree: Expr, inputs: Declarations) -> int | None:
    """The length of a list expression; None if it depends on the values."""
    if tree.kind == "list":
        return len(tree.parts)
    if tree.kind == "select" and tree.parts[0].kind == "ident":
        declared = inputs.get(tree.parts[0].name, {}).get(tree.name)
        return declared.length if declared else None
    if tree.kind == "call" and tree.name == "_+_":
        left, right = (list_length(part, inputs) for part in tree.parts)
        return None if left is None or right is None else left + right
    if tree.kind == "call" and tree.name == "_?_:_":
        yes, no = (list_length(part, inputs) for part in tree.parts[1:])
        return yes if yes == no else None
    if tree.kind == "comprehension" and tree.parts[3].name == "_+_":  # map without a filter
        return list_length(tree.parts[0], inputs)
    return None


# ---------------------------------------------------------------- cost


@dataclass(frozen=True, slots=True)
class _Size:
    """Worst case of a value: steps to compute it, its length, and the length of its elements."""

    cost: float
    length: float = 1
    element: float = 1


def cost(tree: Expr, inputs: Declarations) -> float:
    """Most steps that one evaluation takes."""
    return _measure(tree, inputs, {}).cost


def _measure(node: Expr, inputs: Declarations, names: Mapping[str, _Size]) -> _Size:
    if node.kind == "const":
        return _Size(1, max(1, len(node.value)) if isinstance(node.value, (str, bytes)) else 1)
    if node.kind == "ident":
        return names.get(node.name, _Size(1))
    if node.kind in ("select", "has"):
        return _measure_field(node, inputs)
    if node.kind == "comprehension":
        return _measure_loop(node, inputs, names)
    parts = [_measure(part, inputs, names) for part in node.parts]
    below = 1 + sum(part.cost for part in parts)
    if node.kind in ("list", "map"):
        return _Size(below, max(1, len(parts)), max((part.length for part in parts), default=1))
    return _measure_call(node, parts, below)


def _measure_field(node: Expr, inputs: Declarations) -> _Size:
    operand = node.parts[0]
    declared = inputs.get(operand.name, {}).get(node.name) if operand.kind == "ident" else None
    if declared is None or node.kind == "has":
        return _Size(1)
    return _Size(1, MAX_STRING_LENGTH if declared.type == "string" else declared.length or 1)


def _measure_loop(node: Expr, inputs: Declarations, names: Mapping[str, _Size]) -> _Size:
    source, _, condition, step, _ = node.parts
    range_ = _measure(source, inputs, names)
    makes_list = node.type.startswith("list(")
    accumulator = _Size(1, range_.length if makes_list else 1)
    inner = {**names, node.name: _Size(1, range_.element), "@result": accumulator}
    body = _measure(step, inputs, inner)
    turns = range_.length * (1 + _measure(condition, inputs, inner).cost + body.cost)
    return _Size(range_.cost + turns, range_.length if makes_list else 1, body.element)


def _measure_call(node: Expr, parts: list[_Size], below: float) -> _Size:
    lengths = [part.length for part in parts]
    longest, element = max(lengths, default=1), max((part.element for part in parts), default=1)
    if node.name == "_?_:_":
        return _Size(below, max(lengths[1:]), element)
    if node.name == "_[_]":
        return _Size(below + lengths[0] / 10, parts[0].element)
    if node.name == "_+_":
        return _Size(below + sum(lengths) / 3, sum(lengths), element)
    if node.name == "matches":
        return _Size(below + lengths[0] / 2 + math.prod(lengths) / 500)
    if node.name in ("contains", "@in"):
        return _Size(below + longest + element * lengths[-1] / 10 + math.prod(lengths) / 5_000)
    result = longest if node.type in ("string", "bytes") or node.type.startswith("list(") else 1
    return _Size(below + sum(lengths) / 10, max(result, 32 if node.type == "string" else 1), element)
