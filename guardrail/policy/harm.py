"""The harm predicate, read into an event whose probability can be computed.

A predicate over a Boolean outcome is a subset of {false, true}; over a number it is a union of
intervals. `&&`, `||` and `!` are set operations, so any way of writing a supported event is understood.
Ends of intervals have probability zero, so `>` and `>=` are the same event. Over an integer outcome with
finitely many values any predicate will do: it is evaluated at each of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from guardrail.domain import BooleanHarm, HarmEvent, IntegerHarm, IntervalHarm
from guardrail.policy.analysis import Finding
from guardrail.policy.expressions import EvaluationError, Program

if TYPE_CHECKING:
    from guardrail.policy.syntax import Expr

_Intervals: TypeAlias = tuple[tuple[float, float], ...]
"""Disjoint open intervals in ascending order that do not touch."""

_FLIPPED = {"_>_": "_<_", "_>=_": "_<=_", "_<_": "_>_", "_<=_": "_>=_"}
_BOOL_FORMS = "outcome.{0}, !outcome.{0}, outcome.{0} == true"
_NUMBER_FORMS = "outcome.{0} > 1.0, outcome.{0} > 1.0 && outcome.{0} < 2.0, outcome.{0} < 1.0 || outcome.{0} > 2.0"


class _RefusedError(Exception):
    def __init__(self, node: Expr, message: str) -> None:
        self.finding = Finding(node.offset, message)


def harm_event(tree: Expr, outcome: str, outcome_type: str) -> HarmEvent | Finding:
    """The event of a checked predicate, or why it is none.

    Args:
        tree: the predicate's syntax tree.
        outcome: the outcome's name.
        outcome_type: bool or number.
    """
    try:
        if outcome_type == "bool":
            return _boolean_event(tree, outcome)
        return _interval_event(tree, outcome)
    except _RefusedError as refused:
        return refused.finding


def integer_event(tree: Expr, program: Program, outcome: str, count: int) -> HarmEvent | Finding:
    """The event of a checked predicate over an integer outcome, or why it is none.

    Args:
        tree: the predicate's syntax tree.
        program: the same, compiled.
        outcome: the outcome's name.
        count: the outcome's values are 0, ..., count - 1.
    """
    if tree.type != "bool":
        return Finding(tree.offset, f"harm needs true or false, this is {tree.type}; write outcome.{outcome} in [...]")
    harmful = set()
    for value in range(count):
        try:
            if program.evaluate({"outcome": {outcome: value}}) is True:
                harmful.add(value)
        except EvaluationError as error:
            return Finding(tree.offset, f"cannot be evaluated for outcome.{outcome} = {value}: {error}")
    if len(harmful) in (0, count):
        return Finding(tree.offset, _trivial(always=bool(harmful)))
    return IntegerHarm(frozenset(harmful), count)


def _boolean_event(tree: Expr, outcome: str) -> HarmEvent:
    harmful = _truths(tree, outcome)
    if len(harmful) != 1:
        raise _RefusedError(tree, _trivial(always=bool(harmful)))
    return BooleanHarm(harmful=True in harmful)


def _truths(node: Expr, outcome: str) -> frozenset[bool]:
    """The outcomes for which a Boolean predicate holds."""
    both = frozenset({False, True})
    if _is_outcome(node, outcome):
        return frozenset({True})
    if node.kind == "call" and node.name == "!_":
        return both - _truths(node.parts[0], outcome)
    if node.kind == "call" and node.name in ("_&&_", "_||_"):
        left, right = (_truths(part, outcome) for part in node.parts)
        return left & right if node.name == "_&&_" else left | right
    if node.kind == "call" and node.name in ("_==_", "_!=_"):
        left_part, right_part = node.parts
        subject, constant = (left_part, right_part) if right_part.kind == "const" else (right_part, left_part)
        if isinstance(constant.value, bool):
            holds = _truths(subject, outcome)
            return holds if constant.value == (node.name == "_==_") else both - holds
    raise _RefusedError(node, _unsupported(_BOOL_FORMS, outcome))


def _interval_event(tree: Expr, outcome: str) -> HarmEvent:
    harmful = _intervals(tree, outcome)
    if not harmful or harmful == ((-math.inf, math.inf),):
        raise _RefusedError(tree, _trivial(always=bool(harmful)))
    if len(harmful) == 1:
        return IntervalHarm(*harmful[0], inside=True)
    safe = _complement(harmful)
    if len(safe) == 1:
        return IntervalHarm(*safe[0], inside=False)
    raise _RefusedError(tree, f"harm is {len(harmful)} separate intervals; use one interval, or the outside of one")


def _intervals(node: Expr, outcome: str) -> _Intervals:
    """The outcomes for which a predicate over a number holds."""
    if node.kind == "call" and node.name == "!_":
        return _complement(_intervals(node.parts[0], outcome))
    if node.kind == "call" and node.name in ("_&&_", "_||_"):
        left, right = (_intervals(part, outcome) for part in node.parts)
        if node.name == "_||_":
            return _union(left + right)
        return _complement(_union(_complement(left) + _complement(right)))
    if node.kind == "call" and node.name in ("_==_", "_!=_"):
        raise _RefusedError(node, "a number equals a given one with probability zero; use <, <=, > or >=")
    if node.kind == "call" and node.name in _FLIPPED:
        left_part, right_part = node.parts
        if _is_outcome(left_part, outcome) and (limit := _number(right_part)) is not None:
            return _half_line(node.name, limit)
        if _is_outcome(right_part, outcome) and (limit := _number(left_part)) is not None:
            return _half_line(_FLIPPED[node.name], limit)
    raise _RefusedError(node, _unsupported(_NUMBER_FORMS, outcome))


def _half_line(comparison: str, limit: float) -> _Intervals:
    return ((limit, math.inf),) if ">" in comparison else ((-math.inf, limit),)


def _number(node: Expr) -> float | None:
    if node.kind == "const" and isinstance(node.value, float):
        return node.value
    if node.kind == "call" and node.name == "-_":
        value = _number(node.parts[0])
        return None if value is None else -value
    return None


def _is_outcome(node: Expr, outcome: str) -> bool:
    return node.kind == "select" and node.name == outcome and node.parts[0].name == "outcome"


def _union(intervals: _Intervals) -> _Intervals:
    merged: list[tuple[float, float]] = []
    for lower, upper in sorted(intervals):
        if merged and lower <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], upper))
        elif lower < upper:
            merged.append((lower, upper))
    return tuple(merged)


def _complement(intervals: _Intervals) -> _Intervals:
    ends = [-math.inf, *(end for interval in intervals for end in interval), math.inf]
    gaps = zip(ends[::2], ends[1::2], strict=True)
    return tuple((lower, upper) for lower, upper in gaps if lower < upper)


def _trivial(*, always: bool) -> str:
    return f"harm {'always' if always else 'never'} happens under this predicate; it must depend on the outcome"


def _unsupported(forms: str, outcome: str) -> str:
    return f"not a supported harm event; supported are {forms.format(outcome)}, combined by &&, || and !"
