"""Turns what a command returns or raises into an exit status and at most one line on stderr."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from jaxnets.errors import RUN_FAILED, StoppedError, exit_status_of, one_line


def run(main: Callable[[Sequence[str]], int]) -> int:
    """Calls main with the command line's arguments; returns its exit status or that of its error.

    The error is one line on stderr, `errors.exit_status_of` its status.
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
