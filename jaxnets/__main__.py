"""python -m jaxnets COMMAND: everything but training, which is train.py."""

from collections.abc import Sequence

from jaxnets.errors import run_process


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    from jaxnets.cli import commands  # In here Ctrl-C ends the process in one line.

    return commands.main(arguments)


if __name__ == "__main__":
    run_process(main)
