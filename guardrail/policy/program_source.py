"""The files of a program: read once, hashed, and executed from these bytes only.

What was hashed is what runs: the child process gets the bytes, so a file that changes after
loading changes nothing until the policy is loaded again, and then the revision is another one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from guardrail.policy.document import Route
    from guardrail.policy.program_schema import NumpyroProgram, PyroProgram

MAX_PROGRAM_BYTES = 64 * 2**20
"""Largest sum of the sizes of a program's files."""
MAX_PROGRAM_FILES = 200


@dataclass(frozen=True)
class ProgramSource:
    """A program's files.

    Attributes:
        folder: the policy's folder, for messages.
        file: the model's file, relative to the folder.
        function: the model, a function in that file.
        files: content of the model's file, every other *.py of the folder and the declared data, by relative path.
    """

    folder: str
    file: str
    function: str
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """`file.py:function`, as the policy names it."""
        return f"{self.file}:{self.function}"

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 (hexadecimal) of each file."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) over the names and digests of all files."""
        listing = "".join(f"{name}\0{digest}\n" for name, digest in self.digests.items())
        return hashlib.sha256(listing.encode()).hexdigest()


class _RefusedError(Exception):
    """A file cannot be part of a program; the message says why."""


def read_program(spec: NumpyroProgram | PyroProgram, folder: Path) -> ProgramSource | list[tuple[Route, str]]:
    """The program that a policy names, or everything that is wrong with its files.

    Args:
        spec: the policy's hypotheses.
        folder: the policy's folder.

    Returns:
        The files; or (route below `hypotheses`, message) of every problem.
    """
    file, _, function = spec.model.partition(":")
    wanted: dict[str, Route] = {file: ("model",)}
    wanted |= {name: ("data", index) for index, name in enumerate(spec.data) if name not in wanted}
    wanted |= {name: ("model",) for name in _python_files(folder) if name not in wanted}
    files: dict[str, bytes] = {}
    problems: list[tuple[Route, str]] = []
    if len(wanted) > MAX_PROGRAM_FILES:
        return [
            (("model",), f"the folder has {len(wanted)} files of a program, at most {MAX_PROGRAM_FILES} are allowed")
        ]
    for name, route in wanted.items():
        try:
            files[name] = _read(folder, name)
        except _RefusedError as refused:
            problems.append((route, f"{name} {refused}"))
        except OSError as error:
            problems.append((route, f"{name} cannot be read: {error.strerror}; it must lie in the policy's folder"))
    size = sum(map(len, files.values()))
    if size > MAX_PROGRAM_BYTES:
        problems.append((("model",), f"the program's files are {size} bytes, at most {MAX_PROGRAM_BYTES} are allowed"))
    return problems or ProgramSource(str(folder), file, function, files)


def _python_files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield "/".join(parts)


def _read(folder: Path, name: str) -> bytes:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _RefusedError("is not a plain path inside the policy's folder; leave out '..', '.' and '//'")
    root, path = folder.resolve(), folder.joinpath(*parts).resolve()
    if not path.is_relative_to(root):
        raise _RefusedError("leads out of the policy's folder by a link; put a copy of the file there")
    if path.exists() and not path.is_file():
        raise _RefusedError("is not a file; name a file in the policy's folder")
    with path.open("rb") as file:
        content = file.read(MAX_PROGRAM_BYTES + 1)
    if len(content) > MAX_PROGRAM_BYTES:
        raise _RefusedError(f"is larger than {MAX_PROGRAM_BYTES} bytes; make it smaller")
    return content
