"""Plain values and their canonical text: equal content has equal text, whoever wrote it.

The wire has doubles only, so 1 and 1.0 are the same number here, and an integer that no double
equals is refused rather than rounded into another one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from guardrail.errors import InvalidInput

MAX_DEPTH = 16
"""Deepest nesting of objects and lists; more would not pass protobuf's own limit on the wire."""

_strict = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_lenient = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=True)


def plain(value: object, path: str = "value") -> Any:
    """A deep copy of a value in None, bool, float, str, list and dict[str, ...] only.

    Integers become the floats they equal; NumPy scalars (anything with `item()` and the shape
    `()`) become Python's; NaN and infinities stay.

    Args:
        value: None, bool, int, float, str, a list or tuple, a mapping with text keys, or a NumPy scalar.
        path: how an error names the value's place.

    :raises InvalidInput: with reason WRONG_TYPE if a value has no such form, or INPUT_TOO_LARGE if it
        is nested deeper than MAX_DEPTH; the message names the place.
    """
    return _plain(value, path, MAX_DEPTH)


def canonical_json(value: object, *, allow_nonfinite: bool = False) -> str:
    """The canonical JSON text: sorted keys, no spaces, ASCII, numbers as the shortest text of their double.

    Args:
        value: what `plain` accepts.
        allow_nonfinite: write NaN, Infinity and -Infinity. `json.loads` reads them back, but it is not JSON.

    :raises InvalidInput: as `plain` does, or with reason NOT_FINITE if a number is not finite.
    """
    copy = plain(value)
    if allow_nonfinite:
        return _lenient.encode(copy)
    try:
        return _strict.encode(copy)
    except ValueError as error:
        raise InvalidInput("a number is not finite", "NOT_FINITE") from error


def digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal (64 characters)."""
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is float or kind is bool or value is None:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, float | int):
        return _number(value, path)
    if depth == 0:
        raise InvalidInput(f"{path}: nested deeper than {MAX_DEPTH} levels", "INPUT_TOO_LARGE")
    if isinstance(value, list | tuple):
        return [
            item if type(item) is float else _plain(item, f"{path}[{place}]", depth - 1)
            for place, item in enumerate(value)
        ]
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(item, f"{path}.{key}", depth - 1) for key, item in value.items()}
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        return _plain(item(), path, depth - 1)
    raise InvalidInput(f"{path}: {kind.__name__} is not a number, a bool, a text, a list or an object", "WRONG_TYPE")


def _number(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if isinstance(value, int) and number != value:
        raise InvalidInput(f"{path}: no double equals this integer; send it as a text", "WRONG_TYPE")
    return number


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{path}: the text is not valid Unicode: {error.reason}", "WRONG_TYPE") from error
    return str.__str__(value)


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"{path}: the key {key!r} is not a text", "WRONG_TYPE")
    return _text(key, f"{path}: a key")
