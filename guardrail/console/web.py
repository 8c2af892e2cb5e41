"""The console's thread: NiceGUI behind the door, on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from guardrail.console import login, pages
from guardrail.console.desk import Desk
from guardrail.console.door import Door
from guardrail.console.pulse import Pulse
from guardrail.console.sessions import Attempts, Sessions
from guardrail.console.words import PARTS

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from guardrail.console.origins import Origins
    from guardrail.console.sessions import Session

log = structlog.get_logger()

MAX_CONNECTIONS: Final = 512
MAX_SOCKET_BYTES: Final = 2**18
"""Longest message that a page may send."""
BEAT_SECONDS: Final = 1.0
VERIFY_SECONDS: Final = 2.0
"""How often the service is asked whether it still knows the credentials of those who have a page open."""
SILENT_SECONDS: Final = 10.0
"""If its event loop did not run for so long, the console hangs."""
CLOSE_SECONDS: Final = 5.0
"""How long the end of the process waits for the console's."""

_started = threading.Lock()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a console needs.

    Attributes:
        listener: where it listens, bound already.
        target: the service, as a gRPC target.
        origins: under which names it is reached.
        sign_in: True if people sign in; False if callers are not told apart.
        certificate: its certificate chain and private key, PEM; None for plain HTTP.
    """

    listener: socket.socket
    target: str
    origins: Origins
    sign_in: bool
    certificate: tuple[Path, Path] | None


class Console:
    """Serves pages. NiceGUI keeps its state in its modules, so that a process can run one console, once.

    :raises RuntimeError: if one ran in this process before.
    """

    def __init__(self, setup: Setup) -> None:
        if not _started.acquire(blocking=False):
            raise RuntimeError("a process runs one console, once")
        self._setup = setup
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._closing = threading.Event()
        self._beat = time.monotonic()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="guardrail-console", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._setup.listener.getsockname()[1])

    def start(self) -> None:
        """Answer from now on. Returns at once."""
        self._thread.start()

    def trouble(self) -> str | None:
        """Why pages are not answered; None if they are. Any thread may ask."""
        if self._failure is not None:
            return self._failure
        if self._thread.is_alive() and time.monotonic() - self._beat > SILENT_SECONDS:
            return "the console's event loop hangs"
        return None

    def close(self) -> None:
        """Stop. Blocks until the thread has ended, but not for long: nothing waits for a console that hangs."""
        self._closing.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.warning("console_left_behind", meaning="its thread did not end in time")
        with contextlib.suppress(OSError):
            self._setup.listener.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(self._serve())
            if not self._closing.is_set():
                self._failure = "the console's thread ended"
        except BaseException as error:  # uvicorn ends by SystemExit; whatever it is, checks go on
            self._failure = f"the console's thread died: {type(error).__name__}"
            log.error("console_died", exc_info=error, meaning="pages are not answered; checks are not affected")
        finally:
            with contextlib.suppress(OSError):
                self._setup.listener.close()

    async def _serve(self) -> None:
        setup = self._setup
        sessions = Sessions(lambda token: Desk(setup.target, token))
        anyone = None if setup.sign_in else sessions.open(None)[1]
        pulse = Pulse(setup.target, tuple(PARTS))
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        door = Door(app, setup.origins, sessions, anyone, self.port)
        app.router.routes.extend(login.routes(door, setup.origins, sessions, Attempts()))
        pages.add_to(app, pages.House(sessions, pulse, door, signs_in=setup.sign_in))
        files = setup.certificate
        config = uvicorn.Config(
            GZipMiddleware(door, minimum_size=1_000),
            lifespan="on",
            ws="websockets-sansio",
            ws_max_size=MAX_SOCKET_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=None if files is None else files[0],
            ssl_keyfile=None if files is None else files[1],
        )
        config.load()
        self._server = uvicorn.Server(config)
        if self._closing.is_set():
            return
        pulse.start()
        beating = asyncio.create_task(self._keep_beating(sessions, anyone, config))
        verifying = asyncio.create_task(_keep_verifying(sessions))
        try:
            await self._server.serve(sockets=[setup.listener])
        finally:
            beating.cancel()
            verifying.cancel()
            sessions.close()
            await asyncio.to_thread(pulse.stop)

    async def _keep_beating(self, sessions: Sessions, anyone: Session | None, config: uvicorn.Config) -> None:
        """Show that the loop runs, end sessions that are over, and use a new certificate once it is there."""
        stamp = _stamp(self._setup.certificate)
        while True:
            self._beat = time.monotonic()
            if anyone is not None:
                anyone.opened_at = anyone.used_at = self._beat  # nobody signs in, so nobody is signed out
            sessions.sweep()
            fresh = _stamp(self._setup.certificate)
            if fresh != stamp and self._setup.certificate is not None and config.ssl is not None:
                stamp = fresh
                try:
                    config.ssl.load_cert_chain(*self._setup.certificate)
                except OSError as error:
                    log.error("console_certificate_not_read", why=str(error))
            await asyncio.sleep(BEAT_SECONDS)


async def _keep_verifying(sessions: Sessions) -> None:
    """A page that only listens would not notice that its credential was revoked."""
    while True:
        await asyncio.sleep(VERIFY_SECONDS)
        looking = [one.desk.policies() for one in sessions if one.pages]
        await asyncio.gather(*looking, return_exceptions=True)  # the desk notes what matters: a credential refused


def _stamp(files: tuple[Path, Path] | None) -> Any:
    try:
        return None if files is None else [os.stat(path).st_mtime_ns for path in files]
    except OSError:
        return None
