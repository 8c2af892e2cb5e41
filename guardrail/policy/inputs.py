"""Contexts, actions and outcomes against their declarations: every value that passes is plain and finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from guardrail.errors import InvalidInput
from guardrail.policy.expressions import suggest
from guardrail.policy.memory_schema import IntegerOutcomeSpec
from guardrail.policy.schema import MAX_FIELDS, MAX_LIST_LENGTH, MAX_STRING_LENGTH, FieldSpec, OutcomeSpec

if TYPE_CHECKING:
    from guardrail.domain import JsonObject

_INT64 = 2**63
_Reader = Callable[[Any], Any]


class _MisfitError(Exception):
    """A value that does not fit; the caller adds the field's name."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FieldReader:
    """Checks one input (a context or an action) against its declared fields.

    Of redacted ones it only takes note that they are there, as it can from a log.
    """

    __slots__ = ("_owner", "_readers", "required")

    def __init__(self, owner: str, fields: Mapping[str, FieldSpec], redacted: Collection[str] = ()) -> None:
        self._owner = owner
        self._readers: dict[str, _Reader] = {
            name: _read_presence if name in redacted else _reader(spec) for name, spec in fields.items()
        }
        self.required = frozenset(name for name, spec in fields.items() if not spec.optional)

    def read(self, values: JsonObject) -> dict[str, Any]:
        """The values as plain Python: floats, ints, bools, strings and lists of floats; None is left out.

        :raises InvalidInput: UNKNOWN_FIELD, WRONG_TYPE, NOT_FINITE or INPUT_TOO_LARGE.
        """
        if not isinstance(values, Mapping):
            raise InvalidInput(f"the {self._owner} must be a mapping of fields", "WRONG_TYPE")
        if len(values) > MAX_FIELDS:
            raise InvalidInput(f"the {self._owner} has more than {MAX_FIELDS} fields", "INPUT_TOO_LARGE")
        readers, plain = self._readers, {}
        for name, value in values.items():
            reader = readers.get(name) if type(name) is str else None
            if reader is None:
                raise self._unknown(name)
            if value is None:
                continue
            try:
                plain[name] = reader(value)
            except _MisfitError as misfit:
                raise InvalidInput(f"{self._owner}.{name} {misfit}", misfit.reason) from None
        return plain

    def _unknown(self, name: object) -> InvalidInput:
        if not isinstance(name, str):
            return InvalidInput(f"a field name of the {self._owner} is not a string", "UNKNOWN_FIELD")
        shown = name if len(name) <= 100 else f"{name[:100]}..."
        known = sorted(self._readers)
        return InvalidInput(f"{self._owner} has no field {shown!r}; {suggest(shown, known)}", "UNKNOWN_FIELD")


def read_outcome(outcome: object, spec: OutcomeSpec | IntegerOutcomeSpec) -> float:
    """The outcome as a float in the outcome's unit; 0 or 1 if Boolean, a whole number if an integer.

    Args:
        outcome: `{name: value}` or the bare value.
        spec: the policy's outcome.

    :raises InvalidInput: UNKNOWN_FIELD, WRONG_TYPE or NOT_FINITE.
    """
    value = outcome
    if isinstance(outcome, Mapping):
        unknown = [name for name in outcome if name != spec.name]
        if unknown:
            message = f"the outcome has no field {str(unknown[0])[:100]!r}; known is {spec.name}"
            raise InvalidInput(message, "UNKNOWN_FIELD")
        value = outcome.get(spec.name)
    if value is None:
        raise InvalidInput(f"outcome.{spec.name} is absent", "WRONG_TYPE")
    try:
        if isinstance(spec, IntegerOutcomeSpec):
            return float(_read_value(value, spec.count))
        return float(_read_bool(value) if spec.type == "bool" else _read_number(value))
    except _MisfitError as misfit:
        raise InvalidInput(f"outcome.{spec.name} {misfit}", misfit.reason) from None


def _reader(spec: FieldSpec) -> _Reader:
    if spec.type == "list":
        length = spec.length

        def read_list(value: Any) -> list[float]:
            return _read_list(value, length)

        return read_list
    return {"number": _read_number, "integer": _read_integer, "bool": _read_bool, "string": _read_string}[spec.type]


def _read_presence(value: Any) -> bool:
    return True


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(value, "a number")
    try:
        number = float(value)
    except OverflowError:
        raise _MisfitError("NOT_FINITE", "is too large for a double") from None
    if not math.isfinite(number):
        raise _MisfitError("NOT_FINITE", f"is {number}, needs a finite number")
    if number != value:
        raise _MisfitError("WRONG_TYPE", "is an integer that no double equals; send it as a string")
    return number


def _read_integer(value: Any) -> int:
    number = _read_number(value)
    if not number.is_integer():
        raise _MisfitError("WRONG_TYPE", f"is {number}, needs an integer")
    if not -_INT64 <= number < _INT64:
        raise _MisfitError("WRONG_TYPE", "is outside the range of 64-bit integers")
    return int(number)


def _read_value(value: Any, count: int) -> int:
    number = _read_integer(value)
    if not 0 <= number < count:
        raise _MisfitError("WRONG_TYPE", f"is {number}, needs one of 0, ..., {count - 1}")
    return number


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "a bool")
    return value


def _read_string(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string")
    if len(value) > MAX_STRING_LENGTH:
        raise _MisfitError("INPUT_TOO_LARGE", f"has {len(value)} characters, at most {MAX_STRING_LENGTH} are allowed")
    # CEL strings end at NUL: the rules would see less than the agent's tool does.
    if "\0" in value:
        raise _MisfitError("WRONG_TYPE", "holds a NUL character")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _MisfitError("WRONG_TYPE", "holds an unpaired surrogate, so it is not Unicode text")
    return str(value)


def _read_list(value: Any, length: int | None) -> list[float]:
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(value, "a list of numbers")
    if len(value) > MAX_LIST_LENGTH:
        raise _MisfitError("INPUT_TOO_LARGE", f"has {len(value)} elements, at most {MAX_LIST_LENGTH} are allowed")
    if len(value) != length:
        raise _MisfitError("WRONG_TYPE", f"has {len(value)} elements, needs {length}")
    if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
        return list(value)
    numbers = []
    for index, element in enumerate(value):
        try:
            numbers.append(_read_number(element))
        except _MisfitError as misfit:
            raise _MisfitError(misfit.reason, f"[{index}] {misfit}") from None
    return numbers


def _wrong_type(value: Any, needed: str) -> _MisfitError:
    if isinstance(value, float) and not math.isfinite(value):
        return _MisfitError("NOT_FINITE", f"is {value}, needs {needed}")
    kinds = {bool: "a bool", int: "a number", float: "a number", str: "a string", list: "a list", tuple: "a list"}
    kind = kinds.get(type(value)) or ("a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}")
    return _MisfitError("WRONG_TYPE", f"is {kind}, needs {needed}")
