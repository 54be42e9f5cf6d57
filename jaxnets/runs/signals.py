"""Ctrl-C, SIGTERM or SIGHUP asks a run to stop at the next step; one more stops it at once."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from threading import current_thread, main_thread

# A closed terminal or a lost connection is SIGHUP; Windows has none.
HANG_UP = getattr(signal, "SIGHUP", None)

# Seconds within which a second signal is the same request: timeout(1) sends its signal to the
# process and to its group, and programs that run others pass on a Ctrl-C that these have got too.
SAME_REQUEST = 0.1


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the number of the signal that has come, else 0.

    After a SIGINT or SIGTERM the next of either stops the process at once. A SIGHUP never does: a
    closing terminal sends it more than once, and SIGTERM after it. Where it is ignored, as nohup
    has it, it stays ignored.
    """
    came, when = 0, 0.0

    def ask(number, frame):
        nonlocal came, when
        if number == HANG_UP:
            _leave_lost_terminal()
        elif came not in (0, HANG_UP) and time.monotonic() - when > SAME_REQUEST:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        if not came:
            came, when = number, time.monotonic()

    if current_thread() is not main_thread():
        yield lambda: came  # Signals belong to the main thread.
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:
        before[HANG_UP] = signal.getsignal(HANG_UP)
    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            if not (number == HANG_UP and came):  # What is left to do, saving, must not be cut.
                signal.signal(number, handler)


@contextlib.contextmanager
def outliving_the_terminal() -> Iterator[None]:
    """Lets what is printed to a terminal that is gone go nowhere, here and from here on.

    Its SIGHUP may come later, or never (disown).
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _leave_lost_terminal()


def _leave_lost_terminal() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            os.write(stream.fileno(), b"")
        except ValueError:  # No file, as in a notebook.
            continue
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
