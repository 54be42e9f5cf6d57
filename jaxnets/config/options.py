"""Dataclass fields that are also command-line flags: type, default, help, range and choices.

`Config` and the flags of every command are such classes; cli/flags.py makes flags of their fields.
"""

import dataclasses
import os
import typing
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError, unknown

MAX_NUMBERS = 100  # In one value: a config.json may be anybody's.
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
METAVARS = {int: "N", float: "X", str: "NAME"}
PATHS = ("FOLDER", "FILE.safetensors", "NAME|FOLDER")  # Metavars of texts that may name a file.


def option(
    default: Any,
    help: str,
    allowed: tuple[Any, ...] = (),
    *,
    group: str = "flags",
    none: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    repeated: bool = False,
    positional: bool = False,
) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: Its default, or dataclasses.MISSING.
      help: What it is, as a phrase.
      allowed: For numbers, the smallest and the largest; for texts, the choices.
      group: The heading under which the help shows it.
      none: The word that stands for None, or for an empty tuple, on the command line.
      unset: What the help says about a default that is None or empty.
      metavar: What stands for the value in the help.
      repeated: Whether the flag may be given several times, once for each part of a tuple.
      positional: Whether it is given by its place instead of by name.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A class whose fields are options: each value is checked when an object is made."""

    def __post_init__(self):
        for field in options_of(type(self)):
            check(field, getattr(self, field.name))


def options_of(kind: type[Options]) -> list[dataclasses.Field]:
    """The fields of a class that are options."""
    return [field for field in dataclasses.fields(kind) if field.metadata]


def _types(field: dataclasses.Field) -> tuple[type, type, bool]:
    """A field's type, that of its parts if it is a tuple (else its own), and if it may be None.

    >>> from jaxnets.config.fields import Config
    >>> _types(Config.__dataclass_fields__["hidden"])
    (<class 'tuple'>, <class 'int'>, True)
    """
    kinds = typing.get_args(field.type) if type(None) in typing.get_args(field.type) else ()
    (kind,) = [kind for kind in kinds if kind is not type(None)] or [field.type]
    if typing.get_origin(kind) is tuple:
        return tuple, typing.get_args(kind)[0], bool(kinds)
    kind = typing.cast(type, kind)
    return kind, kind, bool(kinds)


def is_switch(field: dataclasses.Field) -> bool:
    """Whether an option is true or false."""
    return _types(field)[0] is bool


def parse(field: dataclasses.Field, text: str) -> Any:
    """The value that a text stands for; `check` says if it is allowed.

    Raises:
      UserError: The text is not of the option's type.
    """
    kind, element, _ = _types(field)
    if text == field.metadata["none"]:
        return () if kind is tuple else None
    try:
        if kind is tuple:
            return tuple(element(part) for part in text.split(","))
        if kind is bool:
            return {"true": True, "false": False}[text]
        return kind(text)
    except (ValueError, KeyError):
        raise UserError(f"{field.name}: expected {_expected(field)}, got {text!r}") from None


def show(field: dataclasses.Field, value: Any) -> str:
    """A value as the help shows it."""
    if value is None or value == ():
        return field.metadata["none"] or field.metadata["unset"] or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def metavar(field: dataclasses.Field) -> str:
    """What stands for an option's value in the help."""
    kind, element, _ = _types(field)
    return field.metadata["metavar"] or METAVARS[element] + ",..." * (kind is tuple)


def _expected(field: dataclasses.Field) -> str:
    """An option's type in words."""
    kind, element, _ = _types(field)
    if kind is not tuple:
        return TYPE_NAMES[kind]
    example = show(field, field.default) if field.default else "64,64"
    return f"{'numbers' if element is int else 'names'} as {example}"


def check(field: dataclasses.Field, value: Any) -> None:
    """Checks a value.

    Raises:
      UserError: It has the wrong type or is out of range.
    """
    kind, element, optional = _types(field)
    rules = field.metadata
    if value is None and optional:
        return
    if element is str and rules["allowed"] and value not in rules["allowed"]:
        raise unknown(field.name, str(value), rules["allowed"])
    values = value if kind is tuple else (value,)
    may_be_empty = field.default == () or rules["none"] is not None
    if not isinstance(values, tuple) or not (values or may_be_empty):
        raise UserError(f"{field.name}: expected {_expected(field)}, got {value!r}")
    if len(values) > MAX_NUMBERS:
        raise UserError(f"{field.name}: expected at most {MAX_NUMBERS} numbers, got {len(values)}")
    if element is str and rules["metavar"] in PATHS and not _is_path(value):
        raise UserError(f"{field.name}: expected a path or a name, got {value!r}")
    number: Any
    for number in values:
        fits = isinstance(number, (int, float) if element is float else element)
        if not fits or (isinstance(number, bool) and element is not bool):
            raise UserError(f"{field.name}: expected {TYPE_NAMES[element]}, got {number!r}")
        if element in (int, float):
            low, high = rules["allowed"]
            if not low <= number <= high:  # Also where number is NaN.
                wanted = f"{TYPE_NAMES[element]} from {low} to {high}"
                wanted += f" or {rules['none']}" if rules["none"] else ""
                raise UserError(f"{field.name}: expected {wanted}, got {number}")


def _is_path(value: Any) -> bool:
    """Whether a text can name a file; one from config.json, which may be anybody's, may not."""
    try:
        return b"\0" not in os.fsencode(Path(value).expanduser())
    except (TypeError, ValueError, RuntimeError):  # Not a text; not Unicode; ~ of nobody.
        return False
