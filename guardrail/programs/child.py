"""A program's process, seen from the service: started, asked, watched, and killed when it breaks a limit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import guardrail
from guardrail.programs import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from guardrail.programs.messages import Arrays

WATCH_SECONDS = 0.05
"""How often the memory of a process that computes is looked at."""
_READ_BYTES = 2**20
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
_MIB = 2**20


class ChildFailed(Exception):
    """The process did not answer; it has been killed. The message says what happened, without the program's name."""


class Child:
    """One process. Not safe for use by several threads at once.

    Args:
        memory_mib: memory that the process may use beyond what it has after its imports.
    """

    def __init__(self, memory_mib: int) -> None:
        folder = tempfile.TemporaryDirectory(prefix="guardrail-program-")
        self.folder = Path(folder.name)
        self._output = self.folder / "output.txt"
        package = str(Path(guardrail.__file__).resolve().parent.parent)
        # Absolute: a relative entry would mean the program's folder, ahead of Python's own modules.
        inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "JAX_PLATFORMS": "cpu",
            # A program that goes through a set of names does it in the same order in every process.
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join([package, *map(os.path.abspath, inherited)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self._output.open("wb") as output:
            # -P: the folder of the program must not stand in for Python's own modules.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "guardrail.programs.worker", str(memory_mib)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._allowed: int | None = None
        self._memory_mib = memory_mib
        self._end = weakref.finalize(self, _end, self._process, folder)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it was killed or ended."""
        return self._end.alive and self._process.poll() is None

    def ask(
        self, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], seconds: float
    ) -> tuple[dict[str, Any], Arrays]:
        """Send a question and wait for the answer.

        :raises ChildFailed: if there is none within the time, the process ends, or uses too much memory; it is
            killed then.
        """
        try:
            answer = self._exchange(messages.encode(header, arrays), time.monotonic() + seconds, seconds)
        except BaseException:
            self.kill()
            raise
        if self._allowed is None:
            # What the imports took is not the program's.
            self._allowed = (_resident(self.pid) or 0) + self._memory_mib * _MIB
        return answer

    def kill(self) -> None:
        """End the process and whatever it started, and remove its folder."""
        self._end()

    def _exchange(self, pending: bytes, deadline: float, seconds: float) -> tuple[dict[str, Any], Arrays]:
        received = bytearray()
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        poll.register(self._to, select.POLLOUT)
        left = memoryview(pending)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ChildFailed(f"did not answer within {seconds:g} s; it was stopped")
            ready = dict(poll.poll(1e3 * min(remaining, WATCH_SECONDS)))
            try:
                if self._to in ready:
                    left = left[os.write(self._to, left[:_READ_BYTES]) :]
                    if not left:
                        poll.unregister(self._to)
                if self._from in ready:
                    chunk = os.read(self._from, _READ_BYTES)
                    if not chunk:
                        raise ChildFailed(self._how_it_ended())
                    received += chunk
                    if (answer := _complete(received)) is not None:
                        return answer
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChildFailed(self._how_it_ended()) from error
            except messages.BrokenFrame as error:
                raise ChildFailed("sent what is no answer; it was stopped") from error
            self._watch_memory()

    def _watch_memory(self) -> None:
        used = _resident(self.pid)
        if self._allowed is not None and used is not None and used > self._allowed:
            raise ChildFailed(f"used more memory than the {self._memory_mib} MiB allowed; it was stopped")

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        words = ""
        with contextlib.suppress(OSError):
            lines = self._output.read_bytes()[-4_096:].decode(errors="replace").strip().splitlines()
            words = f": {lines[-1][:200]}" if lines else ""
        if status < 0:
            return f"ended by signal {signal.Signals(-status).name} (a crash, or too little memory){words}"
        return f"ended by itself with exit status {status}{words}"


def _complete(received: bytearray) -> tuple[dict[str, Any], Arrays] | None:
    if len(received) < messages.PREFIX_BYTES:
        return None
    header, body = messages.lengths(bytes(received[: messages.PREFIX_BYTES]))
    if len(received) < messages.PREFIX_BYTES + header + body:
        return None
    content = memoryview(received)[messages.PREFIX_BYTES :]
    return messages.decode(bytes(content[:header]), bytes(content[header : header + body]))


def _resident(pid: int) -> int | None:
    """Bytes of memory that a process has in use; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # The process leads a session of its own: what it started goes with it.
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
    folder.cleanup()
