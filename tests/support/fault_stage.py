"""A service under load whose parts a test may break: its store, its engine, its clock, its network, its files."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from load import Load
from running_service import POLICY, KeptMetrics, Service
from server_process import free_port

from guardrail.errors import GuardrailError, StoreError
from guardrail.server import app
from guardrail.server.settings import ServerSettings
from guardrail.store import open_store

WORLDS = ("w0", "w1", "w2")


class FaultyStore:
    """A real store. `faults` holds, by the name of a method, what is called instead: with the real one first."""

    def __init__(self, store):
        self._store = store
        self.faults = {}

    def __getattr__(self, name):
        real = getattr(self._store, name)

        def call(*arguments, **options):
            fault = self.faults.get(name)
            return real(*arguments, **options) if fault is None else fault(real, *arguments, **options)

        return call if callable(real) else real


class Stage:
    """The service, its files and its load."""

    def __init__(self, folder, monkeypatch, *, store=None, options=None, load=None, proxied=False):
        monkeypatch.setattr(app, "Metrics", KeptMetrics)
        # The format for terminals takes a second for each traceback, on the thread that logs.
        structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
        self.stores = []
        monkeypatch.setattr(app, "open_store", self._open)
        self.policy = folder / "policies" / "coin" / "policy.yaml"
        self.policy.parent.mkdir(parents=True)
        self.policy.write_text(POLICY)
        self.database = store or folder / "guardrail.db"
        self.port = free_port()
        self.settings = ServerSettings(
            listen=f"127.0.0.1:{self.port}",
            policies=(folder / "policies",),
            store=self.database,
            compilation_cache=Path(os.environ.get("PYTEST_KERNELS") or folder / "kernels"),
            # A busy machine is no fault of the row's.
            **{"drain_seconds": 2.0, "max_check_wait_seconds": 30.0, **(options or {})},
        )
        self.proxy = Proxy(self.port) if proxied else None
        self.service = None
        self.start()
        port = self.proxy.port if proxied else self.port
        self.load = Load(f"127.0.0.1:{port}", **{"worlds": WORLDS, "timeout": 10.0, **(load or {})}).start()

    def _open(self, *arguments, **options):
        self.stores.append(FaultyStore(open_store(*arguments, **options)))
        return self.stores[-1]

    @property
    def faults(self):
        """What is called instead of the store's methods; see `FaultyStore`."""
        return self.stores[-1].faults

    def start(self):
        """Start the service."""
        self.service = Service(self.settings).start()

    def stop(self):
        """Stop the service in good order."""
        self.service.stop()

    def metric(self, name, labels):
        """A metric of the present service, which may be another one than before."""
        return self.service.metric(name, **labels)

    def client(self, **options):
        """A client of its own."""
        return self.service.client(**options)

    def health(self, name=""):
        """True if health answers SERVING for a name."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            request = health_pb2.HealthCheckRequest(service=name)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=20, wait_for_ready=True)
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def finish(self):
        """Stop everything; what must hold of all answers does."""
        self.load.progress()
        self.load.wait_for(self.health)
        self.load.stop()
        self.stop()
        with closing(open_store(self.database)) as store:
            return self.load.verify(store)

    def close(self):
        """Let go of everything, whatever became of the test."""
        structlog.reset_defaults()
        self.load._stopping.set()
        with contextlib.suppress(Exception):
            self.stop()
        if self.proxy is not None:
            self.proxy.close()

    @contextlib.contextmanager
    def sql(self):
        """A connection to the file of the database, while no service has it."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            yield connection


class Hold:
    """Calls that come here wait until they are let go."""

    def __init__(self):
        self._go = threading.Event()

    def wait(self):
        """Wait."""
        assert self._go.wait(120)

    def let_go(self):
        """Let everybody go, now and later."""
        self._go.set()


class Proxy:
    """Carries connections to a port until it is told to cut them."""

    def __init__(self, port):
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open = []
        self._carriers = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self):
        """Reset every connection that is open now."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._server.close()
        self.cut()
        for thread in self._carriers:
            thread.join(20)
        for one in self._open:
            one.close()

    def _serve(self):
        while True:
            try:
                inner = self._server.accept()[0]
                self._open.append(inner)
                outer = socket.create_connection(("127.0.0.1", self._to))
                self._open.append(outer)
            except OSError:
                return
            for source, sink in ((inner, outer), (outer, inner)):
                self._carriers.append(threading.Thread(target=self._carry, args=(source, sink), daemon=True))
                self._carriers[-1].start()

    def _carry(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Clock:
    """The module `time` with a wall clock that is off by an offset.

    It stands in for the module in the service's own code. gRPC reads the clock, too, and knows how to tell a
    caller's deadline from it only if all of the process sees the same jump, which nobody but the system can make.
    """

    def __init__(self):
        self.offset = 0.0

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        """Seconds since the epoch, plus the offset."""
        return time.time() + self.offset


def no_room(real, *arguments, **options):
    """What a store says whose disk is full."""
    raise StoreError("the database has no room left: free some disk space and try again")


def reason_of(call):
    """The reason with which a call fails; None if it does not."""
    try:
        call()
    except GuardrailError as error:
        return error.reason
    return None
