"""The page of commands and flags, from the same fields as --help."""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

from jaxnets.cli.commands import ABOUT_TRAIN, COMMANDS
from jaxnets.cli.help import HEADINGS, TRAIN_HINT, entry
from jaxnets.cli.language import Say, words_of
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, is_positional, metavar, options_of

MARKER = "<!-- the flags -->"  # Stands in docs/reference/cli.md.


def flags(kinds: list[type[Options]], say: Say) -> Iterator[str]:
    """A definition for each flag: `--flag=VALUE`, then what it means."""
    for kind in kinds:
        for field in options_of(kind):
            if kind is Config and field.name in HEADINGS:
                yield f"**{say(HEADINGS[field.name]).capitalize()}**\n\n"
            name, text = entry(field, field.default, say)
            yield f"`{name}`\n: {text.replace('<', '&lt;').replace('*', chr(92) + '*')}\n\n"


def reference(say: Say = str) -> str:
    """All commands, each with its own flags, in Markdown."""
    usage = "jaxnets train [--flag=value ...]\npython train.py [--flag=value ...]"
    parts = [f"## jaxnets train\n\n{say(ABOUT_TRAIN)}\n\n```text\n{usage}\n```\n\n"]
    parts += flags([Config, ConfigFile], say)
    for name, (command, *others) in COMMANDS.items():
        about = say(re.sub(r"\n\n    .*", "", command.__doc__ or "", flags=re.DOTALL))
        words = [metavar(field) for field in options_of(command) if is_positional(field)]
        usage = " ".join(["jaxnets", name, *words, "[--flag=value ...]"])
        parts.append(f"## jaxnets {name}\n\n{about}\n\n```text\n{usage}\n```\n\n")
        parts += flags([command], say)
        parts += [f"{say(TRAIN_HINT)}\n\n"] * bool(others)
    # A flag in a sentence is code, too, or its dashes would become one long dash.
    return re.sub(r"(?<![`\[\w-])--\w+(=[A-Z]+)?", r"`\g<0>`", "".join(parts))


def fill(app: Sphinx, page: str, text: list[str]) -> None:
    """Puts the flags where a page has the marker."""
    if MARKER in text[0]:
        say = words_of("en" if app.config.language == "en" else "zh")
        text[0] = text[0].replace(MARKER, reference(say))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it with Sphinx."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
