"""Writes of checks that come while the store is busy are written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from guardrail.errors import StoreCorrupt

if TYPE_CHECKING:
    from guardrail.server.writer import Writer

GROUP_LIMIT = 1_000
"""Most items in one transaction, unless a single batch has more."""

New = TypeVar("New")
Done = TypeVar("Done")


class Together(Generic[New, Done]):
    """Batches of items, each written whole and answered item by item. Call it from the event loop only.

    Args:
        writer: of the service.
        work: writes items in one transaction and says what became of each; run on the writer's thread.
    """

    def __init__(self, writer: Writer, work: Callable[[list[New]], list[Done]]) -> None:
        self._writer = writer
        self._work = work
        self._waiting: list[tuple[list[New], asyncio.Future[list[Done]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, batch: list[New]) -> list[Done]:
        """What became of the items, once that is durable. It is written even if the caller is gone meanwhile.

        :raises StoreError: if the store failed.
        """
        future: asyncio.Future[list[Done]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work_off())
        return await future

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.pop(0)]
                while self._waiting and sum(len(b) for b, _ in taken) + len(self._waiting[0][0]) <= GROUP_LIMIT:
                    taken.append(self._waiting.pop(0))
                await self._write(taken)
        finally:
            self._task = None

    async def _write(self, taken: list[tuple[list[New], asyncio.Future[list[Done]]]]) -> None:
        try:
            together = [one for batch, _ in taken for one in batch]
            results = iter(await self._writer.run(lambda: self._work(together)))
            answers = [[next(results) for _ in batch] for batch, _ in taken]
        except StoreCorrupt as error:
            # What is damaged refuses its own checks and no others.
            if len(taken) > 1:
                for one in taken:
                    await self._write([one])
                return
            _fail(taken, error)
        except Exception as error:  # noqa: BLE001  (each caller gets it)
            _fail(taken, error)
        except BaseException as error:
            _fail([*taken, *self._waiting], error)
            self._waiting.clear()
            raise
        else:
            for (_, future), answer in zip(taken, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(taken: list[tuple[list[New], asyncio.Future[list[Done]]]], error: BaseException) -> None:
    for _, future in taken:
        if not future.done():
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
