"""Text for a terminal: lines that fit, colours, names, tables, commands to be pasted."""

import itertools
import os
import re
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

from jaxnets.base.language import N_, _

WINDOWS = os.name == "nt"
# A command follows these, to the end of the line.
RESUME = N_("resume with: {}")
REPORT = N_("its report: {}")
PICTURES = N_("your own pictures: {}")
PAGE = N_("a page to play on: {}")
NOT_FINISHED = N_("note: the run is not finished: its parameters are those of step {}")
COLOURS = {"red": 31, "green": 32}
OURS = re.compile(r"(\n|\x1b\[(?:0|31|32)m)")  # The ends of lines, and what `paint` writes.
LONGEST = 2000  # Characters of a message: a file may hold a text of any length.
# What may be alone on a line: a word, or one Chinese character with the marks that follow it.
PIECES = re.compile(r"（*(?:[^\s\u2e80-\uffef]+|[\u2e80-\uffef])[，。；：、）]*|\s+")


def printable(text: str) -> str:
    r"""A name as a terminal may show it: control characters and broken Unicode are escaped.

    >>> print(printable("red\x1b[31m\n"))
    red\x1b[31m\n
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    r"""A message as a terminal may show it: one line, whatever names it contains.

    >>> print(one_line("no\n  file\x1b[2J"))
    no file\x1b[2J
    """
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text):,} characters)"
    return printable(" ".join(text.split()))


def shortened(text: str, length: int) -> str:
    """A text with at most `length` characters; if it has more, its end is left out.

    >>> shortened("global_average_pool", 8)
    'global_…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def program(command: str) -> list[str]:
    """The words by which the user's shell starts a command, as it started this process."""
    script = sys.argv[0]
    name = os.path.basename(script)
    if name.removesuffix(".exe") == "jaxnets":
        on_path = _found_on_path("jaxnets") == os.path.abspath(script)
        return ["jaxnets" if on_path else script, command]
    python = "python" if _found_on_path("python") == sys.executable else short_path(sys.executable)
    if command == "train" and name.endswith(".py") and name != "__main__.py":
        return [python, script]
    script = os.path.join(os.path.dirname(sys.executable), "jaxnets")  # That of its environment.
    if os.path.exists(script):
        return ["jaxnets" if python == "python" else short_path(script), command]
    return [python, "-m", "jaxnets", command]


def command_line(words: Sequence[str]) -> str:
    """The words of a command in one line, which a user can copy into their shell."""
    if WINDOWS:  # Its shells know double quotes alone, which no file's name has there.
        return " ".join(f'"{word}"' if " " in word else word for word in words)
    return shlex.join(words)


def _found_on_path(name: str) -> str | None:
    """The file that a shell would start for a name."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    files = (os.path.join(folder, name) for folder in folders if folder)
    return next((file for file in files if os.access(file, os.X_OK)), None)


def short_path(path: str) -> str:
    """A path relative to the working folder, if it is inside it."""
    try:
        shorter = os.path.relpath(path)
    except (OSError, ValueError):  # No working folder; or another drive of Windows.
        return path
    return path if shorter.startswith("..") else shorter


def columns(stream: Any = None) -> int:
    """The width of the terminal behind a stream (stdout); without one, more than any text needs."""
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return sys.maxsize


def is_screen(stream: Any) -> bool:
    """Whether a stream is a terminal with a size; some notebooks and runners have one of 0 x 0."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False


def wrap(text: str, width: int) -> str:
    """Breaks long lines between words; a command gets a line of its own, and is never broken."""
    marks = [_(text).removesuffix("{}") for text in (REPORT, PICTURES, PAGE, RESUME)]
    lines = []
    for line in text.split("\n"):
        if width_of(line) <= width:
            lines.append(line)
            continue
        mark = next((mark for mark in marks if mark in line), "")
        before, mark, command = line.partition(mark) if mark else (line, "", "")
        if (before + mark).isascii():
            lines += textwrap.wrap(
                before + mark,
                width,
                subsequent_indent="  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        else:
            lines += fill(before + mark, width).split("\n")
        lines += [f"  {command}"] if command else []
    return "\n".join(lines)


def fill(text: str, width: int) -> str:
    """Breaks a text into lines, in Chinese between any two characters.

    >>> print(fill("训练一个 CNN。结束", 10))
    训练一个
    CNN。结束
    """
    if text.isascii():
        return textwrap.fill(text, width, break_on_hyphens=False)
    lines = [""]
    for piece in PIECES.findall(" ".join(text.split())):
        if width_of(lines[-1] + piece.rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return "\n".join(lines).rstrip()


def paint(text: str, colour: str, stream: Any = None) -> str:
    """The text in one of COLOURS, if a stream (stdout) shows colours."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


def has_colours(stream: Any) -> bool:
    """Whether a stream is a terminal with colours: no-color.org, force-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    old_console = WINDOWS and "WT_SESSION" not in os.environ
    return os.environ.get("TERM") != "dumb" and not old_console and stream.isatty()


def show(text: str, stream: Any = None, red: str = "error:") -> None:
    """Prints lines that fit into the terminal, an error's first word in red."""
    print(shown(text, stream, red), file=stream or sys.stdout, flush=True)


def shown(text: str, stream: Any = None, red: str = "error:") -> str:
    """A text as `show` prints it.

    Whatever names it contains, the terminal gets no other control character.
    """
    stream = stream or sys.stdout
    parts = OURS.split(text)  # Every second one is ours.
    parts[::2] = map(printable, parts[::2])
    text = "".join(parts)
    text = wrap(text, columns(stream))
    if text.startswith(f"{red} "):
        text = paint(red, "red", stream) + text.removeprefix(red)
    return text


def four_digits(value: float) -> str:
    """A loss with four digits, however large.

    >>> four_digits(0.0123), four_digits(288646502)
    ('0.0123', '2.886e+08')
    """
    return f"{value:.4f}" if not abs(value) >= 1e4 else f"{value:.3e}"


def width_of(text: str) -> int:
    r"""The number of columns that a text takes in a terminal.

    >>> width_of("bird"), width_of("鸟"), width_of("e\u0301")  # e and its accent
    (4, 2, 1)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    """One line of a table whose widths are known before its other lines.

    Each column has its character in align, "<" for left or ">" for right. A text that is wider than
    its column shifts what follows; fewer cells than columns leave the last ones empty.

    >>> line(["cnn", "0.99"], widths=[5, 6], align="<>")
    'cnn      0.99'
    """
    padded = []
    for cell, width, side in zip(cells, widths, align, strict=False):
        space = " " * (width - width_of(cell))
        padded.append(cell + space if side == "<" else space + cell)
    return "  ".join(padded).rstrip()


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    r"""The lines of a table, each column as wide as its widest text.

    >>> print("\n".join(table([["model", "loss"], ["cnn", "0.5"]], "<>")))
    model  loss
    cnn     0.5
    """
    columns = itertools.zip_longest(*rows, fillvalue="")
    widths = [max(map(width_of, column)) for column in columns]
    return [line(row, widths, align) for row in rows]
