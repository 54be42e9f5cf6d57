"""The text of --help, made from the flags."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from jaxnets.cli.language import Say, fill, words_of
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, is_positional, metavar, options_of, show
from jaxnets.config.recipes import DEFAULT_MODEL, MODEL_FIELDS, PRESETS
from jaxnets.config.resolve import preset

# --help shows BEGINNERS; --help_all shows all flags, with a heading before each field of HEADINGS.
BEGINNERS = {"model", "hidden", "dataset", "data_dir", "epochs", "batch_size", "optimizer"}
BEGINNERS |= {"learning_rate", "gradients", "seed", "devices", "workdir", "resume"}
HEADINGS = dict(
    model="network", dataset="data", epochs="training", platform="machine", log_format="run"
)
WIDTH, NAMES = 80, 24  # Width of the help, and of its first column.
MODEL_HINT = "--help_all shows all flags; --model=NAME --help shows the defaults of a model."
TRAIN_HINT = "The flags of train.py are accepted, too; --help_all shows them."


def help_text(
    started: str, text: str, kinds: Sequence[type[Options]], given: dict[str, Any], everything: bool
) -> str:
    """The help: a command's own flags, and all flags of Config or only a beginner's."""
    say = words_of(given.get("language"))
    own = [field for field in options_of(kinds[0]) if kinds[0] is not Config]
    words = [metavar(field) for field in own if is_positional(field)]
    parts = [" ".join([say("usage:"), started, *words, "[--flag=value ...]"])]
    for part in map(say, text.strip().split("\n\n")):
        parts.append(part if part.startswith(" ") else fill(part, WIDTH))
    parts += [say("flags:") if own or not everything else ""]
    parts[-1] += "".join(_describe(entry(field, field.default, say)) for field in own)
    if Config in kinds and (everything or not own):
        model = given.get("model", DEFAULT_MODEL)
        defaults = preset(model, recipe=given.get("recipe"))
        for field in [*options_of(Config), *options_of(ConfigFile)]:
            if everything and field.name in HEADINGS:
                parts.append(f"{say(HEADINGS[field.name])}:")
            if everything or field.name in BEGINNERS:
                misses = field.name in MODEL_FIELDS and field.name not in PRESETS[model]
                note = f"{say('not for ')}{model}" if misses else ""
                value = getattr(defaults, field.name, None)
                parts[-1] += _describe(entry(field, value, say, note))
    if not own:
        parts.append(fill(say(MODEL_HINT), WIDTH))
    elif Config in kinds and not everything:
        parts.append(fill(say(TRAIN_HINT), WIDTH))
    return "\n\n".join(filter(None, parts))


def entry(field: dataclasses.Field, value: Any, say: Say = str, note: str = "") -> tuple[str, str]:
    """A flag as it is written, and its meaning with its choices and its default."""
    choices = [text for text in field.metadata["allowed"] if isinstance(text, str)]
    notes = [say("one of: ") + ", ".join(choices)] if choices else []
    if field.type is bool:
        name = f"--[no_]{field.name}" if value else f"--{field.name}"
        notes += [say("default: on")] if value else []
    elif is_positional(field):
        name = metavar(field)
    else:
        name = f"--{field.name}={metavar(field)}"
        notes.append(note or say("default: ") + say(show(field, value)))
    return name, say(field.metadata["help"]) + (f" [{'; '.join(notes)}]" if notes else "")


def _describe(entry: tuple[str, str]) -> str:
    """A flag's entry, laid out in two columns."""
    name, text = entry
    margin = " " * (NAMES + 4)
    text = fill(text, WIDTH - len(margin))
    start = f"{name:{NAMES}}  " if len(name) <= NAMES else f"{name}\n{margin}"
    return f"\n  {start}{textwrap.indent(text, margin).lstrip()}"
