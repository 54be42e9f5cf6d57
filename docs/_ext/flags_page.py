"""The page of commands and flags, and Config's fields in Python's, from the same as --help."""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

from jaxnets.base.language import _, speaking
from jaxnets.cli.commands import COMMANDS, abouts
from jaxnets.cli.help import HEADINGS, TRAIN_HINT, entry
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, is_positional, metavar, options_of

MARKER = "<!-- the flags -->"  # Stands in docs/reference/cli.md.
FIELDS = "<!-- the fields of Config -->"  # Stands in docs/reference/api.md.


def flags(*kinds: type[Options]) -> Iterator[str]:
    """A definition for each flag: `--flag=VALUE`, then what it means."""
    for kind in kinds:
        for field in options_of(kind):
            if kind is Config and field.name in HEADINGS:
                yield f"**{_(HEADINGS[field.name]).strip(':').capitalize()}**\n\n"
            name, text = entry(field, field.default)
            yield f"`{name}`\n: {text.replace('<', '&lt;').replace('*', chr(92) + '*')}\n\n"


def reference() -> str:
    """All commands, each with its own flags, in Markdown."""
    usage = "jaxnets train [--flag=value ...]\npython train.py [--flag=value ...]"
    parts = [f"## jaxnets train\n\n{_(abouts()['train'])}\n\n```text\n{usage}\n```\n\n"]
    parts += flags(Config, ConfigFile)
    for name, command in COMMANDS.items():
        own, *others = command.kinds
        words = [metavar(field) for field in options_of(own) if is_positional(field)]
        usage = " ".join(["jaxnets", name, *words, "[--flag=value ...]"])
        parts.append(f"## jaxnets {name}\n\n{_(command.about)}\n\n```text\n{usage}\n```\n\n")
        parts += flags(own)
        parts += [f"{_(TRAIN_HINT)}\n\n"] * bool(others)
    # A flag in a sentence is code, too, or its dashes would become one long dash.
    return re.sub(r"(?<![`\[\w-])--\w+(=[A-Z]+)?", r"`\g<0>`", "".join(parts))


def fields() -> str:
    """A definition for each field of Config: its name and type, then the flag's text."""
    parts = []
    for field in options_of(Config):
        if field.name in HEADINGS:
            parts.append(f"**{HEADINGS[field.name].strip(':').capitalize()}**\n\n")
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        text = entry(field, field.default)[1].replace("<", "&lt;").replace("*", "\\*")
        parts.append(f"`{field.name}: {kind}`\n: {text}\n\n")
    return "".join(parts)


def fill(app: Sphinx, page: str, text: list[str]) -> None:
    """Puts the flags where a page has the marker."""
    if MARKER in text[0]:
        with speaking("en" if app.config.language == "en" else "zh"):
            text[0] = text[0].replace(MARKER, reference())
    if FIELDS in text[0]:
        text[0] = text[0].replace(FIELDS, fields())


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it with Sphinx."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
