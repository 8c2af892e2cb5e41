"""Streams of decisions, as the clients hand them out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from guardrail.client._failures import from_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from guardrail.client._call import Call
    from guardrail.client.results import LoggedDecision


class Watch:
    """A stream of decisions. Close it, or leave its `with` block, to end it."""

    def __init__(self, stream: Any, call: Call[LoggedDecision]) -> None:
        self._stream, self._call, self._closed = stream, call, False

    def __iter__(self) -> Iterator[LoggedDecision]:
        return self

    def begin(self) -> bool:
        """Wait until decisions from here on reach this stream; False if it has ended already.

        What is decided before the service has taken up the stream is not in it.
        """
        self._stream.initial_metadata()
        return bool(self._stream.is_active())

    def __next__(self) -> LoggedDecision:
        try:
            return self._call.finish(next(self._stream))
        except grpc.RpcError as error:
            if self._closed:
                raise StopIteration from error
            raise from_call(error, self._call.failure) from error

    def close(self) -> None:
        """End the stream, also from another thread; iteration then stops."""
        self._closed = True
        self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncWatch:
    """A stream of decisions. Close it, or leave its `async with` block, to end it."""

    def __init__(self, stream: Any, call: Call[LoggedDecision]) -> None:
        self._stream, self._call, self._closed = stream, call, False

    def __aiter__(self) -> AsyncIterator[LoggedDecision]:
        return self

    async def begin(self) -> bool:
        """Wait until decisions from here on reach this stream; False if it has ended already.

        What is decided before the service has taken up the stream is not in it.
        """
        await self._stream.initial_metadata()
        return not self._stream.done()

    async def __anext__(self) -> LoggedDecision:
        try:
            reply = await self._stream.read()
        except grpc.aio.AioRpcError as error:
            raise from_call(error, self._call.failure) from error
        except asyncio.CancelledError:
            if self._closed:
                raise StopAsyncIteration from None
            raise
        if reply is grpc.aio.EOF:
            raise StopAsyncIteration
        return self._call.finish(reply)

    def close(self) -> None:
        """End the stream; iteration then stops."""
        self._closed = True
        self._stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
