"""The signals that stop a run, and the one line that it then ends with."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from jaxnets.base.display import RESUME, command_line, program, short_path
from jaxnets.base.errors import RunFailedError, StoppedError, discard, first_line, on_interrupt
from jaxnets.base.language import Text
from jaxnets.machine.platform import Processes
from jaxnets.training.loop import Interrupted

# A closed terminal or a lost connection is SIGHUP; Windows has none.
HANG_UP = getattr(signal, "SIGHUP", None)
# Seconds within which a second signal is the same request. timeout(1) signals the process and its
# group. Programs that run others pass on a Ctrl-C that these have already received.
SAME_REQUEST = 0.1
GLOO = "Gloo"  # It adds up the gradients of several processes on CPUs, and names itself in errors.


@contextlib.contextmanager
def ends_in_one_line(
    folder: Path, words: Sequence[str] = ("train",), file: str | None = None
) -> Generator[None]:
    """Turns an error or a signal into one line, with the command that resumes the run.

    Args:
      folder: The run's folder.
      words: The words after `jaxnets` that start such a run.
      file: The file of the user's own network, which its layers or its optimizer may need again.
    """
    name, *others = words
    command = [*program(name), *others, "--resume", f"--workdir={short_path(str(folder))}"]
    command += [f"--model={file}"] if file else []
    hint = Text(RESUME, command_line(command))
    with on_interrupt(hint):
        try:
            yield
        except Interrupted as stopped:
            if stopped.saved:
                hint = Text("{}; {}", stopped.saved, hint)
            raise StoppedError("interrupted; {}", hint, number=stopped.signal) from None
        except (ValueError, RuntimeError) as error:  # By version, JAX raises one or the other.
            if GLOO not in str(error):
                raise
            reason = first_line(error)
            raise RunFailedError("another process was lost ({}); {}", reason, hint) from error
        except BrokenPipeError:
            raise RunFailedError("stdout has no reader any more; {}", hint) from None
        except OSError as error:
            # A full disk, for example. Errors outside the run folder have their own message.
            if not Path(str(error.filename)).is_relative_to(folder):
                raise
            raise RunFailedError("{}: {}; {}", error.filename, error.strerror, hint) from error


@contextlib.contextmanager
def stop_on_interrupt(processes: Processes | None = None) -> Generator[Callable[[], int]]:
    """Yields a function that returns the number of the signal that has come, or 0.

    With several processes, all get it before the same step.

    A second Ctrl-C or SIGTERM does what it would do without this block: it ends a command at once.
    A SIGHUP never does: a closing terminal sends it more than once, and SIGTERM after it. If it is
    ignored, as under nohup, it stays ignored.
    """
    processes, came, when = processes or Processes(), 0, 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal came, when
        if number == HANG_UP:
            _leave_lost_terminal()
        elif came not in (0, HANG_UP) and time.monotonic() - when > SAME_REQUEST:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        if not came:
            came, when = number, time.monotonic()

    stop = processes.synchronised_stop(lambda: came)
    if current_thread() is not main_thread():
        yield stop  # Signals belong to the main thread.
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in processes.signals}
    if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:
        before[HANG_UP] = signal.getsignal(HANG_UP)
    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if not (number == HANG_UP and came):  # Saving must not be cut short.
                signal.signal(number, handler)


@contextlib.contextmanager
def ignoring_hangup() -> Generator[None]:
    """Drops output to a terminal that is gone: its SIGHUP may come later, or never."""
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
        except ValueError:  # Not a file, as in a notebook.
            continue
        except OSError:
            discard(stream)
