"""Exit statuses and one-line errors, the same for every command."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from jaxnets.errors import RUN_FAILED, StoppedError, exit_status_of, one_line


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
        known = exit_status_of(error)
        if known is None:
            raise
        status = _complain(*known)
        if isinstance(error, StoppedError) and error.at_once:
            # Else Python waits for the thread that writes a checkpoint.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)
        return status


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {one_line(message)}", file=sys.stderr)
    return status
