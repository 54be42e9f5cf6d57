"""What may end a command, and its message as a terminal may show it: never a traceback."""

import contextlib
import difflib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

# Exit statuses: done; the run failed; the request was wrong; 128 + a signal's number.
DONE, RUN_FAILED, WRONG_REQUEST, BY_SIGNAL = 0, 1, 2, 128

LONGEST = 2000  # Characters of a message: a file may hold a text of any length.


class UserError(ValueError):
    """A request that cannot be met; its message says what was expected and what came."""


class RunFailedError(Exception):
    """A run that cannot finish: its loss is not finite, its gradients disagree."""


class StoppedError(Exception):
    """A run that a signal stopped; its message says what was saved and how to resume."""

    def __init__(self, message: str, signal: int, *, at_once: bool = False):
        super().__init__(message)
        self.signal, self.at_once = signal, at_once


def message_and_status(error: BaseException) -> tuple[str, int] | None:
    """An error's message and exit status; None if the error is a bug."""
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


def run_main(main: Callable[[Sequence[str]], int]) -> int:
    """Returns the exit status of main or of its error, which becomes one line on stderr."""
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
        if (known := message_and_status(error)) is None:
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


def unknown(kind: str, value: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that does not exist, with the nearest one that does.

    >>> print(unknown("model", "cmn", ["mlp", "cnn"]))
    unknown model "cmn"; did you mean "cnn"? (known: mlp, cnn)
    """
    known = list(known)
    hint = did_you_mean(value, known, quote='"')
    return UserError(f'unknown {kind} "{value}"{hint} (known: {", ".join(known)})')


def did_you_mean(value: str, known: Iterable[str], quote: str = "") -> str:
    """The question for the nearest name that exists, or nothing."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    return f"; did you mean {quote}{near[0]}{quote}?" if near else ""


def printable(text: str) -> str:
    r"""A name as a terminal may show it: control characters and broken Unicode are escaped.

    >>> print(printable("red\x1b[31m\n"))
    red\x1b[31m\n
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    r"""A message as a terminal may show it: one line, whatever the names in it.

    >>> print(one_line("no\n  file\x1b[2J"))
    no file\x1b[2J
    """
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text):,} characters)"
    return printable(" ".join(text.split()))


def first_line(error: Exception) -> str:
    """An error's reason in one line: a library's message may be a page, or empty."""
    message = getattr(error, "strerror", None) or str(error)
    return (message.strip().splitlines() or [type(error).__name__])[0]
