"""Turns what a command returns or raises into an exit status and at most one line on stderr."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from jaxnets.errors import BY_SIGNAL, RUN_FAILED, StoppedError, exit_status_of, one_line


def run(main: Callable[[Sequence[str]], int]) -> int:
    """Calls main with the command line's arguments, and prints an error in one line on stderr.

    It returns main's exit status, or the error's, as `exit_status_of` says it.
    """
    # Opens /dev/null for each standard stream that the caller closed (`>&-`). The next file to be
    # opened would otherwise get its number, and with it what JAX prints.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # Escapes characters that its encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # The reader, such as `head`, ended; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RUN_FAILED
    except (Exception, KeyboardInterrupt) as error:
        known = exit_status_of(error)
        if known is None:
            raise
        message, status = known
        with contextlib.suppress(OSError):  # stderr may be full, or its reader gone.
            print(f"error: {one_line(message)}", file=sys.stderr)
        if isinstance(error, StoppedError) and error.at_once:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)  # Python would wait for the thread that writes a checkpoint.
        return status


@contextlib.contextmanager
def end_on_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process at once while it imports libraries.

    A KeyboardInterrupt may be lost there: NumPy turns it into an ImportError, JAX may ignore it.
    """

    def end(*_) -> None:
        print("error: interrupted", file=sys.stderr)
        os._exit(BY_SIGNAL + signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # Else it is ignored, as in a shell's background.
        signal.signal(signal.SIGINT, end)
    yield
    signal.signal(signal.SIGINT, before)
