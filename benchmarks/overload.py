"""More checks than the service can answer: what becomes of those that it takes on, and of the others.

Client processes send at a fixed rate, whatever comes back (an open loop), at half, one and two times the rate at which
the service is saturated. A health watch runs beside them. Everything shares one machine: what a rate is worth differs
from run to run, so latencies are ratios to the 99th percentile at half load of the same run.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.service import CHECK, POLICY, guardrail_process, raw_call, request, throughput

LOADS = (0.5, 1.0, 2.0)
SECONDS = 5.0
CLIENTS = 2
SATURATING_CALLS = 3_000


async def saturating_rate(port: int) -> float:
    """Checks per second with 32 of them under way."""
    async with raw_call(port, CHECK) as check:
        message = request()
        await throughput(check, message, SATURATING_CALLS // 3)
        return await throughput(check, message, SATURATING_CALLS)


async def offer(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Let the clients send `rate` checks per second together; what became of them, and what health said meanwhile."""
    processes = []
    for _ in range(CLIENTS):
        command = [sys.executable, "-m", "benchmarks.open_loop", str(port), str(rate / CLIENTS), str(seconds)]
        processes.append(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE))
    seen: list[int] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watching = asyncio.create_task(_watch(channel, seen.append))
        answers = [json.loads((await process.communicate())[0]) for process in processes]
        watching.cancel()
    answered = [seconds for answer in answers for seconds in answer["answered"]]
    shed = [seconds for answer in answers for seconds in answer["shed"]]
    lost = sum(answer["lost"] for answer in answers)
    calls, took = len(answered) + len(shed) + lost, max(answer["seconds"] for answer in answers)
    return {
        "offered_per_second": calls / took,
        "admitted_per_second": len(answered) / took,
        "shed_share": len(shed) / calls,
        "lost_share": lost / calls,
        "p50_ms": 1e3 * percentile(answered, 0.5),
        "p99_ms": 1e3 * percentile(answered, 0.99),
        "shed_p50_ms": 1e3 * percentile(shed, 0.5),
        "always_serving": set(seen) <= {health_pb2.HealthCheckResponse.SERVING},
    }


async def _watch(channel: grpc.aio.Channel, see: Callable[[int], None]) -> None:
    async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
        see(answer.status)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; NaN for none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


async def measure(port: int) -> dict[str, Any]:
    """The saturating rate, then each load."""
    rate = await saturating_rate(port)
    loads = {str(load): await offer(port, load * rate, SECONDS) for load in LOADS}
    half = loads[str(LOADS[0])]["p99_ms"]
    for load in loads.values():
        load |= {"p50_ratio": load["p50_ms"] / half, "p99_ratio": load["p99_ms"] / half}
    return {"saturating_per_second": rate, "loads": loads}


def run() -> dict[str, Any]:
    """Start the service and measure."""
    with tempfile.TemporaryDirectory() as folder, guardrail_process(Path(folder) / "guardrail.db", POLICY) as port:
        return asyncio.run(measure(port))


def report(result: dict[str, Any]) -> str:
    """The result for a person."""
    saturating = result["saturating_per_second"]
    lines = [
        f"Overload: {CLIENTS} open-loop clients; saturated at {saturating:.0f} checks/s; ratios to p99 at half load",
        "  load   offered/s  admitted/s  of saturation   shed   lost    p50     p99   ratio of p99   health SERVING",
    ]
    lines += [
        f"  {load:>4}   {r['offered_per_second']:9.0f}  {r['admitted_per_second']:10.0f}  "
        f"{r['admitted_per_second'] / saturating:13.2f}   {r['shed_share']:4.0%}   {r['lost_share']:4.0%}"
        f"  {r['p50_ms']:4.0f} ms {r['p99_ms']:5.0f} ms   {r['p99_ratio']:8.1f}        "
        f"{'always' if r['always_serving'] else 'NOT ALWAYS'}"
        for load, r in result["loads"].items()
    ]
    lines.append("  aim: a p99 of at most 500 ms (half of the client's deadline), nothing lost, health always SERVING")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(run()))
