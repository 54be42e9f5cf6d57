"""Dataclass fields that are also command-line flags: type, default, help, range and choices.

`Config` is such a class, and command.py makes one from each command's signature; cli/flags.py reads
and explains them.
"""

import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any

from jaxnets.base.described import Described
from jaxnets.base.errors import UserError, same_name, unknown
from jaxnets.base.language import N_, Text

MAX_NUMBERS = 100  # In one value; a config.json may come from an untrusted source.
TYPE_NAMES = {int: N_("a whole number"), float: N_("a number")}
TYPE_NAMES |= {bool: N_("true or false"), str: N_("a text")}
METAVARS = {int: "N", float: "X", str: "NAME"}
# Metavars of texts that may name a file.
PATHS = ("FOLDER", "FILE", "RUN|FILE", "NAME|FOLDER")
CUSTOM = "custom:"  # In a run's files, the prefix of a user's own function or optimizer.

Field = dataclasses.Field[Any]


def option(
    default: object,
    help: str,
    allowed: tuple[Any, ...] = (),
    *,
    none: str | None = None,
    unset: str | None = None,
    metavar: str | None = None,
    repeated: bool = False,
    custom: bool = False,
    others: bool = False,
) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: Its default; dataclasses.MISSING for a positional option.
      help: Its meaning, as a phrase.
      allowed: The smallest and the largest number, or the texts to choose from.
      none: The word that stands for None, or for an empty tuple, on the command line.
      unset: What the help says about a default that is None or empty.
      metavar: The placeholder for the value in the help.
      repeated: Whether the flag may be given several times, once for each part of a tuple.
      custom: Whether Python may give a function instead of a name.
      others: Whether the class itself checks texts other than `allowed`.
    """
    metadata = {
        "help": help,
        "allowed": allowed,
        "none": none,
        "unset": unset,
        "metavar": metavar,
        "repeated": repeated,
        "custom": custom,
        "others": others,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Options(Described):
    """A class whose fields are options: each value is checked when an object is made."""

    def __post_init__(self):
        for field in options_of(type(self)):
            value = checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)


def options_of(kind: type[Options]) -> list[Field]:
    """The fields of a class that are options."""
    return [field for field in dataclasses.fields(kind) if field.metadata]


def types_of(field: Field) -> tuple[type, type, bool]:
    """A field's type, the type of a tuple's parts (else its own), and whether it may be None.

    `tuple[int, ...] | None` is (tuple, int, True).
    """
    optional = isinstance(field.type, types.UnionType)
    kind: Any = typing.get_args(field.type)[0] if optional else field.type
    parts = typing.get_args(kind)
    return (tuple, parts[0], optional) if parts else (kind, kind, optional)


def is_positional(field: Field) -> bool:
    """Whether an option is a word without a flag; one with a metavar such as [RUN] is optional."""
    return field.default is dataclasses.MISSING or str(field.metadata["metavar"]).startswith("[")


def flag_name(field: Field) -> str:
    """An option's name as users write it: "for" for `for_`, as Python reserves the word."""
    return field.name.rstrip("_")


def metavar(field: Field) -> str:
    """The placeholder for an option's value in the help."""
    kind, element, _ = types_of(field)
    return field.metadata["metavar"] or METAVARS[element] + ",..." * (kind is tuple)


def parse(field: Field, text: str) -> object:
    """The value that a text stands for; the class checks whether it is allowed."""
    kind, element, _ = types_of(field)
    if text == field.metadata["none"]:
        return () if kind is tuple else None
    if kind is str:  # MLP-functional is mlp_functional.
        return same_name(text, field.metadata["allowed"]) or text
    try:
        if kind is tuple:
            return tuple(element(part) for part in text.strip("[()]").split(","))
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UserError(
            "{}: expected {}, got {}", flag_name(field), _expected(field), repr(text)
        ) from None


def value_text(field: Field, value: object) -> str:
    """A value as the help shows it."""
    if value is None or value == ():
        return field.metadata["unset"] or field.metadata["none"] or "none"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_file_of_python(value: object) -> bool:
    """Whether a network's name is that of a file."""
    return isinstance(value, str) and value.endswith(".py")


def is_custom(value: object) -> bool:
    """Whether a value is a user's own function or optimizer, or the text that stands for one."""
    if isinstance(value, str):
        return value.startswith(CUSTOM)
    return callable(value) or (hasattr(value, "init") and hasattr(value, "update"))


def name_of(value: object) -> object:
    """A value as a run's files record it: the user's own as CUSTOM and its name."""
    if isinstance(value, str) or not is_custom(value):
        return value
    return CUSTOM + getattr(value, "__name__", type(value).__name__)


def _expected(field: Field) -> Text:
    """An option's type in words."""
    kind, element, _ = types_of(field)
    if kind is not tuple and (none := field.metadata["none"]):
        return Text("{} or {}", Text(TYPE_NAMES[kind]), none)
    if kind is not tuple:
        return Text(TYPE_NAMES[kind])
    example = (
        value_text(field, field.default) if field.default else "64,64" if element is int else "a,b"
    )
    return Text("numbers as {}", example) if element is int else Text("names as {}", example)


def checked(field: Field, value: object) -> object:
    """A value as an object holds it; UserError if it has the wrong type or is out of range."""
    kind, element, _ = types_of(field)
    if isinstance(value, str) and value == field.metadata["none"]:  # As on the command line.
        value = None
    if kind is tuple and isinstance(value, list | element):  # [64, 32] or 64.
        value = tuple(value if isinstance(value, list) else [value])
    _check(field, value)
    return value


def _check(field: Field, value: object) -> None:
    """Raises UserError if a value has the wrong type or is out of range."""
    kind, element, optional = types_of(field)
    name, allowed, none = flag_name(field), field.metadata["allowed"], field.metadata["none"]
    if value is None and optional:
        return
    if field.metadata["custom"] and is_custom(value):
        return
    if element is str and allowed and value not in allowed and not field.metadata["others"]:
        raise unknown(name, str(value), allowed)
    values: Any = value if kind is tuple else (value,)
    may_be_empty = field.default == () or none is not None
    if not isinstance(values, tuple) or not (values or may_be_empty):
        raise UserError("{}: expected {}, got {}", name, _expected(field), repr(value))
    if len(values) > MAX_NUMBERS:
        raise UserError("{}: expected at most {} numbers, got {}", name, MAX_NUMBERS, len(values))
    if field.metadata["metavar"] in PATHS and not _is_path(value):
        raise UserError("{}: expected a path or a name, got {}", name, repr(value))
    wanted = Text(TYPE_NAMES[element])
    for part in values:
        fits = isinstance(part, (int, float) if element is float else element)
        if not fits or (isinstance(part, bool) and element is not bool):
            raise UserError("{}: expected {}, got {}", name, wanted, repr(part))
        if element in (int, float) and not allowed[0] <= part <= allowed[1]:  # NaN is refused, too.
            low, high = allowed
            number = wanted
            wanted = Text("{} from {} to {}", number, low, high)
            if none:
                wanted = Text("{} from {} to {} or {}", number, low, high, none)
            raise UserError("{}: expected {}, got {}", name, wanted, part)


def _is_path(value: Any) -> bool:
    """Whether a text can name a file; one from an untrusted config.json may not."""
    try:
        return b"\0" not in os.fsencode(Path(value).expanduser())
    except (TypeError, ValueError, RuntimeError):  # Not a text; not Unicode; ~ of no user.
        return False
