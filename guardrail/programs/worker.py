"""The process in which one program lives: `python -P -m guardrail.programs.worker MEMORY_MIB`.

It answers one question after another on what were its standard input and output; whatever the program itself
prints goes to standard error. It ends when its input does, so it cannot outlive the service.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.programs import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from guardrail.programs.desk import Desk

_MIB = 2**20
_LARGEST_FILE = 64 * _MIB
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "MemoryError")
_HINTS = {
    "TracerBoolConversionError": "inputs and latent values are traced arrays: use jax.numpy.where instead of if",
    "TracerArrayConversionError": "inputs and latent values are traced arrays: use jax.numpy instead of numpy",
    "ConcretizationTypeError": "inputs and latent values are traced arrays: use jax.numpy, not int() or float()",
}


def main() -> None:
    """Serve until the input ends."""
    memory = int(sys.argv[1]) * _MIB
    read, write = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    from guardrail.programs.desk import Desk

    desk = Desk(Path.cwd())
    _limit(memory)
    waiting: queue.SimpleQueue[tuple[dict[str, Any], messages.Arrays]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(read, waiting), daemon=True).start()
    while True:
        header, arrays = waiting.get()
        answer, out = _answer(desk, header, arrays)
        _send(write, messages.encode(answer, out))


def _limit(memory: int) -> None:
    """Let the program allocate so much beyond what is allocated now, write no large file, and leave no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        data = int(status.partition("VmData:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (data + memory, data + memory))


def _receive(descriptor: int, waiting: queue.SimpleQueue[tuple[dict[str, Any], messages.Arrays]]) -> None:
    """Read questions; the end of input is the end of the process, even in the middle of a computation."""

    def take(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            chunk = os.read(descriptor, min(count - len(parts), _MIB))
            if not chunk:
                os._exit(0)
            parts += chunk
        return bytes(parts)

    while True:
        try:
            waiting.put(messages.read(take))
        except (messages.BrokenFrame, OSError):
            os._exit(3)


def _answer(desk: Desk, header: dict[str, Any], arrays: messages.Arrays) -> tuple[dict[str, Any], messages.Arrays]:
    from guardrail.errors import GuardrailError

    try:
        asked: Callable[..., tuple[dict[str, Any], messages.Arrays]] = desk.operations[header["op"]]
        answer, out = asked(header, arrays)
        return {"ok": True, **answer}, out
    except GuardrailError as error:
        return {"ok": False, "kind": error.reason, "message": str(error)}, {}
    except MemoryError as error:
        return {"ok": False, "kind": "MEMORY", "message": f"needs more memory than it is allowed ({error})"}, {}
    except BaseException as error:  # noqa: BLE001 - whatever a program raises, SystemExit too, is an answer
        return {"ok": False, "kind": "RAISED", "message": _in_words(error, desk.folder)}, {}


def _in_words(error: BaseException, folder: Path) -> str:
    """What a program raised, and on which of its lines."""
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # What a callback raised comes as a traceback in the message, its own words at the end.
    first = lines[-1 if "callback" in lines[0] else 0][:300]
    if any(word in str(error) for word in _OUT_OF_MEMORY):
        return f"needs more memory than it is allowed ({first[:120]})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))]
    where = f" at {Path(frames[-1].filename).relative_to(folder)}:{frames[-1].lineno}" if frames else ""
    hint = f" ({_HINTS[kind]})" if kind in _HINTS else ""
    return f"raises {kind}{where}: {first}{hint}"


def _send(descriptor: int, frame: bytes) -> None:
    left = memoryview(frame)
    while left:
        left = left[os.write(descriptor, left[:_MIB]) :]


if __name__ == "__main__":
    main()
