"""What `guardrail top` knows: decisions as they come in, and frames made of them. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from guardrail.domain import Decision, ReasonCode, Verdict

WINDOW_SECONDS: Final = 60.0
"""Rates, shares and busiest worlds are those of so long."""
MAX_RECENT: Final = 20_000
"""Most decisions that are kept for the window; when there are more, the window is shorter, and says so."""
MAX_LATEST: Final = 100
"""Most decisions in a frame."""
MAX_WORLDS: Final = 20
"""Most worlds in a frame."""
OF_A_WORLD: Final = frozenset({ReasonCode.CALIBRATION_ALARM.value, ReasonCode.OUTCOME_OVERDUE.value})
"""Notices about one world, shown beside it; the others are about the service or the policy."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One decision.

    Attributes:
        at: when it was decided, seconds since the epoch, UTC.
        policy: name of the policy.
        world: the world's id.
        decision: what the policy found; in shadow mode it was let through all the same.
        shadow: True if the policy only watches.
        harm_bound: in [0, 1].
        threshold: a bound above it is rejected.
        reason: the first reason's code.
        message: the first reason's sentence.
        decision_id: names its record in the decision log.
        notices: code -> sentence, of the state in which it was decided.
    """

    at: float
    policy: str
    world: str
    decision: Decision
    shadow: bool
    harm_bound: float
    threshold: float
    reason: str
    message: str
    decision_id: str
    notices: Mapping[str, str] = field(default_factory=dict)


def seen(verdict: Verdict, at: float) -> Seen:
    """What is shown of a verdict that was decided at a time."""
    first = verdict.reasons[0] if verdict.reasons else None
    return Seen(
        at=at,
        policy=verdict.policy,
        world=verdict.world,
        decision=verdict.found,
        shadow=verdict.shadow,
        harm_bound=verdict.harm_bound,
        threshold=verdict.threshold,
        reason="" if first is None else first.code.value,
        message="" if first is None else first.message,
        decision_id=verdict.decision_id,
        notices={notice.code.value: notice.message for notice in verdict.notices},
    )


@dataclass(frozen=True, slots=True)
class Shares:
    """Decisions of a policy within the window.

    Attributes:
        policy: its name.
        loaded: True if the service has it loaded.
        per_second: how many there were a second.
        accept: how many.
        escalate: how many.
        reject: how many.
        shadow: how many of them were let through in shadow mode, whatever was found.
    """

    policy: str
    loaded: bool
    per_second: float
    accept: int
    escalate: int
    reject: int
    shadow: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.accept + self.escalate + self.reject


@dataclass(frozen=True, slots=True)
class BusyWorld:
    """A world and how many decisions there were about it within the window.

    Attributes:
        policy: name of the policy.
        world: the world's id.
        decisions: how many.
        notices: codes of those about this world that its newest decision carries.
    """

    policy: str
    world: str
    decisions: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """Whether the service answers.

    Attributes:
        connected: True if it does, and tells of its decisions.
        since: since when that is so, seconds since the epoch.
        why: why not; empty if it does.
        reconnects: how often it came back; what was decided meanwhile is missing here.
    """

    connected: bool
    since: float
    why: str
    reconnects: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that is shown at one moment.

    Attributes:
        target: the service.
        now: seconds since the epoch, UTC.
        link: whether it answers.
        health: part -> SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNREACHABLE; `""` is the service as a whole.
        window_seconds: what rates and shares are over.
        seen: number of decisions since the start.
        policies: the loaded ones and those that decided, by name.
        worlds: the busiest first, before them those with notices.
        decisions: the newest first.
        notices: code -> sentence, of the newest decision of each policy, without those about one world.
    """

    target: str
    now: float
    link: Link
    health: Mapping[str, str]
    window_seconds: float
    seen: int
    policies: Sequence[Shares]
    worlds: Sequence[BusyWorld]
    decisions: Sequence[Seen]
    notices: Mapping[str, str]


class Tally:
    """Takes in what is heard of a service. Not safe to share between threads without a lock.

    Args:
        target: the service.
        now: when it begins, seconds since the epoch, UTC.
        policy: only this policy is shown; empty for all.
    """

    def __init__(self, target: str, now: float, policy: str = "") -> None:
        self._target, self._policy, self._started = target, policy, now
        self._recent: deque[tuple[float, Seen]] = deque(maxlen=MAX_RECENT)
        self._newest: dict[str, Seen] = {}
        self._count = 0
        self._loaded: tuple[str, ...] = ()
        self._health: Mapping[str, str] = {}
        self._link = Link(connected=False, since=now, why="connecting", reconnects=0)
        self._was_connected = False

    def decided(self, decision: Seen, now: float) -> None:
        """A decision was heard of."""
        self._count += 1
        self._recent.append((now, decision))
        self._newest[decision.policy] = decision

    def answered(self, health: Mapping[str, str], policies: Sequence[str], now: float) -> None:
        """The service answered: so well are its parts, and these policies are loaded."""
        self._health = health
        self._loaded = tuple(p for p in policies if self._policy in ("", p))
        self._newest = {p: d for p, d in self._newest.items() if p in policies}
        if not self._link.connected:
            reconnects = self._link.reconnects + self._was_connected
            self._link = Link(connected=True, since=now, why="", reconnects=reconnects)
            self._was_connected = True

    def silent(self, why: str, now: float) -> None:
        """The service does not answer, or does not tell of its decisions."""
        since = now if self._link.connected else self._link.since
        self._link = Link(connected=False, since=since, why=why, reconnects=self._link.reconnects)
        self._health = {"": "UNREACHABLE"}

    def frame(self, now: float) -> Frame:
        """What there is to show."""
        start = max(self._started, now - WINDOW_SECONDS)
        if len(self._recent) == MAX_RECENT:
            start = max(start, self._recent[0][0])
        while self._recent and self._recent[0][0] < start:
            self._recent.popleft()
        window = max(now - start, 0.1)
        found: Counter[tuple[str, Decision]] = Counter()
        shadow: Counter[str] = Counter()
        worlds: Counter[tuple[str, str]] = Counter()
        newest: dict[tuple[str, str], Seen] = {}
        for _, one in self._recent:
            newest[one.policy, one.world] = one
            found[one.policy, one.decision] += 1
            shadow[one.policy] += one.shadow
            worlds[one.policy, one.world] += 1
        names = sorted({*self._loaded, *(policy for policy, _ in found)})
        policies = [
            Shares(
                policy=name,
                loaded=name in self._loaded,
                per_second=sum(found[name, decision] for decision in Decision) / window,
                accept=found[name, Decision.ACCEPT],
                escalate=found[name, Decision.ESCALATE],
                reject=found[name, Decision.REJECT],
                shadow=shadow[name],
            )
            for name in names
        ]
        told = {key: tuple(code for code in one.notices if code in OF_A_WORLD) for key, one in newest.items()}
        busiest = sorted(worlds.items(), key=lambda item: (not told[item[0]], -item[1], item[0]))[:MAX_WORLDS]
        latest = [one for _, one in sorted(self._recent, key=lambda pair: -pair[1].at)[:MAX_LATEST]]
        return Frame(
            target=self._target,
            now=now,
            link=self._link,
            health=self._health,
            window_seconds=window,
            seen=self._count,
            policies=policies,
            worlds=[BusyWorld(*key, count, told[key]) for key, count in busiest],
            decisions=latest,
            notices={
                code: text
                for one in self._newest.values()
                for code, text in one.notices.items()
                if code not in OF_A_WORLD
            },
        )
