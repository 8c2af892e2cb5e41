"""One client process that sends CheckAction at a fixed rate, whether or not answers come back."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
import grpc.aio

from benchmarks.service import CHECK, request

TIMEOUT = 1.0
"""Seconds that a call may take: the client's default."""
SHED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def drive(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Send at `rate` for `seconds`; latencies in seconds of what was answered, and how many calls were not."""
    message = request()
    latencies: list[float] = []
    shed: list[float] = []
    lost = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)

        async def call() -> None:
            nonlocal lost
            start = time.perf_counter()
            try:
                await method(message, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() is SHED:
                    shed.append(time.perf_counter() - start)
                else:
                    lost += 1
                    (
                        print(
                            error.code(),
                            error.details(),
                            error.debug_error_string(),
                            round(time.perf_counter() - start, 4),
                            file=sys.stderr,
                        )
                        if lost % 200 == 1
                        else None
                    )
            else:
                latencies.append(time.perf_counter() - start)

        await method(message, timeout=30.0)
        calls = []
        started = time.perf_counter()
        for number in range(round(rate * seconds)):
            ahead = started + number / rate - time.perf_counter()
            if ahead > 0.001:
                await asyncio.sleep(ahead)
            elif number % 8 == 0:
                await asyncio.sleep(0)
            calls.append(asyncio.create_task(call()))
        sent = time.perf_counter() - started
        await asyncio.gather(*calls)
    return {"latencies": latencies, "shed": shed, "lost": lost, "seconds": max(seconds, sent)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
