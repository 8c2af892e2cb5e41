"""The output folder of a run: its configuration, the results of its chunks, its table.

A result is written whole or not at all and has a checksum beside it (`sha256sum -c` reads it), so that a
run that was killed goes on where it stopped. A folder belongs to one configuration and to one process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

import guardrail
from simulations.runner.errors import CorruptResult, OtherConfiguration, OutputInUse, UnwritableOutput
from simulations.runner.suite import Result

FORMAT = 1
"""Of the stored results; another number means that they cannot be read together."""
CONFIGURATION, CHUNKS, LOCK = "config.json", "chunks", ".lock"
_PARTIAL = ".partial"


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
            content = file.read_bytes()
            if _checksum_file(file).read_bytes() != _checksum(file, content):
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            why = "its checksum is missing" if isinstance(error, FileNotFoundError) else error
            raise CorruptResult(
                f"{file} is damaged ({why}); delete this file and run again, the rest is kept"
            ) from error

    def write(self, chunk: str, result: Result) -> None:
        """Store the chunk's result.

        :raises UnwritableOutput: if that is not possible.
        """
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(result)
        np.savez(buffer, allow_pickle=False, **arrays)
        content, file = buffer.getvalue(), self._file(chunk)
        # The result comes second: where it stands, its checksum does.
        replace_file(_checksum_file(file), _checksum(file, content))
        replace_file(file, content)

    def _file(self, chunk: str) -> Path:
        return self.path / CHUNKS / f"{chunk}.npz"


@contextlib.contextmanager
def open_folder(path: Path, suite: str, configuration: Mapping[str, Any]) -> Iterator[Folder]:
    """The folder of a run, made if missing; what another configuration or another program left is not touched.

    :raises OtherConfiguration: if it holds results of another suite, configuration or version, or something else.
    :raises CorruptResult: if its configuration cannot be read.
    :raises OutputInUse: if another process writes to it.
    :raises UnwritableOutput: if it cannot be written.
    """
    expected = {
        "format": FORMAT,
        "suite": suite,
        "version": guardrail.__version__,
        "config": json.loads(json.dumps(configuration)),
    }
    try:
        _check(path, expected)
        (path / CHUNKS).mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise UnwritableOutput(f"cannot write to {path}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputInUse(f"{path} is in use by another run; wait for it or choose another --output") from error
        # Another run may have come and gone since.
        _check(path, expected)
        for left in [*path.glob(f".*{_PARTIAL}"), *(path / CHUNKS).glob(f".*{_PARTIAL}")]:
            left.unlink()
        check_writable(path / CHUNKS / "result.npz")
        if not (path / CONFIGURATION).exists():
            replace_file(path / CONFIGURATION, json.dumps(expected, indent=2).encode() + b"\n")
        yield Folder(path)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made if missing.

    :raises UnwritableOutput: if it cannot be written.
    """
    target = Path(os.path.realpath(path))  # A link stays a link.
    partial = _partial(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        _keep_entries(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UnwritableOutput(f"cannot write {path}: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be written; nothing is changed.

    :raises UnwritableOutput: if not.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise UnwritableOutput(f"{path} is a folder; name a file")
        if target.exists() and not target.is_file():
            raise UnwritableOutput(f"{path} is not a regular file")
        folder = next(above for above in target.parents if above.exists())
        if not folder.is_dir():
            raise UnwritableOutput(f"cannot write {path}: {folder} is not a folder")
        # Permissions do not tell everything: read-only file systems, quotas, the rights of root.
        probe = _partial(folder / target.name)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UnwritableOutput(f"cannot write {path}: {error.strerror}") from error


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}{_PARTIAL}")


def _keep_entries(folder: Path) -> None:
    """Have the names of a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _checksum(file: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {file.name}\n".encode()


def _check(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UnwritableOutput(f"{path} is not a folder")
    file = path / CONFIGURATION
    if not file.exists():
        # A run that was killed at its very start leaves no more than these.
        expendable = {path / CHUNKS, path / LOCK, *path.glob(f".{CONFIGURATION}.*{_PARTIAL}")}
        others = sorted({*path.iterdir()} - expendable)
        if (path / CHUNKS).is_dir():
            others += sorted((path / CHUNKS).iterdir())
        if others:
            shown = others[0].relative_to(path)
            raise OtherConfiguration(f"{path} holds {shown} and no {CONFIGURATION}; choose an empty --output")
        return
    try:
        found = json.loads(file.read_bytes())
        differing = _differences(found, expected)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise CorruptResult(f"{file} is damaged ({what}); choose another --output") from error
    if differing:
        raise OtherConfiguration(
            f"{path} holds results of another configuration ({', '.join(differing)}); choose another --output"
        )


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    outer = [
        f"{key} {found.get(key)!r} there, {expected[key]!r} here"
        for key in ("format", "suite", "version")
        if found.get(key) != expected[key]
    ]
    there, here = found["config"], expected["config"]
    inner = [
        f"{key} {there.get(key)!r} there, {here.get(key)!r} here"
        for key in sorted({*there, *here})
        if there.get(key) != here.get(key)
    ]
    return outer or inner
