"""The web console's place in a server process: its socket, its way to the service, its start and its end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from guardrail.errors import MissingExtra, NotServing
from guardrail.server.listening import bind

if TYPE_CHECKING:
    from guardrail.server.settings import ServerSettings

log = structlog.get_logger()


class WebConsole:
    """A console that is bound and not started yet. Blocks while it imports what it needs.

    It reaches the service over a Unix-domain socket in a folder of its own, through the gate that every caller
    passes, with the credentials of whoever signed in.

    Args:
        settings: of the server; `console_listen` is set.
        sign_in: True if callers are told apart.

    :raises MissingExtra: if NiceGUI is not installed.
    :raises NotServing: if the address cannot be bound, or a console ran in this process before.
    """

    def __init__(self, settings: ServerSettings, *, sign_in: bool) -> None:
        try:
            import nicegui  # noqa: F401
        except ImportError as error:
            raise MissingExtra("the web console", "console") from error
        from guardrail.console.origins import origins_of
        from guardrail.console.web import Console, Setup

        listen = settings.console_listen
        assert listen is not None
        listener = bind(listen, "the console")
        self._folder = Path(tempfile.mkdtemp(prefix="guardrail-console-"))
        self.address = f"unix:{self._folder / 'service'}"
        certificate = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            certificate = settings.tls_certificate, settings.tls_key
        tls, port = certificate is not None, int(listener.getsockname()[1])
        origins = origins_of(listen, port, tls=tls, more=settings.console_origins)
        try:
            self._console = Console(Setup(listener, self.address, origins, sign_in, certificate))
        except RuntimeError as error:
            listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise NotServing(f"the console cannot start: {error}") from error
        log.info("console", port=port, tls=tls, sign_in=sign_in)

    def start(self) -> None:
        """Answer from now on; the service listens on `address` already."""
        self._console.start()

    def trouble(self) -> str | None:
        """Why pages are not answered; None if they are."""
        return self._console.trouble()

    def close(self) -> None:
        """Stop, and remove the folder of the socket. Blocks, but not for long."""
        self._console.close()
        shutil.rmtree(self._folder, ignore_errors=True)
