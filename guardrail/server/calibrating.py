"""The misspecification watch: whether what came of actions is what their bounds promised, while the service runs.

Worlds say that they have taken up outcomes, whoever wrote them; their logs are then read on a thread of its own, after
the reports were acknowledged. What is found lags behind a little, and says how many outcomes it rests on.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from guardrail.calibration import evidence
from guardrail.domain import Reason, ReasonCode
from guardrail.errors import GuardrailError
from guardrail.promises import ALPHA, predictions
from guardrail.server.metrics import COMPARISONS
from guardrail.server.outcome_watch import SECONDS_FOR_DECISIONS, OutcomeWatch, Progress, Standing
from guardrail.v1 import guardrail_pb2 as pb

if TYPE_CHECKING:
    from guardrail.server.metrics import Metrics
    from guardrail.server.registry import Registry
    from guardrail.server.world import World
    from guardrail.server.writer import Writer
    from guardrail.store.base import DecisionRecord, Store
    from guardrail.store.decisions import LoggedDecision

log = structlog.get_logger()

PAUSE_SECONDS: Final = 0.1
"""Between two readings: reports that come in meanwhile are read together."""
RETRY_SECONDS: Final = 0.5
"""After which a log that waits for a decision, or could not be read, is looked at again."""
MAX_RECENT: Final = 1_000
"""Decisions kept at hand, beside those that are not written yet; older ones are asked of the store."""
MAX_RECENT_BYTES: Final = 4 * 2**20
"""Of their requests."""

THRESHOLD: Final = evidence.threshold(ALPHA)
"""Log e-value, in nats, at which there is an alarm."""

Key = tuple[str, str]
"""Policy name and world id."""


class RecentDecisions:
    """The decisions that were made here last. One thread puts them in, another one asks."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[LoggedDecision, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, decision: LoggedDecision, size: int) -> None:
        """Keep a decision about a request of so many bytes; the oldest ones make room."""
        self._kept[decision.verdict.decision_id] = (decision, size)
        self._bytes += size
        while len(self._kept) > MAX_RECENT or self._bytes > MAX_RECENT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def get(self, decision_id: str) -> LoggedDecision | None:
        """A decision; None if it is not at hand."""
        found = self._kept.get(decision_id)
        return None if found is None else found[0]


class Calibrating:
    """Watches every world's promises. Call it from the event loop only.

    Args:
        registry: holds the worlds, and tells when they take up outcomes.
        writer: holds decisions that are not written yet.
        store: where the logs lie.
        metrics: show what is found.
        shared: True if other replicas write decisions to the store.
    """

    def __init__(self, registry: Registry, writer: Writer, store: Store, metrics: Metrics, *, shared: bool) -> None:
        self._registry, self._writer, self._store, self._metrics = registry, writer, store, metrics
        self._patience = SECONDS_FOR_DECISIONS if shared else 0.0
        self._recent = RecentDecisions()
        self._thread = ThreadPoolExecutor(1, "guardrail-calibration")
        self._watches: dict[Key, OutcomeWatch] = {}
        self._standings: dict[Key, Standing] = {}
        self._waiting: dict[Key, None] = {}
        self._later: set[Key] = set()
        self._failing: set[Key] = set()
        self._shown: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        registry.listeners.append(self.advanced)
        metrics.read("guardrail_calibration_waiting_worlds", lambda: len(self._waiting) + len(self._later))

    def start(self) -> None:
        """Begin. What worlds took up before is read first."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, after what is being read."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.to_thread(self._thread.shutdown)

    def decided(self, decision: LoggedDecision, size: int) -> None:
        """Keep a decision at hand; its outcome may be reported before it is written."""
        self._recent.keep(decision, size)

    def advanced(self, world: World) -> None:
        """A world has taken up outcomes, or is another one now."""
        self._soon((world.judge.policy.name, world.world_id))

    def standing(self, policy: str, world: str, revision: str, generation: int) -> Standing | None:
        """What outcomes say of the promises of a policy revision in a log; None while none can be compared."""
        found = self._standings.get((policy, world))
        if found is None or found.place != (policy, revision, world, generation) or not found.compared.outcomes:
            return None
        return found

    def notices(self, policy: str, world: str, revision: str, generation: int) -> tuple[Reason, ...]:
        """What verdicts in a world say of its alarm; nothing without one."""
        found = self.standing(policy, world, revision, generation)
        if found is None or not found.alarm:
            return ()
        told = found.compared
        message = (
            f"harm is more frequent in this world than its bounds allow ({told.harms} in {told.outcomes} outcomes, the "
            f"bounds add up to {told.bounds:.3g}; alarm at outcome {told.alarm_at}): do not rely on them"
        )
        return (Reason(ReasonCode.CALIBRATION_ALARM, message),)

    def alarms(self, policy: str) -> int:
        """Number of a policy's worlds with an alarm. Any thread may ask, as of the other numbers."""
        return sum(one.alarm for one in self._of(policy))

    def peak(self, policy: str) -> float:
        """The largest log e-value that the outcomes of one of a policy's worlds ever gave."""
        return max((one.compared.evidence.peak for one in self._of(policy)), default=0.0)

    def reports(self, policy: str, result: str) -> int:
        """Number of a policy's reports with one of `metrics.COMPARISONS`."""
        if result == "compared":
            return sum(one.compared.outcomes for one in self._of(policy))
        return sum(one.unnamed if result == "unnamed" else one.unusable for one in self._of(policy))

    def _of(self, policy: str) -> list[Standing]:
        return [one for key, one in list(self._standings.items()) if key[0] == policy]

    def _soon(self, key: Key) -> None:
        self._waiting[key] = None
        self._wake.set()

    def _again(self, key: Key) -> None:
        if key in self._later:
            return
        self._later.add(key)

        def now() -> None:
            self._later.discard(key)
            self._soon(key)

        self._loop.call_later(RETRY_SECONDS, now)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            keys, self._waiting = list(self._waiting), {}
            for key in keys:
                try:
                    await self._look(key)
                except Exception as error:  # noqa: BLE001  (logged there; the other worlds are watched all the same)
                    self._failed(key, error)
            self._forget_unloaded()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self, key: Key) -> None:
        """Read the next part of a world's log."""
        loaded = self._registry.find_policy(key[0])
        world = None if loaded is None else loaded.worlds.get(key[1])
        if loaded is None or world is None:
            self._forget(key)
            return
        policy, generation = loaded.judge.policy, world.log_generation
        watch = self._watches.get(key)
        if watch is None or watch.place != (policy.name, policy.revision, world.world_id, generation):
            watch = OutcomeWatch(self._store, policy, world.world_id, generation, self._find, self._patience)
            self._watches[key] = watch
            self._show(policy.name)
        read = partial(watch.read_on, world.committed, time.monotonic())
        progress = await self._loop.run_in_executor(self._thread, read)
        self._failing.discard(key)
        self._publish(key, watch.standing())
        if progress is Progress.MORE:
            self._soon(key)
        elif progress is Progress.HELD:
            self._again(key)

    def _failed(self, key: Key, error: Exception) -> None:
        if key not in self._failing:
            defect = None if isinstance(error, GuardrailError) else error
            log.error("outcomes_not_compared", policy=key[0], world=key[1], why=str(error), exc_info=defect)
        self._failing.add(key)
        self._again(key)

    def _publish(self, key: Key, found: Standing) -> None:
        before = self._standings.get(key)
        self._standings[key] = found
        known = before is not None and before.place == found.place and before.alarm
        if found.alarm and not known:
            told = found.compared
            log.error(
                "calibration_alarm",
                policy=key[0],
                world=key[1],
                policy_revision=found.place[1],
                generation=found.place[3],
                outcomes=told.outcomes,
                harms=told.harms,
                bounds=told.bounds,
                alarm_at=told.alarm_at,
                log_e_peak=told.evidence.peak,
                log_e_alarm=THRESHOLD,
            )

    def _find(self, decision_id: str) -> DecisionRecord | None:
        """A decision as it is, or will be, in the log. In this order: it goes from the one place to the next."""
        at_hand = self._recent.get(decision_id) or self._writer.unwritten(decision_id)
        return self._store.decision(decision_id) if at_hand is None else at_hand.to_record()

    def _show(self, policy: str) -> None:
        if policy in self._shown:
            return
        self._shown.add(policy)
        self._metrics.read("guardrail_calibration_alarms", partial(self.alarms, policy), policy)
        self._metrics.read("guardrail_calibration_log_e_peak", partial(self.peak, policy), policy)
        for result in COMPARISONS:
            self._metrics.read("guardrail_calibration_reports", partial(self.reports, policy, result), policy, result)

    def _forget(self, key: Key) -> None:
        self._watches.pop(key, None)
        self._standings.pop(key, None)
        self._failing.discard(key)

    def _forget_unloaded(self) -> None:
        loaded = {policy.name for policy in self._registry.policies()}
        if not {key[0] for key in self._watches} <= loaded:
            for key in [key for key in self._watches if key[0] not in loaded]:
                self._forget(key)


def calibration_message(standing: Standing) -> pb.Calibration:
    """What outcomes say of a world's promises, as a message."""
    told = standing.compared
    message = pb.Calibration(
        outcomes=told.outcomes,
        harms=told.harms,
        bounds=told.bounds,
        log_e_value=told.evidence.log_e_value,
        log_e_peak=told.evidence.peak,
        log_e_alarm=THRESHOLD,
        alarm=standing.alarm,
    )
    predicted = predictions(told, ALPHA)
    if predicted is not None:
        message.predicted = predicted.predicted
        message.harm_low, message.harm_high = predicted.interval
    return message
