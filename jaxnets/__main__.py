"""The command line: `jaxnets COMMAND` or `python -m jaxnets COMMAND`."""

import sys

from jaxnets.cli.start import run_main


def main(arguments: list[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    from jaxnets.cli import commands  # In here Ctrl-C ends the process in one line.

    return commands.main(arguments)


def console_script() -> None:
    """The entry point of the script `jaxnets`."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    console_script()
