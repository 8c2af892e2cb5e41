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
SHED = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})
"""How the service and its transport refuse what is too much."""


async def drive(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Send at `rate` for `seconds`; seconds that answers and refusals took, and how many calls had neither."""
    message = request()
    answered: list[float] = []
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
                if error.code() in SHED:
                    shed.append(time.perf_counter() - start)
                else:
                    lost += 1
            else:
                answered.append(time.perf_counter() - start)

        await method(message, timeout=30.0)
        calls = []
        started = time.perf_counter()
        for number in range(round(rate * seconds)):
            ahead = started + number / rate - time.perf_counter()
            # Late calls are sent in a row, with a turn of the loop now and then for what came back.
            if ahead > 0.001 or number % 8 == 0:
                await asyncio.sleep(max(ahead, 0.0))
            calls.append(asyncio.create_task(call()))
        took = time.perf_counter() - started
        await asyncio.gather(*calls)
    return {"answered": answered, "shed": shed, "lost": lost, "seconds": max(seconds, took)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
