"""A bare grpc.aio server that returns what it gets: the floor under every gRPC service in Python."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio

METHOD = "/benchmark.Echo/Echo"


async def _echo(request: bytes, context: Any) -> bytes:
    return request


async def main() -> None:
    """Serve on a free loopback port, print it, run until standard input closes."""
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
