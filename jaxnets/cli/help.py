"""The text of --help, made from the flags."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnets.base.display import fill
from jaxnets.base.language import N_, _
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import (
    Options,
    flag_name,
    is_positional,
    metavar,
    options_of,
    value_text,
)
from jaxnets.config.recipes import DEFAULT_MODEL, MODEL_FIELDS, PRESETS
from jaxnets.config.resolve import preset

# --help shows BEGINNERS; --help_all shows all flags, with a heading before each field of HEADINGS.
BEGINNERS = {"model", "hidden", "dataset", "data_dir", "epochs", "batch_size", "optimizer"}
BEGINNERS |= {"learning_rate", "gradients", "seed", "devices", "workdir", "resume"}
HEADINGS = dict(model=N_("network:"), dataset=N_("data:"), epochs=N_("training:"))
HEADINGS |= dict(platform=N_("machine:"), track=N_("run:"))
WIDTH, NAMES = 80, 24  # Width of the help, and of its first column.
NOTHING = N_("none")  # The text for None.
TRAIN_HINT = N_("The flags of train.py are accepted, too; --help_all shows them.")


def help_text(
    started: str,
    text: str,
    kinds: Sequence[type[Options]],
    given: dict[str, Any],
    everything: bool,
    abouts: Mapping[str, str],
) -> str:
    """The help: a command's own flags, and all flags of Config or only a beginner's.

    Args:
      started: The words that start the command.
      text: What it does.
      kinds: Its flags.
      given: The flags given together with --help.
      everything: Whether --help_all was given.
      abouts: What each command that begins with its name does.
    """
    own = [field for field in options_of(kinds[0]) if kinds[0] is not Config]
    words = [metavar(field) for field in own if is_positional(field)]
    parts = [" ".join([_("usage:"), started, *words, "[--flag=value ...]"])]
    for part in map(_, text.strip().split("\n\n")):
        parts.append(part if part.startswith(" ") else fill(part, WIDTH))
    parts += [command_lines(abouts)] if abouts else []
    parts += [_("flags:") if own or not everything else ""]
    parts[-1] += "".join(_describe(entry(field, field.default)) for field in own)
    if Config in kinds and (everything or not own):
        model = given.get("model", DEFAULT_MODEL)
        defaults = preset(model, recipe=given.get("recipe"))
        for field in [*options_of(Config), *options_of(ConfigFile)]:
            if everything and field.name in HEADINGS:
                parts.append(_(HEADINGS[field.name]))
            if everything or field.name in BEGINNERS:
                misses = field.name in MODEL_FIELDS and field.name not in PRESETS[model]
                note = _("not for {}", model) if misses else ""
                parts[-1] += _describe(entry(field, getattr(defaults, field.name, None), note))
    if not own:
        hint = _("--help_all shows all flags; --model=NAME --help shows the defaults of a model.")
        parts.append(fill(hint, WIDTH))
    elif Config in kinds and not everything:
        parts.append(fill(_(TRAIN_HINT), WIDTH))
    return "\n\n".join(filter(None, parts))


def command_lines(abouts: Mapping[str, str]) -> str:
    """A line for each command: its name, and what it does."""
    width = max(12, *(len(name) + 2 for name in abouts))
    return "\n".join(f"  {name:{width}}{_(about)}" for name, about in abouts.items())


def entry(field: dataclasses.Field, value: Any, note: str = "") -> tuple[str, str]:
    """A flag as it is written, and its meaning with its choices and its default."""
    choices = [text for text in field.metadata["allowed"] if isinstance(text, str)]
    notes = [_("one of: {}", ", ".join(choices))] if choices else []
    if field.type is bool:
        name = f"--[no_]{field.name}" if value else f"--{field.name}"
        notes += [_("default: on")] if value else []
    elif is_positional(field):
        name = metavar(field)
    else:
        name = f"--{flag_name(field)}={metavar(field)}"
        shown = value_text(field, value)
        default = _(shown) if value is None or value == () else shown
        notes.append(note or _("default: {}", default))
    return name, _(field.metadata["help"]) + (f" [{'; '.join(notes)}]" if notes else "")


def _describe(entry: tuple[str, str]) -> str:
    """A flag's entry, laid out in two columns."""
    name, text = entry
    margin = " " * (NAMES + 4)
    text = fill(text, WIDTH - len(margin))
    start = f"{name:{NAMES}}  " if len(name) <= NAMES else f"{name}\n{margin}"
    return f"\n  {start}{textwrap.indent(text, margin).lstrip()}"
