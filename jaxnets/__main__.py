"""The command line: `jaxnets COMMAND` or `python -m jaxnets COMMAND`."""

from collections.abc import Sequence

from jaxnets.errors import run_process


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    from jaxnets.cli import commands  # In here Ctrl-C ends the process in one line.

    return commands.main(arguments)


def console_script() -> None:
    """What the script `jaxnets` calls."""
    run_process(main)


if __name__ == "__main__":
    console_script()
