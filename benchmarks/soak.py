"""An hour of work as fast as it goes: does the service's memory stay where it is?

Checks and reports on several worlds, policies that are loaded again (changed, unchanged, and broken), watchers that
come and go, and callers that fail: bytes that are no request, unknown policies, deadlines that pass, calls that are
cancelled. The service runs in a process of its own; its resident memory is read as the work goes on, and a line
through what was read after a warm-up says what an hour adds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

import guardrail
from benchmarks.service import CHECK, POLICY, service_process
from guardrail.errors import GuardrailError, NoVerdict

CHECKS = 72_000
"""An hour at 20 a second."""
CHECKS_PER_REPORT = 10
RELOADS = 24
WORLDS = 8
WORKERS = 24
SAMPLES = 60
WARM_UP = 1 / 3
"""Share of the work before the memory counts."""


@dataclass(frozen=True)
class Soak:
    """What is done.

    Attributes:
        checks: how many; one in CHECKS_PER_REPORT of them is followed by a report.
        reloads: how often the policies are loaded again.
    """

    checks: int = CHECKS
    reloads: int = RELOADS


async def work(port: int, pid: int, policy: Path, soak: Soak) -> list[tuple[int, int]]:
    """Do it; the number of checks done and the service's resident bytes, SAMPLES times."""
    process = psutil.Process(pid)
    samples: list[tuple[int, int]] = []
    turns = itertools.count(1)
    every, reload_every = max(1, soak.checks // SAMPLES), max(1, soak.checks // (soak.reloads + 1))
    text = POLICY.read_text()
    async with (
        guardrail.AsyncClient(f"127.0.0.1:{port}", timeout=60.0) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        async def worker() -> None:
            for turn in turns:
                if turn > soak.checks:
                    return
                await _turn(client, turn)
                if turn % 50 == 0:
                    await _fail(client, channel, turn)
                if turn % 400 == 0:
                    await _watch_a_while(client)
                if turn % reload_every == 0:
                    await _reload(client, policy, text, turn // reload_every)
                if turn % every == 0:
                    samples.append((turn, process.memory_info().rss))

        await asyncio.gather(*(worker() for _ in range(WORKERS)))
    return sorted(samples)


async def _turn(client: guardrail.AsyncClient, turn: int) -> None:
    """A check, and now and then a report, in one of the worlds."""
    world = f"passing-{turn}" if turn % 5 == 1 else f"soak-{turn % WORLDS}"  # a check makes no world
    asked: dict[str, Any] = {"policy": "exploding-bandit", "world": world, "context": {}}
    asked["action"] = {"features": [float(turn >> place & 1) for place in range(10)]}
    while True:
        try:
            await client.check(**asked)
        except NoVerdict as error:
            if error.retry_after is None:
                raise
            await asyncio.sleep(error.retry_after)
        else:
            break
    if turn % CHECKS_PER_REPORT == 0:
        await client.report(**asked, outcome=0.1 * (turn % 7), observation_id=f"observation-{turn}")


async def _fail(client: guardrail.AsyncClient, channel: grpc.aio.Channel, turn: int) -> None:
    """Callers that do it wrong, one after the other."""
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
    kind = turn // 50 % 5
    with contextlib.suppress(GuardrailError, grpc.aio.AioRpcError, asyncio.CancelledError):
        if kind == 0:
            await method(b"\xff" * 100)
        elif kind == 1:
            await client.check(policy="nobody", world="w", context={}, action={})
        elif kind == 2:
            await client.check(policy="exploding-bandit", world="w", context={}, action={}, timeout=1e-4)
        elif kind == 3:
            await client.report(policy="exploding-bandit", world=f"w-{turn}", context={}, action={}, outcome="none")
        else:
            call = method(b"")
            call.cancel()
            await call


async def _watch_a_while(client: guardrail.AsyncClient) -> None:
    watching = client.watch(policy="exploding-bandit")
    with contextlib.suppress(GuardrailError, TimeoutError):
        async with asyncio.timeout(0.5):
            async for _ in watching:
                break
    watching.close()


async def _reload(client: guardrail.AsyncClient, policy: Path, text: str, number: int) -> None:
    """Load the policies again: changed, unchanged, and broken."""
    changed = text.replace("delta: 0.05", "delta: 0.04") if number % 2 else text
    await asyncio.to_thread(policy.write_text, "no policy" if number % 3 == 2 else changed)
    with contextlib.suppress(GuardrailError):
        await client.reload_policies()
    await asyncio.to_thread(policy.write_text, text)


def slope(samples: list[tuple[int, int]]) -> float:
    """Bytes that a check adds, by least squares over what comes after the warm-up."""
    last = samples[-1][0]
    steady = [(turn, size) for turn, size in samples if turn > WARM_UP * last]
    return statistics.linear_regression(*zip(*steady, strict=True)).slope


def soaked(soak: Soak) -> list[tuple[int, int]]:
    """Start a service, let it work, and stop it; the samples of its memory."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY.read_text())
        with service_process(Path(folder) / "guardrail.db", policy) as (port, pid):
            return asyncio.run(work(port, pid, policy, soak))


def run() -> dict[str, Any]:
    """An hour's worth."""
    soak = Soak()
    samples = soaked(soak)
    return {
        "checks": soak.checks,
        "reports": soak.checks // CHECKS_PER_REPORT,
        "samples": [{"checks": turn, "resident_bytes": size} for turn, size in samples],
        "bytes_per_check": slope(samples),
    }


def report(result: dict[str, Any]) -> str:
    """The result for a person."""
    samples = result["samples"]
    shown = samples[:: max(1, len(samples) // 12)]
    sizes = "  ".join(f"{s['resident_bytes'] / 2**20:.0f}" for s in shown)
    each = result["bytes_per_check"]
    return "\n".join(
        (
            f"Soak: {result['checks']} checks, {result['reports']} reports, {RELOADS} reloads, watchers, bad callers",
            f"  resident memory, MiB     {sizes}",
            f"  after the warm-up        {each * CHECKS / 2**20:+.1f} MiB an hour ({each:+.1f} bytes a check)",
        )
    )


if __name__ == "__main__":
    print(report(run()))
