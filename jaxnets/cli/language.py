"""The language of --help and of the exercises: English, or Chinese by the locale or --language=zh.

help.zh.json and exercises.zh.json have a Chinese text for each English one. A text that changes
needs a new one, which the tests demand; without it the English text is shown.
"""

import json
import locale
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from jaxnets.display import width_of
from jaxnets.errors import unknown

Say = Callable[[str], str]
LANGUAGES = ("en", "zh")
# In this order, as gettext reads them.
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
# What may stand alone on a line: a word, or one Chinese character with the marks that follow it.
PIECES = re.compile(r"（*(?:[^\s\u2e80-\uffef]+|[\u2e80-\uffef])[，。；：、）]*|\s+")


def words_of(language: str | None = None, table: str = "help") -> Say:
    """The function that says a text of a table in a language; None asks the locale."""
    if language is None:
        names = [os.environ.get(name, "") for name in VARIABLES]
        name = next(filter(None, names), None) or locale.getlocale()[0] or ""
        chinese = name.lower().startswith(("zh", "chinese")) and _can_print("中文")
        language = "zh" if chinese else "en"
    if language not in LANGUAGES:
        raise unknown("language", language, LANGUAGES)
    return _chinese(table).__getitem__ if language == "zh" else str


class _Texts(dict):
    """Texts by their English, in which {} stands for anything; what has none stays English."""

    def __missing__(self, text: str) -> str:
        patterns = (english for english in self if "{}" in english)
        for english in sorted(patterns, key=len, reverse=True):  # The most special one first.
            pattern = re.escape(english).replace(r"\{\}", "(.+?)")
            if found := re.fullmatch(pattern, text):
                return self[english].format(*(self[part] for part in found.groups()))
        return text


def _chinese(table: str) -> _Texts:
    texts = json.loads(Path(__file__).with_name(f"{table}.zh.json").read_text("utf-8"))
    # The installed command has another name.
    renamed = {a.replace("python train.py", "jaxnets train"): b for a, b in texts.items()}
    renamed = {a: b.replace("python train.py", "jaxnets train") for a, b in renamed.items()}
    return _Texts(renamed | texts)


def _can_print(text: str) -> bool:
    """Whether stdout's encoding has the characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, AttributeError):
        return False
    return True


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
