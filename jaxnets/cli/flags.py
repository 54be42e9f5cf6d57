"""Command-line flags, and their help, made from the fields of Config and of the commands' classes.

Flags are `--name=value`, switches `--name` and `--no_name`; dashes in names are underscores.
"""

import dataclasses
import difflib
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from jaxnets.config.fields import Config, preset
from jaxnets.config.options import Options, is_switch, metavar, options_of, parse, show
from jaxnets.config.recipes import DEFAULT_MODEL, MODEL_FIELDS, PRESETS
from jaxnets.errors import UserError
from jaxnets.table import line

# The flags of Config that --help shows; --help_all shows all.
BEGINNERS = (
    "model", "hidden", "dataset", "data_dir", "epochs", "batch_size", "optimizer",
    "learning_rate", "gradients", "seed", "devices", "workdir", "resume",
)  # fmt: skip
WIDTH, NAMES = 80, 24  # Columns of the help, and of these the flags'.

T = TypeVar("T", bound=Options)


def parse_flags(arguments: Sequence[str], description: str = "") -> dict[str, Any]:
    """Reads the flags of train.py that were given; `preset(**flags)` completes them.

    With --resume, the interrupted run's own config completes them instead.

    Args:
      arguments: As `--model=cnn --epochs=3`.
      description: Shown at the top of --help, which prints and exits with status 0.

    Returns:
      The fields that were given.

    Raises:
      UserError: An unknown flag (the nearest is suggested), a word that is no flag, or a value
        that cannot be read.

    >>> parse_flags(["--model=mlp", "--hidden=64,32", "--learning-rate=0.5"])
    {'model': 'mlp', 'hidden': (64, 32), 'learning_rate': 0.5}
    """
    return _read(arguments, "train.py", description, [Config])[0]


def parse_command(
    arguments: Sequence[str], command: str, description: str | None, kind: type[T], config=False
) -> tuple[T, dict[str, Any]]:
    """Reads the flags of a command.

    Args:
      arguments: What follows the command.
      command: Its name.
      description: Shown at the top of --help.
      kind: The class of its own flags.
      config: Whether it takes the flags of train.py, too.

    Returns:
      Its own flags, and those of train.py that were given.

    Raises:
      UserError: What parse_flags refuses, or a value out of range.
    """
    kinds = [kind, Config] if config else [kind]
    own, *given = _read(arguments, f"-m jaxnets {command}", description or "", kinds)
    return kind(**own), given[0] if config else {}


def unknown_flag(name: str, known: Iterable[str]) -> UserError:
    """The error for a flag that does not exist."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UserError(f"unknown flag {name}{hint} (--help_all lists all)")


def _read(
    arguments: Sequence[str], program: str, description: str, kinds: Sequence[type[Options]]
) -> list[dict[str, Any]]:
    """Reads flags, or prints the help and exits; returns what was given for each class."""
    options = [field for kind in kinds for field in options_of(kind)]
    positional = [field for field in options if field.metadata["positional"]]
    flags = {f"--{field.name}": field for field in options if field not in positional}
    flags |= {f"--no_{field.name}": field for field in options if is_switch(field)}
    given: dict[str, Any] = {}
    words, asked, rest = [], "", list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":  # Only words follow, even if they begin with a dash.
            words += rest
            break
        if not text.startswith("-") or text == "-":
            words.append(text)
            continue
        name, equals, value = text.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        if name in ("-h", "--help", "--help_all"):
            asked = name
        elif name not in flags:
            raise unknown_flag(name, [*flags, "--help"])
        elif is_switch(field := flags[name]):
            if equals:
                raise UserError(f"{field.name}: expected {name} without a value, got {value!r}")
            given[field.name] = not name.startswith("--no_")
        else:
            if not equals and (not rest or rest[0].startswith("--")):
                raise UserError(f"{field.name}: expected {name}=value, got {text}")
            value = value if equals else rest.pop(0)
            before = given.get(field.name, ())
            repeated = field.metadata["repeated"]
            given[field.name] = (*before, value) if repeated else parse(field, value)
    if asked:
        print(_help(program, description, kinds, given, asked == "--help_all"), flush=True)
        raise SystemExit(0)
    _take_words(given, words, positional)
    found = [{f.name: given[f.name] for f in options_of(k) if f.name in given} for k in kinds]
    if Config in kinds:
        _tell_new_rate(found[-1])
    return found


def _take_words(
    given: dict[str, Any], words: list[str], fields: Sequence[dataclasses.Field]
) -> None:
    """Gives the words of a command line to the options that are known by their place."""
    if len(words) < len(fields):
        missing = " ".join(map(metavar, fields[len(words) :]))
        raise UserError(f"expected {missing}, got none (--help explains)")
    for field in fields:
        if field.type is str:
            given[field.name] = words.pop(0)
        else:
            given[field.name], words = tuple(words), []
    if words:
        raise UserError(f"expected flags as --name=value, got {words[0]!r}")


def _tell_new_rate(given: dict[str, Any]) -> None:
    """Says on stderr that another optimizer brought another learning rate (see `preset`)."""
    if "optimizer" not in given or "learning_rate" in given or given.get("resume"):
        return
    recipe = {name: given[name] for name in ("model", "recipe") if name in given}
    usual, changed = preset(**recipe), preset(**given)
    if changed.learning_rate != usual.learning_rate:
        print(
            f"note: {changed.optimizer} starts with Keras' default learning rate "
            f"{changed.learning_rate:g} and no momentum, since the recipe's "
            f"{usual.learning_rate:g} is for {usual.optimizer}",
            file=sys.stderr,
        )


# --help


def _help(
    program: str,
    description: str,
    kinds: Sequence[type[Options]],
    given: dict[str, Any],
    everything: bool,
) -> str:
    """The help: a command's own flags, and of Config's a beginner's or everything."""
    words = [metavar(field) for field in options_of(kinds[0]) if field.metadata["positional"]]
    usage = " ".join(["usage: python", program, *words, "[--flag=value ...]"])
    groups: dict[str, list[str]] = {}
    if kinds[0] is not Config:
        groups["flags"] = [_describe(field, field.default) for field in options_of(kinds[0])]
    if kinds == [Config] or (Config in kinds and everything):
        model = given.get("model", DEFAULT_MODEL)
        defaults = preset(model, recipe=given.get("recipe"))
        for field in options_of(Config):
            if everything or field.name in BEGINNERS:
                group = field.metadata["group"] if everything else "flags"
                misses = field.name in MODEL_FIELDS and field.name not in PRESETS[model]
                note = f"not for {model}" if misses else ""
                text = _describe(field, getattr(defaults, field.name), note)
                groups.setdefault(group, []).append(text)
    closing = []
    if kinds == [Config]:
        closing = ["--help_all shows all flags; --model=NAME --help shows the defaults of a model."]
    elif Config in kinds and not everything:
        closing = ["The flags of train.py are accepted, too; --help_all shows them."]
    lists = ["\n".join([f"{group}:", *texts]) for group, texts in groups.items()]
    paragraphs = map(_wrapped, description.strip().split("\n\n"))
    return "\n\n".join([usage, *paragraphs, *lists, *closing])


def _wrapped(paragraph: str) -> str:
    """A paragraph in lines of the help's width; indented lines are kept as they are."""
    return paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, WIDTH)


def _describe(field: dataclasses.Field, value: Any, note: str = "") -> str:
    """A flag with its meaning, choices and default."""
    choices = [text for text in field.metadata["allowed"] if isinstance(text, str)]
    notes = [f"one of: {', '.join(choices)}"] if choices else []
    if note:
        notes.append(note)
    elif is_switch(field):
        notes += ["default: on"] if value else []
    elif value is not dataclasses.MISSING:
        notes.append(f"default: {show(field, value)}")
    if field.metadata["positional"]:
        name = metavar(field)
    elif is_switch(field):
        name = f"--[no_]{field.name}" if value else f"--{field.name}"
    else:
        name = f"--{field.name}={metavar(field)}"
    text = field.metadata["help"] + (f" [{'; '.join(notes)}]" if notes else "")
    lines = textwrap.wrap(text, WIDTH - NAMES - 4, break_long_words=False, break_on_hyphens=False)
    first = [] if len(name) > NAMES else [lines.pop(0)]
    rows = [[name, *first], *(["", text] for text in lines)]
    return "\n".join("  " + line(row, [NAMES, 0], "<<") for row in rows)
