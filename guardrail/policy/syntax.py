"""The syntax tree of a type-checked CEL expression, read from its serialized form.

The wire form is `cel.expr.CheckedExpr` (cel-spec, `cel/expr/checked.proto` and `syntax.proto`), packed in
a `google.protobuf.Any`. Only the public fields that are needed here are declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
# message -> fields as (name, number, type); a leading * means repeated. Maps are repeated entries.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "CheckedExpr": (("types", 3, "*TypeEntry"), ("expr", 4, "Expr"), ("source", 5, "SourceInfo")),
    "TypeEntry": (("key", 1, "int64"), ("value", 2, "Type")),
    "SourceInfo": (("positions", 4, "*PositionEntry"),),
    "PositionEntry": (("key", 1, "int64"), ("value", 2, "int32")),
    "Type": (("primitive", 3, "int32"), ("list", 6, "ListType"), ("message", 9, "string")),
    "ListType": (("element", 1, "Type"),),
    "Expr": (
        ("id", 2, "int64"),
        ("const", 3, "Constant"),
        ("ident", 4, "Ident"),
        ("select", 5, "Select"),
        ("call", 6, "Call"),
        ("list", 7, "CreateList"),
        ("struct", 8, "CreateStruct"),
        ("comprehension", 9, "Comprehension"),
    ),
    "Constant": (
        ("null_value", 1, "int32"),
        ("bool_value", 2, "bool"),
        ("int64_value", 3, "int64"),
        ("uint64_value", 4, "uint64"),
        ("double_value", 5, "double"),
        ("string_value", 6, "string"),
        ("bytes_value", 7, "bytes"),
    ),
    "Ident": (("name", 1, "string"),),
    "Select": (("operand", 1, "Expr"), ("field", 2, "string"), ("test_only", 3, "bool")),
    "Call": (("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "*Expr")),
    "CreateList": (("elements", 1, "*Expr"),),
    "CreateStruct": (("message_name", 1, "string"), ("entries", 2, "*StructEntry")),
    "StructEntry": (("map_key", 3, "Expr"), ("value", 4, "Expr")),
    "Comprehension": (
        ("variable", 1, "string"),
        ("range", 2, "Expr"),
        ("accumulator", 3, "string"),
        ("initial", 4, "Expr"),
        ("condition", 5, "Expr"),
        ("step", 6, "Expr"),
        ("result", 7, "Expr"),
    ),
}
_PRIMITIVES = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}


@dataclass(frozen=True, slots=True)
class Expr:
    """One node of the tree.

    Attributes:
        kind: const, ident, select, has, call, list, map, message, comprehension or other.
        name: the identifier, the selected field, the function, the message or the loop variable.
        value: the constant's value.
        parts: the operand of select and has; target and arguments of a call; list elements; keys
            and values of a map; range, initial, condition, step and result of a comprehension.
        type: bool, int, uint, double, string, bytes, list(...), message or other.
        offset: where it stands in the expression, in characters.
    """

    kind: str
    name: str
    value: object
    parts: tuple[Expr, ...]
    type: str
    offset: int

    def walk(self) -> Iterator[Expr]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()


def read_syntax(serialized: bytes) -> Expr:
    """The tree of an expression that `cel.Expression.serialize` wrote."""
    wrapper = any_pb2.Any.FromString(serialized)
    checked = _checked_class().FromString(wrapper.value)
    types = {entry.key: _type_name(entry.value) for entry in checked.types}
    positions = {entry.key: entry.value for entry in checked.source.positions}
    return _read(checked.expr, types, positions)


def _read(expr: Any, types: dict[int, str], positions: dict[int, int]) -> Expr:
    kind, name, value, parts = _shape(expr)
    below = tuple(_read(part, types, positions) for part in parts)
    return Expr(kind, name, value, below, types.get(expr.id, "other"), positions.get(expr.id, 0))


def _shape(expr: Any) -> tuple[str, str, object, tuple[Any, ...]]:
    if expr.HasField("const"):
        fields = expr.const.ListFields()
        return "const", "", fields[0][1] if fields else None, ()
    if expr.HasField("ident"):
        return "ident", expr.ident.name, None, ()
    if expr.HasField("select"):
        return "has" if expr.select.test_only else "select", expr.select.field, None, (expr.select.operand,)
    if expr.HasField("call"):
        target = (expr.call.target,) if expr.call.HasField("target") else ()
        return "call", expr.call.function, None, (*target, *expr.call.args)
    if expr.HasField("list"):
        return "list", "", None, tuple(expr.list.elements)
    if expr.HasField("struct"):
        if expr.struct.message_name:
            return "message", expr.struct.message_name, None, ()
        return "map", "", None, tuple(part for entry in expr.struct.entries for part in (entry.map_key, entry.value))
    if not expr.HasField("comprehension"):
        return "other", "", None, ()
    loop = expr.comprehension
    return "comprehension", loop.variable, None, (loop.range, loop.initial, loop.condition, loop.step, loop.result)


def _type_name(type_: Any) -> str:
    if type_.HasField("primitive"):
        return _PRIMITIVES.get(type_.primitive, "other")
    if type_.HasField("list"):
        return f"list({_type_name(type_.list.element)})"
    return "message" if type_.HasField("message") else "other"


@cache
def _checked_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="cel_subset.proto", package="cel_subset", syntax="proto2")
    for message, fields in _MESSAGES.items():
        built = file.message_type.add(name=message)
        for name, number, type_ in fields:
            label = _Field.LABEL_REPEATED if type_.startswith("*") else _Field.LABEL_OPTIONAL
            type_name = type_.removeprefix("*")
            added = built.field.add(name=name, number=number, label=label)
            if type_name in _SCALARS:
                added.type = _SCALARS[type_name]
            else:
                added.type = _Field.TYPE_MESSAGE
                added.type_name = f".cel_subset.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cel_subset.CheckedExpr"))
