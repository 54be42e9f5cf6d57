"""The next batches, made by a thread while the device computes."""

import collections
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

DEPTH = 2  # Batches made ahead: one is ready while the next is made.


def prefetch(items: Iterator[Item], depth: int = DEPTH) -> Generator[Item]:
    """Yields the same items in the same order, made ahead by a thread, at most `depth` at a time.

    An error in making an item is raised where the item is asked for. The thread ends with the
    items. A loop that may end early must close the generator, which waits for the item that is
    being made.

    >>> list(prefetch(iter("abc")))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead = collections.deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for future in ahead:
                future.cancel()
