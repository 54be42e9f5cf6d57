"""Gathers the items that arrive while a batch is at work into the next batch.

Nothing waits for a clock: the first item starts at once, and those that come meanwhile are the next
batch. So a lone request has no delay, and a busy server has large batches. The network's images are
gathered so, and so is the feedback, for which a batch is one transaction.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class FullError(Exception):
    """More is waiting than is allowed; try again later."""


class Gatherer(Generic[Item, Result]):
    """Hands items that wait to a function in a thread, in the order of arrival, batch by batch."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        thread: Executor,
        *,
        batch: int,
        waiting: int,
    ):
        """Starts nothing yet.

        Args:
          work: Gets 1 to `batch` items, returns a result for each. Its error is that of each item.
          thread: The thread in which it runs; several gatherers may share one.
          batch: The most items at once.
          waiting: The most items that wait.
        """
        self._work, self._thread, self._batch, self._most = work, thread, batch, waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    def put(self, items: Sequence[Item]) -> list["asyncio.Future[Result]"]:
        """Queues items; FullError, and none of them, if too many would wait."""
        if len(self._waiting) + len(items) > self._most:
            raise FullError
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return futures

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(self._batch, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            items = [item for item, _ in taken]
            outcome: Any
            try:
                outcome = await loop.run_in_executor(self._thread, self._work, items)
            except Exception as error:
                outcome = error
            for (_, future), result in zip(taken, _each(outcome, count), strict=True):
                if future.done():  # Its request was given up.
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._task = None


def _each(outcome: Any, count: int) -> Sequence[Any]:
    return [outcome] * count if isinstance(outcome, Exception) else outcome
