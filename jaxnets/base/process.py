"""A command's process: its streams, and what a signal does to it until a training takes over.

A KeyboardInterrupt would be lost in a callback of JAX's garbage collector, or would fall into the
loading of a C extension. So Ctrl-C, SIGTERM and SIGHUP raise nothing: they end the process at once,
in one line.

Everything imported here is loaded already, or built in: until `begin` is called, a Ctrl-C gives
Python's own traceback. `signal` itself would take longer than all the rest.
"""

import _signal as signal  # pyright: ignore[reportMissingImports]
import _thread
import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BY_SIGNAL = 128  # An exit status: this and the signal's number.
# Windows lacks SIGHUP, a closed terminal's.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
NUMBERS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

line = b"error: interrupted\n"  # What a signal says now.
cleanups: "list[Callable[[], object]]" = []  # Called before the end, the last first.
_ending, _has_begun = _thread.RLock(), False


def begin() -> None:
    """Makes this process a command's: a signal ends it in one line, and no stream is missing.

    A signal that is ignored, as under nohup, stays ignored.
    """
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_now)
    atexit.register(_ignore_signals)  # The first to be registered runs last.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # Closed by `>&-`: a file would take its number, and output.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if sys.platform != "win32":
        try:
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            _thread.start_new_thread(_watch, (reader,))
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except (OSError, RuntimeError):  # No more files or threads: the main thread must do.
            pass


def end_now(number: int, frame: object = None) -> None:
    """Ends the process as a signal's handler: calls the `cleanups`, writes the `line`, exits."""
    global _has_begun
    _ending.acquire()  # For ever: another thread waits here for the end.
    if _has_begun:  # A second signal in the thread that does all this.
        return
    _has_begun = True
    for cleanup in [*reversed(cleanups), lambda: os.write(2, line)]:
        try:  # noqa: SIM105 (contextlib is not imported)
            cleanup()
        except Exception:  # The terminal is gone, for example: the process must end.
            pass
    os._exit(BY_SIGNAL + number)


def _watch(reader: int) -> None:
    """Ends the process while the main thread computes or compiles: Python's handlers wait for it.

    Python writes the number of each signal that has a handler into a pipe.
    """
    while True:
        for number in os.read(reader, 1):
            if signal.getsignal(number) is end_now:
                end_now(number)


def _ignore_signals() -> None:
    """All is done and said: a signal must not kill the process while Python takes it apart."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
