"""The language of the exercises: English, or Chinese by the locale or --language=zh.

exercises.zh.json has a Chinese text for each English one. A text that changes
needs a new one, which the tests demand; without it the English text is shown.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from jaxnets.errors import unknown
from jaxnets.language import LANGUAGES, of_locale

Say = Callable[[str], str]


def words_of(language: str | None, table: str) -> Say:
    """The function that says a text of a table in a language; None asks the locale."""
    language = language or of_locale()
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
