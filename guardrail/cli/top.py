"""`guardrail top`: a service as it decides, live in a terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.connection import TlsCa, TlsCert, TlsKey, TokenFile, connect, tls_of
from guardrail.cli.console import DEFAULT_DEADLINE, DEFAULT_TARGET, AsJson, Deadline, ExitCode, Target, emit, errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    import grpc

    from guardrail.cli.top_state import Frame, Tally
    from guardrail.client.sync import Client
    from guardrail.client.watching import Watch
    from guardrail.errors import GuardrailError

RETRY_SECONDS = 0.5
"""Pause before a stream of decisions that broke is opened again."""


def top(
    target: Target = DEFAULT_TARGET,
    policy: Annotated[str, typer.Option(metavar="NAME", help="Only this policy; all, if not given.")] = "",
    world: Annotated[str, typer.Option(metavar="ID", help="Only this world; all, if not given.")] = "",
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="Time from one frame to the next.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Listen for one interval, print one frame and end; so it is in a pipe, too.")
    ] = False,
    deadline: Deadline = DEFAULT_DEADLINE,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Watch a running service: decisions as they are made, shares by policy, busiest worlds, health.

    It shows what is decided from its start on. When the service goes away it says so, and connects again by itself.
    Ctrl-C ends it. With --json each frame is one line of JSON. A bar shows the harm bound (`=`) against the
    threshold (`|`) above which an action is rejected.

    Exit status of --once: 3 if the service did not answer.
    """
    from guardrail.cli.health import open_channel

    with (
        errors(as_json),
        connect(target, deadline, token_file, tls_ca, tls_cert, tls_key) as client,
        open_channel(target, tls_of(tls_ca, tls_cert, tls_key)) as channel,
    ):
        from guardrail.cli.top_state import Tally

        feed = Feed(client, channel, Tally(target, time.time(), policy), policy, world, deadline)
        with feed.running(), _until_told() as stop:
            if once or not (as_json or sys.stdout.isatty()):
                _once(feed, stop, interval, as_json=as_json)
            elif as_json:
                while not stop.wait(interval):
                    emit(feed.look())
            else:
                _live(feed, stop, interval)


def _once(feed: Feed, stop: threading.Event, interval: float, *, as_json: bool) -> None:
    stop.wait(interval)
    frame = feed.look()
    _print(frame, as_json=as_json)
    if not frame.link.connected:
        raise typer.Exit(ExitCode.NO_ANSWER)


def _print(frame: Frame, *, as_json: bool) -> None:
    from rich.console import Console

    from guardrail.cli.top_view import View

    if as_json:
        emit(frame)
    else:
        Console(highlight=False, markup=False, emoji=False).print(View(frame, None), soft_wrap=False)


def _live(feed: Feed, stop: threading.Event, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from guardrail.cli.top_view import View

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            live.update(View(feed.look(), console.size.height), refresh=True)
            if stop.wait(interval):
                return


@contextlib.contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the terminal is left as it was."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Feed:
    """Fills a tally from a service: a thread listens to its decisions, `look` asks how it is."""

    def __init__(
        self, client: Client, channel: grpc.Channel, tally: Tally, policy: str, world: str, deadline: float
    ) -> None:
        self._client, self._channel, self._tally = client, channel, tally
        self._policy, self._world, self._deadline = policy, world, deadline
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stream: Watch | None = None
        self._broken: GuardrailError | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Listen while inside."""
        thread = threading.Thread(target=self._listen, name="guardrail-top", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._hang_up()
            thread.join(self._deadline)

    def look(self) -> Frame:
        """Ask how the service is, and put together what is to be shown.

        :raises Unauthenticated: if the service does not know who asks.
        :raises PermissionDenied: if it does not show this caller its decisions.
        """
        from guardrail.cli.health import ask
        from guardrail.errors import GuardrailError, PermissionDenied, Unauthenticated
        from guardrail.server.health import NAMES

        why, health, policies = "", {}, []
        try:
            policies = [one.name for one in self._client.policies()]
            health = {
                name: ask(self._channel, name, self._deadline)[0]
                for name in NAMES
                if not name.endswith("v1.GuardrailService")
            }
        except (Unauthenticated, PermissionDenied):
            raise
        except GuardrailError as error:
            why = str(error)
            self._hang_up()  # a connection that died silently would keep the stream waiting
        broken = self._broken
        if isinstance(broken, Unauthenticated | PermissionDenied):
            raise broken
        if not why and broken is not None:
            why = f"the stream of decisions broke: {broken}"
        with self._lock:
            now = time.time()
            if why:
                self._tally.silent(why, now)
            else:
                self._tally.answered({n: s for n, s in health.items() if s != "SERVICE_UNKNOWN"}, policies, now)
            return self._tally.frame(now)

    def _hang_up(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.close()

    def _listen(self) -> None:
        from guardrail.cli.top_state import seen
        from guardrail.errors import GuardrailError, ServiceError

        while not self._ended.is_set():
            try:
                with self._client.watch(self._policy or None, self._world or None) as stream:
                    self._stream = stream
                    if stream.begin():
                        self._broken = None
                    for logged in stream:
                        with self._lock:
                            self._tally.decided(seen(logged.verdict, logged.decided_at.timestamp()), time.time())
                self._broken = ServiceError("it ended", "UNREACHABLE", "UNAVAILABLE")
            except GuardrailError as error:
                self._broken = error
            self._ended.wait(RETRY_SECONDS)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: guardrail top --policy tool-calls")(top)
