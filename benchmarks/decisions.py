"""What decisions over time cost: checks that keep something durable before the reply, against one that does not.

One service holds the same policy several times: as it is, with a harm budget for each session, with escalations, and
with outcomes that are awaited. Rounds alternate between them; the ratio of a round is that of neighbours.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.service import CHECK, IN_FLIGHT, POLICY, Call, guardrail_process, raw_call
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import dict_to_struct

ROUNDS = 5
SEQUENTIAL = 200
CONCURRENT = 1_000
_DECISION = "decision: {reject_above: 0.2}"


@dataclass(frozen=True)
class Variant:
    """One way to decide.

    Attributes:
        about: what it keeps before the reply.
        decision: the policy's lines in place of `decision: {reject_above: 0.2}`.
        expected: what the checks say.
    """

    about: str
    decision: str
    expected: pb.Decision.ValueType


VARIANTS = {
    "plain": Variant("nothing", _DECISION, pb.DECISION_ACCEPT),
    "budget": Variant(
        "a share of a budget",
        "decision: {reject_above: 0.2, budget: {per: session, total: 0.5}}",
        pb.DECISION_ACCEPT,
    ),
    "escalation": Variant(
        "an escalation", "decision: {reject_above: 0.2, escalate_above: 0.001}", pb.DECISION_ESCALATE
    ),
    "awaited": Variant(
        "an awaited outcome", f"{_DECISION}\nreporting: {{within: 24h, overdue: reject}}", pb.DECISION_ACCEPT
    ),
}


def write_policies(folder: Path) -> None:
    """One file for each variant."""
    text = POLICY.read_text()
    for name, variant in VARIANTS.items():
        (folder / name).mkdir()
        changed = text.replace("name: exploding-bandit", f"name: {name}").replace(_DECISION, variant.decision)
        (folder / name / "policy.yaml").write_text(changed)


def messages(name: str) -> Iterator[bytes]:
    """Checks of a variant, serialised; each is the first of its session."""
    action = dict_to_struct({"features": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]})
    for number in itertools.count():
        request = pb.CheckActionRequest(policy=name, world="bench", action=action, session=f"session-{number}")
        yield request.SerializeToString()


async def _p50(call: Call, asked: Iterator[bytes]) -> float:
    times = []
    for message in itertools.islice(asked, SEQUENTIAL):
        start = time.perf_counter()
        await call(message)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def _rate(call: Call, asked: Iterator[bytes]) -> float:
    left = iter(list(itertools.islice(asked, CONCURRENT)))

    async def worker() -> None:
        for message in left:
            await call(message)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return CONCURRENT / (time.perf_counter() - start)


async def measure(port: int) -> dict[str, Any]:
    """Alternate rounds of all variants; medians over rounds, and medians of each round's ratio to the plain one."""
    asked = {name: messages(name) for name in VARIANTS}
    p50: dict[str, list[float]] = {name: [] for name in VARIANTS}
    rate: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with raw_call(port, CHECK) as call:
        for name, variant in VARIANTS.items():
            await _rate(call, asked[name])
            verdict = pb.CheckActionResponse.FromString(await call(next(asked[name]))).verdict
            if verdict.decision != variant.expected:
                raise RuntimeError(f"{name}: the service says {verdict}, not {pb.Decision.Name(variant.expected)}")
        for _ in range(ROUNDS):
            for name in VARIANTS:
                p50[name].append(await _p50(call, asked[name]))
            for name in VARIANTS:
                rate[name].append(await _rate(call, asked[name]))
    return {
        name: {
            "p50_ms": 1e3 * statistics.median(p50[name]),
            "p50_ratio": statistics.median(a / b for a, b in zip(p50[name], p50["plain"], strict=True)),
            "per_second": statistics.median(rate[name]),
            "rate_ratio": statistics.median(a / b for a, b in zip(rate[name], rate["plain"], strict=True)),
        }
        for name in VARIANTS
    }


def run() -> dict[str, Any]:
    """Start a service and measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        write_policies(folder / "policies")
        with guardrail_process(folder / "guardrail.db", folder / "policies") as port:
            return asyncio.run(measure(port))


def report(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [
        f"CheckAction by what is durable before the reply (SQLite, {IN_FLIGHT} in flight for the rate)",
        "  keeps                       p50    ratio    checks/s    ratio",
    ]
    for name, row in result.items():
        lines.append(
            f"  {VARIANTS[name].about:22} {row['p50_ms']:6.2f} ms {row['p50_ratio']:8.2f} {row['per_second']:11.0f}"
            f" {row['rate_ratio']:8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(run()))
