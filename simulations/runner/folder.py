"""The output folder of a run: its configuration, the results of its chunks, its table.

A result is written whole or not at all, with a checksum, so that a run that was killed goes on where
it stopped. A folder belongs to one configuration and to one process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from simulations.runner.errors import CorruptResult, OtherConfiguration, OutputInUse, UnwritableOutput
from simulations.runner.suite import Result

FORMAT = 1
"""Of the stored results; another number means that they cannot be read together."""
CONFIGURATION, CHUNKS, LOCK = "config.json", "chunks", ".lock"


class Folder:
    """The folder of one run, open for writing by this process only.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, chunk: str) -> bool:
        """Whether the chunk's result is there."""
        return self._file(chunk).exists()

    def read(self, chunk: str) -> Result:
        """The chunk's result.

        :raises CorruptResult: if it is damaged.
        """
        file = self._file(chunk)
        try:
            digest, _, content = file.read_bytes().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, BadZipFile) as error:
            raise CorruptResult(
                f"{file} is damaged ({error}); delete this file and run again, the rest is kept"
            ) from error

    def write(self, chunk: str, result: Result) -> None:
        """Store the chunk's result.

        :raises UnwritableOutput: if that is not possible.
        """
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(result)
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
        replace_file(self._file(chunk), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def _file(self, chunk: str) -> Path:
        return self.path / CHUNKS / f"{chunk}.npz.sum"


@contextlib.contextmanager
def open_folder(path: Path, suite: str, configuration: Mapping[str, Any]) -> Iterator[Folder]:
    """The folder of a run, made if missing; what another configuration or another program left is not touched.

    :raises OtherConfiguration: if it holds results of another suite or configuration, or something else.
    :raises CorruptResult: if its configuration cannot be read.
    :raises OutputInUse: if another process writes to it.
    :raises UnwritableOutput: if it cannot be written.
    """
    expected = {"format": FORMAT, "suite": suite, "config": dict(configuration)}
    if path.exists():
        _check(path, expected)
    try:
        (path / CHUNKS).mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise UnwritableOutput(f"cannot write to {path}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputInUse(f"{path} is in use by another run; wait for it or choose another --output") from error
        if not (path / CONFIGURATION).exists():
            replace_file(path / CONFIGURATION, json.dumps(expected, indent=2).encode() + b"\n")
        yield Folder(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    :raises UnwritableOutput: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UnwritableOutput(f"cannot write {path}: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be written; an existing file is left as it is.

    :raises UnwritableOutput: if not.
    """
    if path.is_dir():
        raise UnwritableOutput(f"{path} is a folder; name a file")
    target = path if path.exists() else path.parent
    if not target.exists():
        raise UnwritableOutput(f"{target} does not exist")
    if not os.access(target, os.W_OK) or (target == path and not os.access(path.parent, os.W_OK)):
        raise UnwritableOutput(f"{target} cannot be written")


def _check(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_dir():
        raise UnwritableOutput(f"{path} is not a folder")
    file = path / CONFIGURATION
    if not file.exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in (CHUNKS, LOCK))
        if others:
            raise OtherConfiguration(f"{path} holds {others[0]} and no {CONFIGURATION}; choose an empty --output")
        return
    try:
        found = json.loads(file.read_bytes())
        differing = _differences(found, expected)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CorruptResult(f"{file} cannot be read ({error}); choose another --output") from error
    if differing:
        raise OtherConfiguration(
            f"{path} holds results of another configuration ({', '.join(differing)}); choose another --output"
        )


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    outer = [f"{key} {found.get(key)!r} there" for key in ("format", "suite") if found.get(key) != expected[key]]
    there, here = found["config"], json.loads(json.dumps(expected["config"]))
    inner = [
        f"{key} {there.get(key)!r} there, {here.get(key)!r} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]
    return outer + ([] if outer else inner)
