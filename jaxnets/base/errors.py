"""Errors that end a command with one line: never a traceback."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from typing import TextIO, TypeVar

from jaxnets.base import process
from jaxnets.base.display import has_colours, is_screen, one_line, short_path, show, shown
from jaxnets.base.language import LANGUAGES, N_, Text, _, asked_for, said, speaking

Expected = TypeVar("Expected")

# Exit statuses: done; the run failed; the request was wrong; 128 + a signal's number.
DONE, RUN_FAILED, WRONG_REQUEST, BY_SIGNAL = 0, 1, 2, process.BY_SIGNAL

ERROR = N_("error:")
INTERRUPTED, NO_MEMORY = N_("interrupted"), N_("not enough memory")
NO_MODULE, START_WITH = N_("no module named {}: {}"), N_("start it with {}")
INSTALL = N_("install jaxnets with python3 -m venv .venv && .venv/bin/pip install -e .")
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # XLA's error begins with it.
NO_THREAD = "can't start new thread"  # Python's RuntimeError, as a thread's stack takes memory.


class UserError(Text, ValueError):
    """A request that cannot be met: what was expected and what was given, as a text and values."""


class RunFailedError(Text, Exception):
    """A run that cannot finish: its loss is not finite, its gradients disagree."""


class StoppedError(Text, Exception):
    """A run that a signal stopped; its message says what was saved and how to resume."""

    def __init__(self, text: str, *values: object, number: int = signal.SIGINT):
        super().__init__(text, *values)
        self.signal = number


def message_and_status(error: BaseException) -> tuple[Text, int] | None:
    """An error's message and exit status; None if the error is a bug."""
    if isinstance(error, UserError):
        return error, WRONG_REQUEST
    if isinstance(error, RunFailedError):
        return error, RUN_FAILED
    if isinstance(error, StoppedError):
        return error, BY_SIGNAL + error.signal
    if isinstance(error, KeyboardInterrupt):
        return Text(INTERRUPTED), BY_SIGNAL + signal.SIGINT
    if isinstance(error, MemoryError):
        return Text(NO_MEMORY), RUN_FAILED
    if str(error).startswith(OUT_OF_MEMORY):
        return Text("{}{}", Text(NO_MEMORY), str(error).removeprefix(OUT_OF_MEMORY)), RUN_FAILED
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        return Text("{}: {}", Text(NO_MEMORY), NO_THREAD), RUN_FAILED
    if isinstance(error, ModuleNotFoundError) and _is_not_installed(error.name or ""):
        return Text(NO_MODULE, error.name, _how_to_install()), WRONG_REQUEST
    if isinstance(error, OSError):
        reason = Text(str(error.strerror or error))
        return Text("{}: {}", error.filename, reason) if error.filename else reason, RUN_FAILED
    return None


def _is_not_installed(module: str) -> bool:
    return module.partition(".")[0] not in {"jaxnets", *sys.stdlib_module_names}


def _how_to_install() -> Text:
    """The advice to start another Python, which has jaxnets's packages, or to install them."""
    for folder in dict.fromkeys((os.path.dirname(sys.argv[0]), "")):
        for name in ("bin/python", "Scripts/python.exe"):
            python = os.path.join(folder, ".venv", *name.split("/"))
            if os.path.exists(python) and os.path.abspath(python) != sys.executable:
                return Text(START_WITH, short_path(python))
    return Text(INSTALL)


def show_error(message: Text) -> None:
    """Prints an error's line on stderr, in the language of `speaking`."""
    show(_line_of(message), sys.stderr, red=_(ERROR))


def _line_of(message: Text) -> str:
    return f"{_(ERROR)} {one_line(_as_typed(message))}"


def _as_typed(message: Text) -> str:
    """A message in the language of `speaking`; a setting's name becomes the flag that was typed."""
    name, _colon, rest = str(message).partition(": ")
    flags = (word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--"))
    typed = next((flag for flag in flags if _letters(flag) == _letters(name)), None)
    if typed is None or not rest.startswith("expected "):
        return said(message)
    return typed + said(message).removeprefix(name)


@contextlib.contextmanager
def on_interrupt(hint: Text) -> Generator[None]:
    """After a Ctrl-C in this block, says what is kept and how to continue."""
    message = Text("interrupted; {}", hint)
    with _saying(message):
        try:
            yield
        except KeyboardInterrupt:  # In Python, where no signal ends the process.
            raise StoppedError("{}", message) from None


@contextlib.contextmanager
def _saying(message: Text) -> Generator[None]:
    """Lets a signal that ends a command's process in this block say the message."""
    before, text = process.line, shown(_line_of(message), sys.stderr, red=_(ERROR))
    if is_screen(sys.stderr) and has_colours(sys.stderr):  # A bar may be there.
        text = f"\r\x1b[K{text}"
    encoding = sys.stderr.encoding or "utf-8"  # None, if it is not a file.
    process.line = f"{text}\n".encode(encoding, "backslashreplace")
    try:
        yield
    finally:
        process.line = before


@contextlib.contextmanager
def before_end(cleanup: Callable[[], object]) -> Generator[None]:
    """Lets a signal that ends a command's process in this block do this first, from any thread."""
    process.cleanups.append(cleanup)
    try:
        yield
    finally:
        process.cleanups.remove(cleanup)


def run_main(main: Callable[[list[str]], int]) -> int:
    """Returns the exit status of main or of its error, which becomes one line on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escapes characters that its encoding lacks. No line waits for others: a signal would lose
        # them.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    asked = asked_for(sys.argv)
    language = asked if asked in LANGUAGES else None  # None means the locale's.
    with speaking(language), _saying(Text(INTERRUPTED)):
        try:
            status = main(sys.argv[1:])
            print(end="", flush=True)
            return status
        except BrokenPipeError:  # The reader, such as `head`, ended; Python must not complain.
            discard(sys.stdout)
            return RUN_FAILED
        except (Exception, KeyboardInterrupt) as error:
            if (known := message_and_status(error)) is None:
                raise
            message, status = known
            show_error(message)
            if isinstance(error.__context__, BrokenPipeError):
                discard(sys.stdout)
            return status


def discard(stream: TextIO) -> None:
    """Discards what is still printed to a stream whose reader or terminal is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def expect(value: object, kind: type[Expected], example: str) -> Expected:
    """Returns a value; raises UserError unless it is of a kind, which the example shows."""
    if isinstance(value, kind):
        return value
    raise UserError("expected a {} as {}, got a {}", kind.__name__, example, type(value).__name__)


def unknown(kind: str, value: str, known: Iterable[str], hint: Text | str = "") -> UserError:
    """Returns the error for a name that does not exist, with a hint or the nearest one that does.

    Without either, it lists those that do.

    >>> print(unknown("model", "cmn", ["mlp", "cnn"]))
    unknown model "cmn"; did you mean "cnn"?
    >>> print(unknown("model", "lstm", ["mlp", "cnn"]))
    unknown model "lstm" (known: mlp, cnn)
    """
    known = list(known)
    if hint := hint or did_you_mean(value, known, quoted=True):
        return UserError('unknown {} "{}"{}', kind, value, hint)
    return UserError('unknown {} "{}" (known: {})', kind, value, ", ".join(known))


def not_installed(package: str, extra: str) -> UserError:
    """Returns the error for a package that an extra of jaxnets installs.

    >>> print(not_installed("onnx", "export"))
    onnx is not installed; install the extra: pip install 'jaxnets[export]'
    """
    hint = Text("install the extra: pip install 'jaxnets[{}]'", extra)
    return UserError("{} is not installed; {}", package, hint)


def did_you_mean(value: str, known: Iterable[str], *, quoted: bool = False) -> Text | str:
    """The question that suggests the nearest existing name, or nothing if none is near."""
    if (near := nearest(value, known)) is None:
        return ""
    return Text('; did you mean "{}"?', near) if quoted else Text("; did you mean {}?", near)


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The existing name that looks most like a value; None if none is near.

    >>> nearest("num_epochs", ["num_processes", "epochs"])
    'epochs'
    >>> nearest("teach", ["search"]) is None  # Few begin a name with a wrong letter.
    True
    """
    import difflib  # Only for errors.

    names = {_letters(name): name for name in known}
    wanted = _letters(value)
    near = difflib.get_close_matches(wanted, names, cutoff=0.85)
    # "num_epochs" is epochs, "flowers102" is oxford_flowers102; but "test" is not abtest.
    near = near or [name for name in names if len(name) > 3 and wanted.endswith(name)]
    near = near or [name for name in names if len(wanted) > 6 and name.endswith(wanted)]
    if not near and wanted:
        same_first = [name for name in names if name.startswith(wanted[0])]
        near = difflib.get_close_matches(wanted, same_first, cutoff=0.65)
    # Prefer a near one with the same letters: "cnnn" is "cnn", not "cnn_bn".
    best = max(near, key=lambda name: set(name) == set(wanted), default=None)
    return best and names[best]


def same_name(value: str, known: Iterable[str]) -> str | None:
    """The known name that equals a value if only letters and digits count, in lower case.

    >>> same_name("One-Cycle", ["cosine", "one_cycle"])
    'one_cycle'
    """
    return next((name for name in known if _letters(name) == _letters(value)), None)


def _letters(name: str) -> str:
    """A name's letters and digits, in lower case."""
    return "".join(filter(str.isalnum, name)).lower()


def first_line(error: BaseException) -> str:
    """An error's reason in one line: a library's message may be long, or empty."""
    try:
        message = getattr(error, "strerror", None) or str(error)
    except Exception:  # Its class is a user's own.
        message = ""
    return (message.strip().splitlines() or [type(error).__name__])[0]
