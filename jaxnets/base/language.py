"""The language in which texts are shown: English, as in the code, or that of a .po file.

`_` translates a text, as in gettext. gettext itself reads only compiled files, which a clone lacks.
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
from contextvars import ContextVar
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
# In this order, as gettext reads them.
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)

_texts: ContextVar[Mapping[str, str] | None] = ContextVar("texts", default=None)


def _(text: str, *values: object) -> str:
    """A text in the language of `speaking`, or untranslated, with the values in its {}."""
    ours = (_texts.get() or {}).get(text, text)
    shown = (said(value) if isinstance(value, Text) else value for value in values)
    return ours.format(*shown) if values else ours


def N_(text: str) -> str:
    """Marks a text that `_` translates later."""
    return text


@contextlib.contextmanager
def speaking(language: str | None) -> Generator[None]:
    """Lets `_` translate texts to one of LANGUAGES within the block.

    None means that of the block around it or, if there is none, the locale's.
    """
    if language is None and _texts.get() is not None:
        yield
        return
    language = _of_locale() if language is None else language
    if language not in LANGUAGES:
        raise ValueError(f"expected one of {', '.join(LANGUAGES)} as language, got {language!r}")
    texts = {} if language == "en" else _read(Path(__file__).with_name("zh.po"))
    with speaking_texts(texts):
        yield


@contextlib.contextmanager
def speaking_texts(texts: Mapping[str, str]) -> Generator[None]:
    """Lets `_` translate within the block to what `texts_spoken` has given, in another process."""
    token = _texts.set(texts)
    try:
        yield
    finally:
        _texts.reset(token)


class Text:
    """A text with a {} for each of its values: English as str(), in any language by `said`.

    An error has one, as it may be raised in another thread or kept in a file before it is shown.
    """

    args: tuple[Any, ...]

    def __init__(self, text: str, *values: object):
        self.args = (text, *(one if isinstance(one, Text) else str(one) for one in values))

    def __str__(self) -> str:
        text, *values = self.args
        return text.format(*values) if values else text


def said(text: Text | str) -> str:
    """A Text in the language of `speaking`, its values that are Texts too; a string as it is."""
    return _(*text.args) if isinstance(text, Text) else text


def asked_for(arguments: Sequence[str]) -> str | None:
    """The value of the first --language= of a command line, whatever it is; None without one."""
    return next(
        (text.partition("=")[2] for text in arguments if text.startswith("--language=")), None
    )


def spoken() -> str:
    """The language to which `_` translates texts."""
    return "zh" if _texts.get() else "en"


def texts_spoken() -> Mapping[str, str]:
    """The texts to which `_` translates, by those of the code."""
    return _texts.get() or {}


def _of_locale() -> str:
    """The locale's language; English where stdout cannot show its characters."""
    names = [os.environ.get(name, "") for name in VARIABLES]
    name = next(filter(None, names), None) or locale.getlocale()[0] or ""
    chinese = name.lower().startswith(("zh", "chinese")) and _can_print("中文")
    return "zh" if chinese else "en"


@functools.cache
def _read(path: Path) -> dict[str, str]:
    """The texts of a .po file, except its header, whose text is empty."""
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
