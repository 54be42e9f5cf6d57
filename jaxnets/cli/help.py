"""The text of --help, made from the flags."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from jaxnets.cli.flags import ConfigFile, is_positional
from jaxnets.config.fields import Config, preset
from jaxnets.config.options import METAVARS, Options, options_of, show, types_of
from jaxnets.config.recipes import DEFAULT_MODEL, MODEL_FIELDS, PRESETS

# --help shows BEGINNERS; --help_all shows all flags, with a heading before each field of HEADINGS.
BEGINNERS = {"model", "hidden", "dataset", "data_dir", "epochs", "batch_size", "optimizer"}
BEGINNERS |= {"learning_rate", "gradients", "seed", "devices", "workdir", "resume"}
HEADINGS = dict(
    model="network", dataset="data", epochs="training", platform="machine", log_format="run"
)
WIDTH, NAMES = 80, 24  # Width of the help, and of its first column.


def help_text(
    started: str, text: str, kinds: Sequence[type[Options]], given: dict[str, Any], everything: bool
) -> str:
    """The help: a command's own flags, and all flags of Config or only a beginner's."""
    own = [field for field in options_of(kinds[0]) if kinds[0] is not Config]
    words = [metavar(field) for field in own if is_positional(field)]
    parts = [" ".join(["usage:", started, *words, "[--flag=value ...]"])]
    for part in text.strip().split("\n\n"):
        parts.append(part if part.startswith(" ") else textwrap.fill(part, WIDTH))
    parts += ["flags:" if own or not everything else ""]
    parts[-1] += "".join(_describe(field, field.default) for field in own)
    if Config in kinds and (everything or not own):
        model = given.get("model", DEFAULT_MODEL)
        defaults = preset(model, recipe=given.get("recipe"))
        for field in [*options_of(Config), *options_of(ConfigFile)]:
            if everything and field.name in HEADINGS:
                parts.append(f"{HEADINGS[field.name]}:")
            if everything or field.name in BEGINNERS:
                misses = field.name in MODEL_FIELDS and field.name not in PRESETS[model]
                note = f"not for {model}" if misses else ""
                parts[-1] += _describe(field, getattr(defaults, field.name, None), note)
    if not own:
        parts += ["--help_all shows all flags; --model=NAME --help shows the defaults of a model."]
    elif Config in kinds and not everything:
        parts += ["The flags of train.py are accepted, too; --help_all shows them."]
    return "\n\n".join(filter(None, parts))


def metavar(field: dataclasses.Field) -> str:
    """The placeholder for an option's value in the help."""
    kind, element, _ = types_of(field)
    return field.metadata["metavar"] or METAVARS[element] + ",..." * (kind is tuple)


def entry(field: dataclasses.Field, value: Any, note: str = "") -> tuple[str, str]:
    """A flag as it is written, and its meaning with its choices and its default."""
    choices = [text for text in field.metadata["allowed"] if isinstance(text, str)]
    notes = [f"one of: {', '.join(choices)}"] if choices else []
    if field.type is bool:
        name = f"--[no_]{field.name}" if value else f"--{field.name}"
        notes += ["default: on"] if value else []
    elif is_positional(field):
        name = metavar(field)
    else:
        name = f"--{field.name}={metavar(field)}"
        notes.append(note or f"default: {show(field, value)}")
    return name, field.metadata["help"] + (f" [{'; '.join(notes)}]" if notes else "")


def _describe(field: dataclasses.Field, value: Any, note: str = "") -> str:
    """A flag's entry, laid out in two columns."""
    name, text = entry(field, value, note)
    margin = " " * (NAMES + 4)
    text = textwrap.fill(text, WIDTH - len(margin), break_on_hyphens=False)
    start = f"{name:{NAMES}}  " if len(name) <= NAMES else f"{name}\n{margin}"
    return f"\n  {start}{textwrap.indent(text, margin).lstrip()}"
