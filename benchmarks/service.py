"""End-to-end CheckAction against a bare grpc.aio echo: latency one at a time, throughput at 32 in flight.

Both servers run in processes of their own; the client, which sends the same ready-made bytes to
both, shares the machine with them. Rounds alternate, and the ratio of a round is that of neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.echo_server import METHOD as ECHO
from guardrail.v1 import guardrail_pb2 as pb
from guardrail.wire import dict_to_struct

CHECK = "/guardrail.v1.GuardrailService/CheckAction"
POLICY = Path(__file__).resolve().parent.parent / "policies" / "exploding-bandit" / "policy.yaml"
ROUNDS = 7
SEQUENTIAL = 400
CONCURRENT = 3_000
IN_FLIGHT = 32

Call = Callable[[bytes], Awaitable[bytes]]


def request() -> bytes:
    """One CheckAction of the exploding bandit, serialised."""
    action = dict_to_struct({"features": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]})
    return pb.CheckActionRequest(policy="exploding-bandit", world="bench", action=action).SerializeToString()


@contextlib.contextmanager
def echo_process() -> Iterator[int]:
    """A running echo server; yields its port."""
    command = [sys.executable, "-m", "benchmarks.echo_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@contextlib.contextmanager
def guardrail_process(store: Path, policy: Path) -> Iterator[int]:
    """A running guardrail service; yields its port."""
    with service_process(store, policy) as (port, _):
        yield port


@contextlib.contextmanager
def service_process(store: Path, policy: Path) -> Iterator[tuple[int, int]]:
    """A running guardrail service; yields its port and its process id."""
    command = [sys.executable, "-m", "guardrail.cli.main", "serve", "--listen", "127.0.0.1:0", "--json"]
    command += ["--policies", str(policy), "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            serving = json.loads(process.stdout.readline())
            yield int(serving["port"]), int(serving["pid"])
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def raw_call(port: int, method: str) -> AsyncIterator[Call]:
    """A unary call that sends and returns bytes."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        yield call


async def sequential_p50(call: Call, message: bytes, count: int) -> float:
    """Median seconds of a call, one at a time."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        await call(message)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def throughput(call: Call, message: bytes, count: int) -> float:
    """Calls per second with IN_FLIGHT of them under way."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await call(message)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - start)


async def measure(echo_port: int, check_port: int) -> dict[str, Any]:
    """Alternate rounds of both servers; medians over rounds."""
    message = request()
    latencies: list[tuple[float, float]] = []
    rates: list[tuple[float, float]] = []
    async with raw_call(echo_port, ECHO) as echo, raw_call(check_port, CHECK) as check:
        for call in (echo, check):
            await throughput(call, message, CONCURRENT // 2)
        reply = pb.CheckActionResponse.FromString(await check(message))
        for _ in range(ROUNDS):
            latencies.append(
                (await sequential_p50(echo, message, SEQUENTIAL), await sequential_p50(check, message, SEQUENTIAL))
            )
            rates.append((await throughput(echo, message, CONCURRENT), await throughput(check, message, CONCURRENT)))
    return {
        "harm_bound": reply.verdict.harm_bound,
        "echo_p50_ms": 1e3 * statistics.median(e for e, _ in latencies),
        "check_p50_ms": 1e3 * statistics.median(c for _, c in latencies),
        "p50_ratio": statistics.median(c / e for e, c in latencies),
        "echo_per_second": statistics.median(e for e, _ in rates),
        "check_per_second": statistics.median(c for _, c in rates),
        "rate_ratio": statistics.median(c / e for e, c in rates),
    }


def run() -> dict[str, Any]:
    """Start both servers and measure."""
    with tempfile.TemporaryDirectory() as folder, echo_process() as echo, contextlib.ExitStack() as stack:
        check = stack.enter_context(guardrail_process(Path(folder) / "guardrail.db", POLICY))
        return asyncio.run(measure(echo, check))


def report(result: dict[str, Any]) -> str:
    """The result for a person."""
    return "\n".join(
        (
            "CheckAction (1,024 lattice hypotheses) against a bare grpc.aio echo",
            f"  p50, one at a time     {result['check_p50_ms']:8.2f} ms    echo {result['echo_p50_ms']:8.2f} ms"
            f"    ratio {result['p50_ratio']:.2f}  (aim: at most 1.4)",
            f"  requests/s, {IN_FLIGHT} in flight {result['check_per_second']:6.0f}       echo "
            f"{result['echo_per_second']:8.0f}       ratio {result['rate_ratio']:.2f}  (aim: at least 0.7)",
        )
    )


if __name__ == "__main__":
    print(report(run()))
