"""The next batches are made while the device works on this one."""

import collections
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

# Items made ahead: one is ready while the next is made.
DEPTH = 2


def prefetch(items: Iterator[Item], depth: int = DEPTH) -> Generator[Item]:
    """Yields the same items in the same order, made ahead by a thread.

    What making an item raises is raised where it is asked for. The thread ends with the items; a
    loop that may leave early closes the generator, which waits for the item in the making.

    Args:
      items: Used by that thread alone.
      depth: How many are made ahead, and held, at most.

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
