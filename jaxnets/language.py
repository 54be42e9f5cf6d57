"""The language in which texts are shown: English as the code has them, or that of a .po file.

`_` says a text, as in gettext, which itself reads compiled files alone: a clone would have none.
`python docs/_ext/chinese.py` brings zh.po up to date with the code.
"""

import contextlib
import functools
import json
import locale
import os
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar, Token
from pathlib import Path

LANGUAGES = ("en", "zh")
# In this order, as gettext reads them.
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
VALUE = re.compile(r"\{\d*\}")  # What stands for a value in a text.
FEWEST = 5  # Letters of a text that tell a message from others; a word alone may be a flag's.
ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)

_texts: ContextVar[Mapping[str, str] | None] = ContextVar("texts", default=None)


def _(text: str, *values: object) -> str:
    """A text in the language of `speaking`, with the values in its {}; else as it is."""
    said = (_texts.get() or {}).get(text, text)
    return said.format(*values) if values else said


def N_(text: str) -> str:
    """Marks a text that `_` says later."""
    return text


@contextlib.contextmanager
def speaking(language: str | None) -> Generator[None]:
    """Lets `_` say texts in one of LANGUAGES within the block.

    None is that of the block around it or, if there is none, the locale's.
    """
    if language is None and _texts.get() is not None:
        yield
        return
    language = _of_locale() if language is None else language
    if language not in LANGUAGES:
        raise ValueError(f"expected one of {', '.join(LANGUAGES)} as language, got {language!r}")
    token = speak({} if language == "en" else _read(Path(__file__).with_name("zh.po")))
    try:
        yield
    finally:
        _texts.reset(token)


def speak(texts: Mapping[str, str] | None) -> Token[Mapping[str, str] | None]:
    """Lets `_` say texts as given here, each after the English one; None is English."""
    return _texts.set(texts)


def said(message: str) -> str:
    """A message that the code made in English, in the language of `speaking`.

    An error stays English until it is shown, as it may be raised in a thread, or kept in a file.
    The catalogue has its text with {} for each value. The longest text that fits counts; then the
    same for the values, for each clause of what fits none, and for what follows a name and a colon.
    """
    texts = _texts.get()
    if not texts:
        return message
    return texts.get(message) or _fitted(message, _patterns(tuple(texts.items())))


def _fitted(message: str, patterns: "Patterns") -> str:
    for pattern, text in patterns:
        if found := pattern.fullmatch(message):
            return text.format(*(_fitted(value, patterns) for value in found.groups()))
    for mark, ours in (("; ", "；"), (": ", "：")):
        pair = message.split(mark, 1)
        if len(pair) == 2:
            parts = [_fitted(part, patterns) for part in pair]
            if mark == "; " or parts != pair:
                return ours.join(parts)
    return message


Patterns = list[tuple[re.Pattern[str], str]]


@functools.cache
def _patterns(texts: tuple[tuple[str, str], ...]) -> Patterns:
    """The texts as patterns, those with the most letters of their own first."""
    found = []
    for text, ours in texts:
        parts = VALUE.split(text)
        letters = sum(map(str.isalpha, "".join(parts)))
        if letters >= FEWEST and " " in text:
            pattern = "(.*?)".join(map(re.escape, parts))
            found.append((letters, re.compile(pattern, re.DOTALL), ours))
    return [(pattern, ours) for _letters, pattern, ours in sorted(found, key=lambda one: -one[0])]


def asked_for(arguments: Sequence[str]) -> str | None:
    """The value of the first --language= of a command line, whatever it is; None without one."""
    return next(
        (text.partition("=")[2] for text in arguments if text.startswith("--language=")), None
    )


def spoken() -> str:
    """The language in which `_` says texts."""
    return "zh" if _texts.get() else "en"


def _of_locale() -> str:
    """The locale's language; English where stdout cannot show its characters."""
    names = [os.environ.get(name, "") for name in VARIABLES]
    name = next(filter(None, names), None) or locale.getlocale()[0] or ""
    chinese = name.lower().startswith(("zh", "chinese")) and _can_print("中文")
    return "zh" if chinese else "en"


def _read(path: Path) -> dict[str, str]:
    """The texts of a .po file, but for its head, whose text is empty."""
    pairs = (map(_joined, pair) for pair in ENTRY.findall(path.read_text("utf-8")))
    return {text: said for text, said in pairs if text}


def _joined(lines: str) -> str:
    """The text in one or more lines, each in quotes as in JSON."""
    return json.loads(lines.rstrip().replace('"\n"', ""))


def _can_print(text: str) -> bool:
    """Whether stdout's encoding has the characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, AttributeError):
        return False
    return True
