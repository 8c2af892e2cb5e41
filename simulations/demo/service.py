"""The guardrail service as a subprocess: started, waited for, and stopped gracefully."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_SECONDS = 120.0
STOP_SECONDS = 30.0


class DemoServiceError(RuntimeError):
    """The service did not start, or did not stop as it should."""


@contextlib.contextmanager
def service(policies: Sequence[Path], store: Path, log: Path) -> Iterator[str]:
    """Run `guardrail serve` on a free loopback port; yields its address once it answers.

    Args:
        policies: policy files.
        store: the database.
        log: where the service's log lines go.

    :raises DemoServiceError: if it does not answer, or ends with an error.
    """
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += [f"--policies={policy}" for policy in policies]
    with log.open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603  (our own program)
            [*command, f"--store={store}"], stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL
        )
    with process:
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    if status != 0:
        raise DemoServiceError(f"the service ended with status {status}\n{_tail(log)}")


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else b""
    if not line:
        raise DemoServiceError(f"the service did not start\n{_tail(log)}")
    return str(json.loads(line)["listen"])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
