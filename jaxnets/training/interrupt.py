"""Ctrl-C or SIGTERM asks a run to stop at the next step; a second one stops it at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from threading import current_thread, main_thread


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the number of the SIGINT or SIGTERM that has come, else 0."""
    came = 0

    def ask(number, frame):
        nonlocal came
        came = number
        for each, handler in before.items():  # The next one, of either, finds what was there.
            signal.signal(each, handler)

    if current_thread() is not main_thread():
        yield lambda: came  # Signals belong to the main thread.
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
