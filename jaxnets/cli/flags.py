"""Command-line flags, and their help, made from the fields of Config and the commands.

Flags are `--name=value`, switches `--name` and `--no_name`. Capitals and dashes do not matter.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxnets.base.display import program
from jaxnets.base.errors import UserError, unknown
from jaxnets.base.language import LANGUAGES, Text, speaking
from jaxnets.base.version import __version__
from jaxnets.base.words import command_words, hint, right_name
from jaxnets.config.command import Command
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile, read_flags
from jaxnets.config.options import (
    Field,
    Options,
    flag_name,
    is_file_of_python,
    is_positional,
    metavar,
    options_of,
    parse,
    types_of,
)
from jaxnets.config.unknown import flag_words, unknown_flag, unknown_model
from jaxnets.tracking.check import check as check_trackers

OTHERS = ("--help", "--help_all", "--version")  # Flags that are not fields.


def parse_flags(arguments: Sequence[str], description: str = "") -> dict[str, Any]:
    """Reads the flags of train.py that were given; --help prints the description and exits.

    `preset(**flags)` completes them, or with --resume the interrupted run's own config.

    >>> parse_flags(["--model=mlp", "--hidden=64,32", "--learning-rate=0.5"])
    {'model': 'mlp', 'hidden': (64, 32), 'learning_rate': 0.5}
    """
    return _read(arguments, _usage("train"), description, [Config, ConfigFile])


def parse_command(
    arguments: Sequence[str], name: str, command: Command, parts: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Reads a command's own flags, and those of train.py if it takes them.

    --help begins with what the command and each of its parts, such as `exercise new`, does.
    """
    given = _read(arguments, _usage(name), command.about, command.kinds, parts)
    own = command.kinds[0]
    names = {field.name for field in options_of(own)} & set(given)
    return own(**{name: given.pop(name) for name in names}), given


def known_language(language: str | None) -> str | None:
    """A language that `speaking` knows; raises UserError for another."""
    if language not in (None, *LANGUAGES):
        raise unknown("language", language, LANGUAGES)
    return language


def print_version() -> None:
    """Prints the version and ends the process."""
    print(f"jaxnets {__version__}", flush=True)
    raise SystemExit(0)


def _usage(command: str) -> str:
    """The words that start a command, each without its folder."""
    return " ".join(map(os.path.basename, program(command)))


class _Line(NamedTuple):
    """What a command line gives."""

    values: dict[str, Any]  # Of the flags, by field.
    words: list[str]
    wants_help: bool = False
    wants_all: bool = False  # Whether the help shows all flags.
    language: str | None = None  # That of the help, if the command has no such flag.


def _read(
    arguments: Sequence[str],
    started: str,
    description: str,
    kinds: Sequence[type[Options]],
    parts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    options = [field for kind in kinds for field in options_of(kind)]
    known = {**command_words(), **flag_words(options), **{flag[2:]: flag for flag in OTHERS}}
    line = _scan(arguments, options, known)
    given = line.values
    if line.wants_help:
        from jaxnets.cli.help import help_text

        with speaking(known_language(given.get("language", line.language))):
            text = help_text(started, description, kinds, given, line.wants_all, parts or {})
        if not started.endswith("train.py"):
            text = text.replace("python train.py", "jaxnets train")
        print(text, flush=True)
        raise SystemExit(0)
    if line.language is not None:
        raise unknown_flag("--language", known)
    positional = [field for field in options if is_positional(field)]
    if line.words or positional:
        given |= _positionals(line.words, positional, started, known)
    return _with_files(given, takes_training=Config in kinds)


def _scan(arguments: Sequence[str], options: Sequence[Field], known: Mapping[str, str]) -> _Line:
    """Takes the flags and words of a command line apart; --version prints and exits."""
    flags = {f"--{flag_name(field)}": field for field in options if not is_positional(field)}
    flags |= {f"--no_{field.name}": field for field in options if field.type is bool}
    line, rest = _Line({}, []), list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":  # Only words follow, even if they begin with a dash.
            line.words.extend(rest)
            break
        if not text.startswith("-") or text == "-":
            line.words.append(text)
            continue
        name, equals, value = text.partition("=")
        name = "--output" if name == "-o" and "--output" in flags else name
        if name.startswith("--"):
            name = right_name(name[2:], [*flags, *OTHERS]) or f"--{name[2:].replace('-', '_')}"
        if name == "--version":
            print_version()
        if name in ("-h", "--help", "--help_all"):
            line = line._replace(wants_help=True, wants_all=line.wants_all or name == "--help_all")
        elif name in flags and flags[name].type is bool:
            line.values[flags[name].name] = _switched(flags[name], name, equals + value)
        elif name in flags:
            if not equals and (not rest or rest[0].startswith("--")):
                raise _without_value(flags[name], name, text)
            _add(line.values, flags[name], value if equals else rest.pop(0))
        elif name == "--language":
            line = line._replace(language=value)
        else:
            raise unknown_flag(name, known)
    return line


def _switched(field: Field, name: str, given: str) -> bool:
    """The value of a switch, --name or --no_name; UserError if it was given one, as "=true"."""
    if given:
        raise UserError(
            "{}: expected {} without a value, got {}", field.name, name, repr(given[1:])
        )
    return not name.startswith("--no_")


def _without_value(field: Field, name: str, text: str) -> UserError:
    meaning = field.metadata["help"].partition(";")[0]
    wanted = Text("{}={} ({})", name, metavar(field), meaning)
    return UserError("{}: expected {}, got {}", flag_name(field), wanted, text)


def _add(values: dict[str, Any], field: Field, text: str) -> None:
    """Adds a flag's value; that of a repeated flag to those before."""
    if field.metadata["repeated"]:
        values[field.name] = (*values.get(field.name, ()), text)
    else:
        values[field.name] = _parse(field, text)


def _with_files(given: dict[str, Any], takes_training: bool) -> dict[str, Any]:
    """The flags with those of the file that --config names, and a network's file read."""
    named = given.get("model")  # On the command line: a file that --config names runs no code.
    if (path := given.pop("config", None)) is not None:
        read = read_flags(path, given.get("over", ()))
        if named is not None:
            read.pop("layers", None)  # They are another network's.
        given = read | given
    if takes_training and is_file_of_python(named):
        from jaxnets.networks.own import from_file

        given["model"] = from_file(str(named))
    if "track" in given:  # Missing packages are reported before JAX is imported and data load.
        check_trackers(given["track"])
    return given


def _positionals(
    words: list[str], fields: Sequence[Field], started: str, known: Mapping[str, str]
) -> dict[str, Any]:
    """Gives each positional option a word; an option whose type is tuple takes all the rest.

    `known` is as in `hint`, for a word where flags are expected.
    """
    needed = [field for field in fields if field.default is dataclasses.MISSING]
    wanted = " ".join([started, *map(metavar, fields)])
    if len(words) < len(needed):
        missing = " ".join(map(metavar, needed[len(words) :]))
        got = f"only {' '.join(words)}" if words else "none"
        raise UserError("expected {}, got {}: {} (--help explains)", missing, got, wanted)
    given: dict[str, Any] = {}
    left = list(words)
    for field in fields:
        if types_of(field)[0] is tuple:
            given[field.name], left = tuple(left), []
        elif left:
            given[field.name] = left.pop(0)
    if left and fields:
        raise UserError("expected {}, got {}", wanted, " ".join(words))
    if left:
        raise UserError("expected --name=value, got {}{}", repr(left[0]), hint(left[0], known))
    return given


def _parse(field: Field, text: str) -> Any:
    value, allowed = parse(field, text), field.metadata["allowed"]
    if field.name == "model" and value not in allowed and not is_file_of_python(value):
        file = f"{value}.py"
        said = Text("; did you mean {}?", f"--model={file}") if os.path.exists(file) else ""
        raise unknown_model(text, allowed, said)
    return value
