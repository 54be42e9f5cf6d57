"""The docstrings and comments of a student's file, in the student's language."""

import inspect
import re
import textwrap

from jaxnets.cli.language import Say
from jaxnets.display import fill

WIDTH = 88
FLAGS = re.MULTILINE | re.DOTALL


def translated(source: str, say: Say) -> str:
    r"""A file whose docstrings and comments are said in a language.

    >>> print(translated('x = 1  # one\n# two', {"one": "一", "two": "二"}.__getitem__))
    x = 1  # 一
    # 二
    """
    if say is str:
        return source

    def docstring(found: re.Match) -> str:
        indent, quote, text, end = found.groups()
        text = _paragraphs(inspect.cleandoc(text), say)
        return indent + quote + textwrap.indent(text, indent).lstrip() + end + quote

    def comment(found: re.Match) -> str:
        mark = f"{found[1]}# "
        text = textwrap.dedent(re.sub("^ *#", "", found[0], flags=re.MULTILINE))
        lines = _paragraphs(text, say).split("\n")
        return "\n".join((mark + line).rstrip() for line in lines)

    for quote in ('"""', "'''"):
        source = re.sub(rf"^( *)({quote})(.*?)(\s*){quote}", docstring, source, flags=FLAGS)
    source = re.sub(r"^( *)#[^\n]*(?:\n\1#[^\n]*)*", comment, source, flags=FLAGS)
    return re.sub(r"(?<=\S  # ).*", lambda found: say(found[0]), source)


def _paragraphs(text: str, say: Say) -> str:
    parts = []
    for part in text.split("\n\n"):
        listed = part.startswith(("Args:", "Returns:"))  # Entries, which may have several lines.
        entries = re.split(r"\n(?= {0,2}\S)", part) if listed else [part]
        hang = "  " if listed else ""
        parts.append("\n".join(_filled(entry, say, hang) for entry in entries))
    return "\n\n".join(parts)


def _filled(entry: str, say: Say, hang: str = "") -> str:
    said = say(" ".join(entry.split()))
    if said.isascii():  # Formulas, each a line, or code.
        lines = entry.split("\n")
        return "\n".join(_filled(line, say) for line in lines) if len(lines) > 1 else entry
    indent = " " * (len(entry) - len(entry.lstrip()))
    lines = fill(said, WIDTH - len(indent + hang))
    return indent + lines.replace("\n", f"\n{indent}{hang}")
