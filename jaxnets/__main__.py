"""python -m jaxnets COMMAND: everything but training, which is train.py."""

import _signal  # pyright: ignore[reportMissingImports]

if __name__ == "__main__" and hasattr(_signal, "pthread_sigmask"):  # As in train.py.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})

from jaxnets.errors import run_process


def main(arguments: list[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    from jaxnets.cli import commands  # In here Ctrl-C ends the process in one line.

    return commands.main(arguments)


if __name__ == "__main__":
    run_process(main)
