"""How the service is, by `grpc.health.v1`: asked again and again on a thread, for all pages at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guardrail.client._call import CHANNEL_OPTIONS

PERIOD_SECONDS: Final = 0.5
ASK_SECONDS: Final = 2.0

SERVING, NOT_SERVING, UNKNOWN = "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Beat:
    """What the service said of its health.

    Attributes:
        parts: name -> SERVING or NOT_SERVING; of the newest answer, also if it is old.
        at: when it answered, seconds since the epoch, UTC; 0 if never.
        why: why it does not answer; empty if it does.
    """

    parts: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0
    why: str = "no answer yet"


class Pulse:
    """Asks after the parts of a service.

    Args:
        target: the service.
        names: of the parts.
    """

    def __init__(self, target: str, names: tuple[str, ...]) -> None:
        self._channel = grpc.insecure_channel(target, options=(*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)))
        self._stub: Any = health_pb2_grpc.HealthStub(self._channel)
        self._names = names
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="guardrail-console-pulse", daemon=True)
        self.beat = Beat()

    def start(self) -> None:
        """Ask from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. Blocks for as long as one answer may take."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * ASK_SECONDS)
        self._channel.close()

    def _keep_asking(self) -> None:
        while not self._stopped.is_set():
            self._ask_all()
            self._stopped.wait(PERIOD_SECONDS)

    def _ask_all(self) -> None:
        try:
            parts = {name: self._ask(name) for name in self._names}
        except grpc.RpcError as error:
            code = _code(error)
            self.beat = Beat(self.beat.parts, self.beat.at, f"the service does not answer ({code})")
        else:
            self.beat = Beat({name: status for name, status in parts.items() if status != UNKNOWN}, time.time(), "")

    def _ask(self, name: str) -> str:
        try:
            reply = self._stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=ASK_SECONDS)
        except grpc.RpcError as error:
            if _code(error) == "NOT_FOUND":
                return UNKNOWN
            raise
        return SERVING if reply.status == health_pb2.HealthCheckResponse.SERVING else NOT_SERVING


def _code(error: Any) -> str:
    """The name of the status that a call ended with."""
    return str(error.code().name)
