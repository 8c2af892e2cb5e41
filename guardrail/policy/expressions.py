"""CEL: type-checked against the declared fields when a policy is loaded, evaluated on plain values.

Expressions are checked with the inputs as protobuf messages (so that unknown fields and wrong
types are found at load) and run with the inputs as maps (so that reading an absent field is an
error; a message would answer with a default).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from guardrail.policy.analysis import Declarations, FieldRef, Finding, cost, fields_read, findings, patterns
from guardrail.policy.syntax import Expr, read_syntax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Field = descriptor_pb2.FieldDescriptorProto
_FIELD_TYPES = {
    "number": _Field.TYPE_DOUBLE,
    "integer": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "list": _Field.TYPE_DOUBLE,
}
_PACKAGE = "guardrail_policy"
_CEL_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_OPERATOR = re.compile(r"^[_@!]*([^_@!\w]+|in|!|!=)[_:]*$")
_STATUS = re.compile(r"^[A-Z_]+: ")
_ERROR = cel.Type.ERROR


class EvaluationError(Exception):
    """An expression has no value for these inputs."""


class Program:
    """A compiled expression. Safe to share; evaluation has no side effect."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str, compiled: Any) -> None:
        self.text = text
        self._compiled = compiled

    def evaluate(self, inputs: Mapping[str, Any]) -> Any:
        """The value as plain Python.

        Args:
            inputs: input name to its fields; an absent field must be absent, never None.

        :raises EvaluationError: if the expression has no value, for instance because a field is absent.
        """
        try:
            value = self._compiled.eval(data=inputs)
            plain = value.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise EvaluationError(_first_line(error)) from error
        # An error arrives as a value whose plain form is its message, so only strings are in doubt.
        if type(plain) is str and value.type() == _ERROR:
            raise EvaluationError(_STATUS.sub("", plain))
        return plain


@dataclass(frozen=True, slots=True)
class CheckedExpression:
    """An expression that passed the type check.

    Attributes:
        program: evaluates it.
        tree: its syntax tree, with types.
        reads: the fields whose values it reads.
        cost: most steps one evaluation takes.
    """

    program: Program
    tree: Expr
    reads: frozenset[FieldRef]
    cost: float


class Environment:
    """Compiles expressions over declared inputs."""

    def __init__(self, inputs: Declarations) -> None:
        self.inputs = inputs
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(_messages(inputs).SerializeToString())
        self._typed = cel.NewEnv(pool, variables={name: cel.Type(f"{_PACKAGE}.{name}") for name in inputs})
        self._dynamic = cel.NewEnv(variables=dict.fromkeys(inputs, cel.Type.DYN))

    def check(self, text: str) -> CheckedExpression | list[Finding]:
        """Type-check and compile one expression, or say everything that is wrong with it."""
        if "\0" in text or not _encodable(text):
            return [Finding(0, "an expression must not hold NUL or unpaired surrogate characters")]
        try:
            tree = read_syntax(self._typed.compile(text).serialize())
        except RuntimeError as error:
            return self._explain(text, str(error))
        except (DecodeError, RecursionError):
            return [Finding(0, "nested too deeply; split it")]
        found = [*findings(tree, self.inputs), *self._bad_patterns(tree)]
        if found:
            return found
        try:
            program = Program(text, self._dynamic.compile(text))
        except RuntimeError as error:
            return self._explain(text, str(error))
        return CheckedExpression(program, tree, fields_read(tree, self.inputs), cost(tree, self.inputs))

    def combine(self, template: str, texts: Sequence[str]) -> Program | None:
        """Join checked expressions into one; None if CEL's limits forbid it.

        Args:
            template: " || " to join them, or "[]" to list them.
            texts: checked expressions.
        """
        # A newline ends a trailing comment, which would otherwise swallow the parenthesis.
        closed = [f"({text}\n)" for text in texts]
        text = f"[{','.join(closed)}]" if template == "[]" else template.join(closed)
        try:
            return Program(text, self._dynamic.compile(text))
        except RuntimeError:
            return None

    def _bad_patterns(self, tree: Expr) -> list[Finding]:
        found = []
        for offset, pattern in patterns(tree):
            probe = self._dynamic.compile(f"''.matches({_quote(pattern)})")
            try:
                Program("", probe).evaluate({name: {} for name in self.inputs})
            except EvaluationError as error:
                found.append(Finding(offset, f"not a regular expression (RE2): {error}"))
        return found

    def _explain(self, text: str, message: str) -> list[Finding]:
        found = []
        for line, column, what in _CEL_ERROR.findall(message):
            offset = _offset(text, int(line), int(column)) if int(line) > 0 else 0
            found.append(Finding(offset, self._reword(what.removesuffix(" [INVALID_ARGUMENT]"))))
        if found:
            # One mistake is often reported again for each enclosing node.
            return list(dict.fromkeys(found))
        if "recursion" in message:
            return [Finding(0, "nested too deeply (at most 32 levels); split it")]
        return [Finding(0, f"not valid CEL: {_first_line(message)}")]

    def _reword(self, what: str) -> str:
        if match := re.match(r"undefined field '(.*)' not found in struct '.*\.(\w+)'", what):
            name, owner = match.groups()
            return f"{owner} declares no field {name!r}; {suggest(name, list(self.inputs.get(owner, ())))}"
        if match := re.match(r"undeclared reference to '(.*?)'", what):
            names = " or ".join(f"{name}.<field>" for name in self.inputs)
            return f"unknown name {match[1]!r}; write {names}, or a CEL function"
        if match := re.match(r"found no matching overload for '(.*)' applied to '(.*)'", what):
            return _mismatch(match[1], match[2])
        if "recursion" in what:
            return "nested too deeply (at most 32 levels); split it"
        if what.startswith("Syntax error"):
            shortened = re.sub(r" expecting \{.*", "", what.removeprefix("Syntax error: "))
            return f"not valid CEL: {shortened.replace('<EOF>', 'end of the expression')}"
        return f"not valid CEL: {what}"


def suggest(name: str, known: Sequence[str]) -> str:
    """A did-you-mean for a name that is not among the known ones."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "none is known here"
    shown = ", ".join(sorted(known)[:20])
    return f"known are {shown}" + (", ..." if len(known) > 20 else "")


def _mismatch(function: str, types: str) -> str:
    operator = _OPERATOR.match(function)
    shown = "? :" if function == "_?_:_" else "[ ]" if function == "_[_]" else operator[1] if operator else function
    names = re.sub(r"guardrail_policy\.(\w+)", r"\1", types)
    hint = ""
    if "double" in types and re.search(r"\bu?int\b", types):
        hint = "; numbers are doubles: write 1.0 instead of 1, or double(...)"
    return f"{shown!r} does not take {names}{hint}"


def _messages(inputs: Declarations) -> Any:
    """One message per input. In proto2 every single field has presence, which has() needs."""
    file = descriptor_pb2.FileDescriptorProto(name="guardrail_policy.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in inputs.items():
        message = file.message_type.add(name=name)
        for number, (field_name, spec) in enumerate(fields.items(), start=1):
            label = _Field.LABEL_REPEATED if spec.type == "list" else _Field.LABEL_OPTIONAL
            message.field.add(
                name=field_name, json_name=f"f{number}", number=number, type=_FIELD_TYPES[spec.type], label=label
            )
    return file


def _offset(text: str, line: int, column: int) -> int:
    lines = text.split("\n")
    return min(sum(len(before) + 1 for before in lines[: line - 1]) + column - 1, len(text))


def _quote(text: str) -> str:
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_line(error: object) -> str:
    return (str(error).splitlines() or ["no message"])[0]
