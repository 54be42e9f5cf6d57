"""What `python -m jaxnets COMMAND` does: each command's flags, then the room that does the work.

Nothing here imports jax until the flags are known to be right.
"""

import argparse
from collections.abc import Callable, Sequence

from jaxnets import cli
from jaxnets.config import PRESETS, FlagParser
from jaxnets.errors import UserError, unknown


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return cli.DONE
    name, *rest = arguments
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return COMMANDS[name](rest)


def gradcheck(arguments: Sequence[str]) -> int:
    """Check every gradient by hand against autodiff and central differences."""
    parser = _Parser("gradcheck", gradcheck.__doc__)
    parser.add_argument(
        "--model", help="one network, or all: also the slow ones, AlexNet at 224 pixels"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--mutant", help="check a wrong backward pass (docs/exercises.md)")
    flags = parser.parse(arguments)
    if flags.model not in (None, "all", *PRESETS):
        raise unknown("model", flags.model, ["all", *PRESETS])
    if flags.model and flags.mutant:
        raise UserError("model and mutant exclude each other, got both")

    from jaxnets.gradcheck.run import run

    agree = run(flags.model, flags.mutant, flags.json)
    return cli.DONE if agree else cli.FELL_SHORT


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"gradcheck": gradcheck}


def _help() -> str:
    lines = [f"  {name:12} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m jaxnets COMMAND [--flag=value ...]", "", *lines, "",
         "python -m jaxnets COMMAND --help lists a command's flags."]
    )  # fmt: skip


class _Parser(FlagParser):
    """Flags of one command; what is wrong with them is a UserError."""

    def __init__(self, command: str, description: str | None):
        super().__init__(
            prog=f"python -m jaxnets {command}", description=description, allow_abbrev=False
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Reads the flags; the nearest is suggested for one that does not exist."""
        flags, rest = self.parse_known_args(arguments)
        if rest:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            raise unknown("flag", rest[0].split("=")[0], known)
        return flags
