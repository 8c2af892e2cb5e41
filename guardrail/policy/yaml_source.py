"""YAML read with the position of every key and value, for messages that point at the document.

A subset is read, on purpose: no anchors, aliases or tags, one document, string or integer keys,
bounded size and depth. Plain scalars follow the YAML 1.2 core schema (`yes` is a string).
Mappings come out sorted by key, so that their order in the file has no meaning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from guardrail.errors import PolicyError, Problem
from guardrail.policy.document import Document, Node, limited, line_and_column

if TYPE_CHECKING:
    from pathlib import Path

MAX_DOCUMENT_BYTES = 2**20
MAX_DEPTH = 50
MAX_VALUES = 100_000
"""Most keys and values of a document, which bounds the time that reading one takes: about 50 µs each."""
MAX_NUMBER_LENGTH = 100

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


def read_file(path: Path) -> str:
    """Read a document as text.

    :raises PolicyError: if it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise PolicyError([Problem(str(path), 0, 0, f"cannot be read: {error.strerror}")]) from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise PolicyError([Problem(str(path), 0, 0, _too_large())])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = line_and_column(content[: error.start].decode("utf-8"), len(content[: error.start].decode()))
        message = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise PolicyError([Problem(str(path), line, column, message)]) from error


def read_document(text: str, path: str) -> Document:
    """Read a YAML document whose root is a mapping.

    Duplicate keys, anchors and tags are collected in `Document.problems`, so that the
    rest of the document can be checked in the same run.

    :raises PolicyError: if the text is not YAML, is too large or too deep, or its root is not a mapping.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        raise PolicyError([Problem(path, 0, 0, _too_large())])
    composer = _Composer(path)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            composer.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise PolicyError([*limited(composer.problems), Problem(path, line, column, _syntax(error))]) from error
    except ReaderError as error:
        line, column = line_and_column(text, error.position)
        message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML; remove it"
        raise PolicyError([*limited(composer.problems), Problem(path, line, column, message)]) from error
    except (YAMLError, ValueError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise PolicyError([Problem(path, 0, 0, f"not YAML: {first_line}")]) from error
    root = composer.root
    if root is None or root.kind != "mapping":
        line, column = (root.line, root.column) if root else (1, 1)
        raise PolicyError(
            [*limited(composer.problems), Problem(path, line, column, "needs a mapping of fields at the top")]
        )
    return Document(path, text, root, composer.problems)


def _too_large() -> str:
    return f"larger than {MAX_DOCUMENT_BYTES} bytes; make it smaller"


def _syntax(error: MarkedYAMLError) -> str:
    what = " ".join(str(part) for part in (error.context, error.problem) if part)
    hint = ""
    if "mapping values are not allowed" in what:
        hint = "; quote a value that holds ': '"
    elif "cannot start any token" in what:
        hint = "; quote the value"
    return f"not YAML: {what}{hint}"


class _Composer:
    """Builds the tree from parser events, without recursion."""

    def __init__(self, path: str) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._path = path
        self._open: list[Node] = []
        self._keys: list[Node | None] = []
        self._documents = 0
        self._values = 0

    def take(self, event: Any) -> None:
        """Take the parser's next event."""
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise PolicyError([*limited(self.problems), self._at(event, "a second document; keep one per file")])
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._keys.pop()
            node = self._open.pop()
            node.end = event.end_mark.index
            self._place(node)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self._check_plainness(event)
            if len(self._open) >= MAX_DEPTH:
                raise PolicyError([*limited(self.problems), self._at(event, f"nested deeper than {MAX_DEPTH} levels")])
            self._open.append(self._node("mapping" if isinstance(event, MappingStartEvent) else "sequence", event))
            self._keys.append(None)
        elif isinstance(event, AliasEvent):
            self.problems.append(self._at(event, "aliases (*name) are not supported; write the value out"))
            self._place(self._node("scalar", event))
        elif isinstance(event, ScalarEvent):
            self._check_plainness(event)
            node = self._node("scalar", event)
            node.value = self._scalar(event)
            self._place(node)

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = self.root or node
            return
        parent = self._open[-1]
        if parent.kind == "sequence":
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = node
            return
        self._keys[-1] = None
        if node.kind == "scalar" and node.start == node.end:
            node.line, node.column = key.line, key.column  # the parser places an empty value at the next token
        name = key.value
        if key.kind != "scalar" or isinstance(name, bool) or not isinstance(name, (str, int)):
            what = "a mapping key must be a string or an integer; quote it"
            self.problems.append(Problem(self._path, key.line, key.column, what))
        elif name in parent.entries:
            first = parent.entries[name][0]
            what = f"key {name!r} is given twice, first in line {first.line}; keep one"
            self.problems.append(Problem(self._path, key.line, key.column, what))
        else:
            parent.entries[name] = (key, node)

    def _check_plainness(self, event: Any) -> None:
        if getattr(event, "anchor", None):
            self.problems.append(self._at(event, "anchors (&name) are not supported; write the value out"))
        tag = getattr(event, "tag", None)
        if tag and str(tag) != "!":
            message = f"tags are not supported, and {str(tag)!r} reads as one; quote a value that starts with '!'"
            self.problems.append(self._at(event, message))

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or (getattr(event, "tag", None)):
            return text
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        if len(text) > MAX_NUMBER_LENGTH:
            return text
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _INFINITY.fullmatch(text):
            return float("-inf") if text[0] == "-" else float("inf")
        return float("nan") if _NAN.fullmatch(text) else text

    def _node(self, kind: str, event: Any) -> Node:
        self._values += 1
        if self._values > MAX_VALUES:
            raise PolicyError([*limited(self.problems), self._at(event, f"more than {MAX_VALUES} values; use fewer")])
        mark = event.start_mark
        return Node(kind, mark.line + 1, mark.column + 1, mark.index, event.end_mark.index)

    def _at(self, event: Any, message: str) -> Problem:
        return Problem(self._path, event.start_mark.line + 1, event.start_mark.column + 1, message)
