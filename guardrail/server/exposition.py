"""Metrics and health over plain HTTP, on a thread and an event loop of their own.

`GET /metrics` is what Prometheus reads; `GET /health` answers 200 while checks are answered, and 503 otherwise: also
if the service's own event loop hangs, or has more calls to read than it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from guardrail.server.listening import bind

log = structlog.get_logger()

MAX_HEAD: Final = 8_192
"""Bytes of the longest request that is read."""
READ_SECONDS: Final = 5.0
"""How long a client may take to send its request, and to take the answer."""
MAX_CONNECTIONS: Final = 16
"""Connections at once; further ones are closed."""


class Exposition:
    """Serves one registry.

    Args:
        listen: host:port; port 0 picks a free one.
        registry: what is served.

    Attributes:
        serving: what `GET /health` asks, on another thread.

    :raises NotServing: if the address cannot be bound.
    """

    def __init__(self, listen: str, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.serving: Callable[[], bool] = lambda: False
        self._socket = bind(listen, "metrics")
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="guardrail-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop. Blocks until the thread has ended."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=MAX_HEAD)
        async with server:
            await self._stop.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(READ_SECONDS):
                    writer.write(await self._reply(reader))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # whoever is slow or gone gets nothing
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response("431 Request Header Fields Too Large", b"the request is too long\n")
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        if target not in (b"/metrics", b"/health"):
            return _response("404 Not Found", b"there are /metrics and /health only\n")
        if method != b"GET":
            return _response("405 Method Not Allowed", b"GET only\n", "Allow: GET\r\n")
        if target == b"/health":
            up = self.serving()
            return _response("200 OK", b"serving\n") if up else _response("503 Service Unavailable", b"not serving\n")
        try:
            return _response("200 OK", generate_latest(self._registry), kind=CONTENT_TYPE_LATEST)
        except Exception:
            log.exception("metrics_failed")
            return _response("500 Internal Server Error", b"the server's log has it\n")


def _response(status: str, body: bytes, more: str = "", kind: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body
