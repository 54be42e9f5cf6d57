"""The command line: `jaxnets COMMAND` or `python -m jaxnets COMMAND`."""

import _signal  # pyright: ignore[reportMissingImports]
import sys

# As in train.py; the script `jaxnets` imports this module to begin.
if (__name__ == "__main__" or sys.argv[0].endswith("/jaxnets")) and hasattr(
    _signal, "pthread_sigmask"
):
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})

from jaxnets.errors import run_process


def main(arguments: list[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    from jaxnets.cli import commands  # In here Ctrl-C ends the process in one line.

    return commands.main(arguments)


def console_script() -> None:
    """The entry point of the script `jaxnets`."""
    run_process(main)


if __name__ == "__main__":
    console_script()
