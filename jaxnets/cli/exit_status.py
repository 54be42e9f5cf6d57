"""Exit statuses and one-line errors, the same for every command."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from jaxnets.errors import RunFailedError, StoppedError, UserError, one_line

DONE, RUN_FAILED, WRONG_REQUEST, BY_SIGNAL = 0, 1, 2, 128


def run(main: Callable[[Sequence[str]], int]) -> int:
    """Calls main with the command line's arguments and turns what it raises into a status.

    Returns:
      main's status; 1 after a loss that is not finite, gradients that disagree, a full disk, or
      too little memory; 2 after a UserError, told in one line on stderr; 130 after SIGINT, 143
      after SIGTERM, 129 after SIGHUP.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # Names in what its encoding lacks are escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # The reader, as `head`, has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RUN_FAILED
    except (Exception, KeyboardInterrupt) as error:
        told = exit_status_of(error)
        if told is None:
            raise
        status = _complain(*told)
        if isinstance(error, StoppedError) and error.at_once:
            # Else Python waits for the thread that writes a checkpoint.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)
        return status


def exit_status_of(error: BaseException) -> tuple[str, int] | None:
    """The message and the exit status of an error; None of one that should not have come."""
    if isinstance(error, UserError):
        return str(error), WRONG_REQUEST
    if isinstance(error, RunFailedError):
        return str(error), RUN_FAILED
    if isinstance(error, StoppedError):
        return str(error), BY_SIGNAL + error.signal
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", BY_SIGNAL + signal.SIGINT
    if isinstance(error, MemoryError):
        return "not enough memory", RUN_FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", RUN_FAILED
    return None


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {one_line(message)}", file=sys.stderr)
    return status
