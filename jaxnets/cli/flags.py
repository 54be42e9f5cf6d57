"""The command line's flags, made from Config's fields."""

import argparse
import dataclasses
import difflib
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxnets.config.fields import TYPE_NAMES, Config, kind_of, preset
from jaxnets.config.recipes import DEFAULT_MODEL, PRESETS
from jaxnets.errors import UserError


def _parse(field: dataclasses.Field, text: str) -> Any:
    """Turns a flag's text into the field's value."""
    kind = kind_of(field)
    if field.name == "batch_size" and text == "full":
        return None
    try:
        if kind is tuple:
            return tuple(int(part) for part in text.split(","))
        return kind(text)
    except ValueError:
        wanted = "numbers as 64,64" if kind is tuple else TYPE_NAMES[kind]
        raise UserError(f"{field.name}: expected {wanted}, got {text!r}") from None


def _show(field: dataclasses.Field, value: Any) -> str:
    """The text that _parse would turn into the value."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None:
        return "full" if field.name == "batch_size" else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class FlagParser(argparse.ArgumentParser):
    """A parser to which a wrong flag is a UserError."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        """As argparse's, which would take `--flag=--` for an empty list."""
        for text in args or ():
            if text.startswith("--") and text.endswith("=--"):
                raise UserError(f"{text[2:-3]}: expected a value, got '--'")
        return super().parse_known_args(args, namespace)


def _parser(defaults: Config, description: str) -> argparse.ArgumentParser:
    """Builds the parser; its help shows the defaults of one model."""
    parser = FlagParser(
        prog="train.py",
        description=description,
        epilog="\n".join(textwrap.wrap(f"models: {', '.join(PRESETS)}", 100))
        + "\n--model=NAME --help shows that model's defaults",
        usage="train.py [--model=NAME] [--flag=value ...]",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32, width=100
        ),
    )
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        value = getattr(defaults, field.name)
        choices = field.metadata["choices"]
        notes = [field.metadata["why"].replace("%", "%%")]
        if choices:
            notes.append("|".join(choices))
        if kind_of(field) is bool:
            arguments = {"action": _Switch, "nargs": 0}
            names = [f"--{field.name}", f"--no_{field.name}"]
        else:
            arguments = {"metavar": field.name.rsplit("_")[-1].upper()}
            names = [f"--{field.name}"]
        if "default" not in notes[0]:
            notes.append(f"default: {_show(field, value)}")
        groups[group].add_argument(
            *names, dest=field.name, default=argparse.SUPPRESS,
            help=f"{notes[0]} [{'; '.join(notes[1:])}]" if notes[1:] else notes[0], **arguments,
        )  # fmt: skip
    return parser


class _Switch(argparse.Action):
    """--flag and --no_flag."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, not str(option_string).startswith("--no_"))


def parse_flags(arguments: Sequence[str], description: str = "") -> dict[str, Any]:
    """Reads the flags that were given; `preset(**flags)` completes them.

    Args:
      arguments: As `--model=cnn --epochs=3`; booleans are --flag and --no_flag.
      description: Shown at the top of --help, which prints and exits with status 0.

    Returns:
      The fields that were given.

    Raises:
      UserError: An unknown flag (the nearest is suggested), a word that is no flag, or a value
        that cannot be read.

    >>> parse_flags(["--model=mlp", "--hidden=64,32"])
    {'model': 'mlp', 'hidden': (64, 32)}
    """
    first = FlagParser(add_help=False, allow_abbrev=False)
    first.add_argument("--model", default=DEFAULT_MODEL)
    first.add_argument("--recipe")
    asked = first.parse_known_args([a for a in arguments if a not in ("-h", "--help")])[0]
    defaults = preset(asked.model, recipe=asked.recipe)
    parser = _parser(defaults, description)
    given, rest = parser.parse_known_args(arguments)
    if rest:
        flag = rest[0].split("=")[0]
        if not flag.startswith("-"):
            raise UserError(f"expected flags as --epochs=3, got {rest[0]!r}")
        known = [option for option in parser._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown flag {flag}{hint} (--help lists all)")
    fields = {field.name: field for field in dataclasses.fields(Config)}
    values = {
        name: _parse(fields[name], value) if isinstance(value, str) else value
        for name, value in vars(given).items()
    }
    return values
