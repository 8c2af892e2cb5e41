"""A service in a process of its own, which a test may kill. Also the program that the process runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerProcess:
    """A service; `settings` are those of `ServerSettings`, as JSON values.

    Args:
        settings: what to start it with.
        before: Python source that its process runs first, for instance to plant a fault.
    """

    def __init__(self, settings, *, before=""):
        command = [sys.executable, __file__, json.dumps(settings), before]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        # A pipe that nobody reads would hold the service up.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the process has ended
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._said, stdin=subprocess.DEVNULL, text=True, env=environment
        )
        self.port = None

    def said(self):
        """What its log says so far."""
        if not self._said.closed:
            self._said.seek(0)
            self._text = self._said.read()
        return self._text

    def wait_until_serving(self):
        """Wait until it answers; gives its port.

        :raises RuntimeError: if it ended instead; with what it said.
        """
        line = self.process.stdout.readline()
        if not line:
            self._wait()
            raise RuntimeError(self.said()[-3_000:])
        self.port = int(line)
        return self.port

    def kill(self):
        """End it as a crash does, wherever it is."""
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def terminate(self):
        """End it in good order."""
        self.process.send_signal(signal.SIGTERM)
        self._wait()
        assert self.process.returncode == 0, self.said()[-3_000:]

    def _wait(self):
        self.process.communicate(timeout=60)
        self.said()
        self._said.close()


def main():
    """Serve until SIGTERM; tells the port in one line once the service answers."""
    settings, before = json.loads(sys.argv[1]), sys.argv[2]
    exec(before, {"__name__": "before"})
    import structlog

    from guardrail.server import app
    from guardrail.server.settings import ServerSettings

    def tell(port):
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(app.serve(ServerSettings(**settings), started=tell))


if __name__ == "__main__":
    main()
