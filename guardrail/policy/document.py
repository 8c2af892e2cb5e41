"""A document as a tree that knows where every key and value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from guardrail.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

Key: TypeAlias = str | int
Route: TypeAlias = tuple[Key, ...]
"""The keys and indices that lead from the root to a value."""

MAX_PROBLEMS = 1_000
"""Most problems of one document that are told in one run."""


@dataclass(slots=True)
class Node:
    """One value of the document: where it stands and what it holds.

    Attributes:
        kind: mapping, sequence or scalar.
        line, column: 1-based start.
        start, end: character offsets into the document, end exclusive.
        value: the scalar's value; None for the others.
        entries: key to (key node, value node), for a mapping.
        items: the elements, for a sequence.
    """

    kind: str
    line: int
    column: int
    start: int
    end: int
    value: Any = None
    entries: dict[Key, tuple[Node, Node]] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)

    def data(self) -> Any:
        """The plain value: dict sorted by key, tuple, or scalar."""
        if self.kind == "mapping":
            ordered = sorted(self.entries, key=lambda key: (isinstance(key, str), key))
            return {key: self.entries[key][1].data() for key in ordered}
        if self.kind == "sequence":
            return tuple(item.data() for item in self.items)
        return self.value

    def child(self, key: Key) -> Node | None:
        """The value under a key or index; None if there is none."""
        if self.kind == "mapping":
            entry = self.entries.get(key)
            return entry[1] if entry else None
        if self.kind == "sequence" and isinstance(key, int) and 0 <= key < len(self.items):
            return self.items[key]
        return None


@dataclass(slots=True)
class Document:
    """A YAML document that was read: its text, its tree, and what is wrong with its form."""

    path: str
    text: str
    root: Node
    problems: list[Problem]

    def node(self, route: Route) -> Node | None:
        """The value at a route; None if the document has none there."""
        node: Node | None = self.root
        for key in route:
            node = node.child(key) if node else None
        return node

    def nearest(self, route: Route) -> Node:
        """The value at the longest part of the route that the document has."""
        node = self.root
        for key in route:
            child = node.child(key)
            if child is None:
                break
            node = child
        return node

    def problem(self, route: Route, message: str) -> Problem:
        """A problem at a value, or at the nearest one that exists."""
        node = self.nearest(route)
        return Problem(self.path, node.line, node.column, message)

    def key_problem(self, route: Route, message: str) -> Problem:
        """A problem at the key that ends the route."""
        parent = self.nearest(route[:-1])
        entry = parent.entries.get(route[-1]) if route else None
        node = entry[0] if entry else self.nearest(route)
        return Problem(self.path, node.line, node.column, message)

    def problem_inside(self, route: Route, offset: int, message: str) -> Problem:
        """A problem at a character of a string value, `offset` counted in the decoded string."""
        node = self.nearest(route)
        if node.kind != "scalar" or not isinstance(node.value, str):
            return Problem(self.path, node.line, node.column, message)
        line, column = line_and_column(self.text, _source_offset(self.text, node, offset))
        return Problem(self.path, line, column, message)


def in_order(document: Document, problems: Iterable[Problem]) -> list[Problem]:
    """Problems sorted by position, without repetitions.

    Where the document's form is wrong, what follows from it is left out.
    """
    malformed = {(problem.line, problem.column) for problem in document.problems}
    form = set(map(id, document.problems))
    unique: dict[tuple[int, int, str], Problem] = {}
    for problem in problems:
        if id(problem) in form or (problem.line, problem.column) not in malformed:
            unique.setdefault((problem.line, problem.column, problem.message), problem)
    return limited([unique[key] for key in sorted(unique)])


def limited(problems: list[Problem]) -> list[Problem]:
    """At most MAX_PROBLEMS problems, the last of them saying how many more there are."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    last = problems[MAX_PROBLEMS - 1]
    more = f"{len(problems) - MAX_PROBLEMS + 1} more problems from here on; correct the first ones"
    return [*problems[: MAX_PROBLEMS - 1], Problem(last.path, last.line, last.column, more)]


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """1-based line and column of a character offset."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _source_offset(text: str, node: Node, offset: int) -> int:
    """Where character `offset` of a decoded string stands in the source.

    Quoting, escapes, folding and indentation only add or change blanks, quotes and backslashes,
    so the other characters of the value appear in the source in the same order.
    """
    at = node.start
    if text[at : at + 1] in ("|", ">"):
        at = max(text.find("\n", at, node.end), at)
    elif text[at : at + 1] in ("'", '"'):
        at += 1
    found = at
    for character in node.value[: offset + 1]:
        if character.isspace():
            continue
        at = text.find(character, at, node.end)
        if at < 0:
            return found
        found, at = at, at + 1
    if offset >= len(node.value):
        return found + 1
    if node.value[offset].isspace():
        return found + 1 if node.value[:offset].strip() else node.start
    return found
