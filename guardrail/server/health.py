"""What the service says of its own health, derived from the states of its parts.

`grpc.health.v1` answers for these names:

- the empty name and `guardrail.v1.GuardrailService`: whether checks are answered here;
- `guardrail.policies`: whether the policy files are loaded as they are;
- `guardrail.decision-log`: whether decisions are logged;
- `guardrail.following`: whether this replica knows what others wrote to the log;
- `guardrail.console`: whether the web console is answered; unknown where there is none;
- `guardrail.outcomes`: whether the outcomes of accepted actions are reported in time, where a policy sets one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from guardrail.server.contract import SERVICE

if TYPE_CHECKING:
    from guardrail.server.metrics import Metrics

log = structlog.get_logger()

POLICIES: Final = "guardrail.policies"
DECISION_LOG: Final = "guardrail.decision-log"
FOLLOWING: Final = "guardrail.following"
CONSOLE: Final = "guardrail.console"
OUTCOMES: Final = "guardrail.outcomes"
NAMES: Final = ("", SERVICE, POLICIES, DECISION_LOG, FOLLOWING, OUTCOMES)

REVIEW_SECONDS: Final = 0.1
"""How often the states are looked at: a change is pushed within that time."""
MAX_WATCHES: Final = 256
"""Most health Watch streams at once; more are refused with RESOURCE_EXHAUSTED."""

SILENT_SECONDS: Final = 5.0
"""If the states were not looked at for so long, the event loop hangs."""

_Status = health_pb2.HealthCheckResponse


@dataclass(frozen=True, slots=True)
class States:
    """The states of the parts.

    Attributes:
        phase: of the process.
        decision_log: why decisions cannot be written; None if they can.
        store: why the store cannot be used; None if it can.
        kernel: why harm bounds are not computed; None if they are.
        policies_stale: True if the policy files could not be loaded as they are.
        behind: True if the log may hold outcomes that this replica does not know.
        console: `serving`, or why the web console is not answered; None if there is none.
        owing: True if an outcome is overdue, or that is not known.
    """

    phase: Literal["starting", "serving", "stopping"]
    decision_log: str | None = None
    store: str | None = None
    kernel: str | None = None
    policies_stale: bool = False
    behind: bool = False
    console: str | None = None
    owing: bool = False


def derive(states: States) -> Mapping[str, bool]:
    """Name -> whether health answers SERVING. Every doubt takes the service out of rotation."""
    up = states.phase == "serving"
    logging = states.decision_log is None and states.store is None
    answering = up and logging and states.kernel is None
    console = {} if states.console is None else {CONSOLE: up and states.console == "serving"}
    return {
        "": answering,
        SERVICE: answering,
        POLICIES: up and not states.policies_stale,
        DECISION_LOG: up and logging,
        FOLLOWING: up and not states.behind,
        OUTCOMES: up and not states.owing,
        **console,
    }


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """`grpc.health.v1.Health`. Unlike the library's, a watcher that does not read holds nobody up.

    Watches end once the service has stopped, so that they do not delay its end.
    """

    def __init__(self) -> None:
        self._serving: Mapping[str, bool] = dict.fromkeys(NAMES, False)
        self._changed = asyncio.Event()
        self._watches = 0
        self._closed = False

    def announce(self, serving: Mapping[str, bool]) -> None:
        """Answer so from now on; watchers are told."""
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End watches, after their last answer."""
        self._closed = True
        self._changed.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The status of a name; NOT_FOUND for one that is not in NAMES."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"health knows {', '.join(map(repr, NAMES))}")
        return _Status(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """The status of a name now and after each change."""
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} callers watch health already")
        self._watches += 1
        try:
            told = None
            while True:
                changed, status = self._changed, self._status(request.service)
                if status != told:
                    await context.write(_Status(status=status))
                    told = status
                elif self._closed:
                    return
                else:
                    await changed.wait()
        finally:
            self._watches -= 1

    def _status(self, name: str) -> Any:
        if name not in self._serving:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._serving[name] else _Status.NOT_SERVING


class Health:
    """Looks at the states again and again, and announces what follows from them.

    Args:
        servicer: what is told.
        metrics: are told, too.
        look: the present states; called on the event loop.
    """

    def __init__(self, servicer: HealthServicer, metrics: Metrics, look: Callable[[], States]) -> None:
        self._servicer, self._metrics, self._look = servicer, metrics, look
        self._announced: Mapping[str, bool] = {}
        self._phase = "starting"
        self._reviewed = 0.0
        self._stopping = False

    def review(self) -> None:
        """Derive and announce, now."""
        states = self._look()
        serving = derive(States("stopping") if self._stopping else states)
        if serving != self._announced:
            if self._phase == states.phase == "serving" and not self._stopping:
                log.log(20 if serving[""] else 30, "health", serving=serving[""], states=_told(states))
            self._announced = serving
            for name, up in serving.items():
                self._metrics.health(name, serving=up)
            self._servicer.announce(serving)
        self._phase = states.phase
        self._reviewed = time.monotonic()

    def serving(self) -> bool:
        """True if checks are answered, and the event loop runs. Any thread may ask."""
        return self._announced.get("", False) and time.monotonic() - self._reviewed < SILENT_SECONDS

    def stop(self) -> None:
        """NOT_SERVING from now on, for good."""
        self._stopping = True
        self.review()
        self._servicer.close()

    async def keep_reviewing(self) -> None:
        """Review until cancelled; measures on the way how late the event loop is."""
        while True:
            due = time.perf_counter() + REVIEW_SECONDS
            await asyncio.sleep(REVIEW_SECONDS)
            self._metrics.event_loop_lag(max(0.0, time.perf_counter() - due))
            self.review()


def _told(states: States) -> dict[str, Any]:
    told = {name: getattr(states, name) for name in States.__slots__}
    return {name: value for name, value in told.items() if value not in (None, False, "serving") or name == "phase"}
