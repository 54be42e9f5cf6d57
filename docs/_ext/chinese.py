"""Brings zh.po up to date: `python docs/_ext/chinese.py`; then translate what is empty."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

import train
from jaxnets.cli.commands import COMMANDS
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, options_of
from jaxnets.course.exercises.catalogue import (
    BETS,
    BLANKS,
    BUGS,
    DERIVES,
    EXERCISES,
    LOOPS,
    PROSE,
    SHEETS,
    TASKS,
    WEEKS,
)

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "jaxnets/base/zh.po"
HEADER = """\
# The Chinese texts of jaxnets, each after the English one that the code has.
msgid ""
msgstr ""
"Language: zh\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""


OF_TEMPLATES = {"trimmed": "true", "newstyle_gettext": "true"}  # As jaxnets/drawing/templates.py.
# What a message's text and its values are given to. The second argument of _refused is the text.
SAYING = ("Text", "UserError", "RunFailedError", "NonFiniteLossError", "StoppedError", "report")
SAYING += ("BadPictureError",)
VALUES = re.compile(r"(\{\d*\})*")


def texts() -> Iterator[tuple[str, str]]:
    """The files, and every text in them that may be shown in Chinese."""
    yield from _given_to({"_": None, "N_": None})
    for path in sorted((ROOT / "jaxnets").rglob("templates/**/*.*")):
        for _line, text, *_rest in extract_from_file("jinja2", path, options=OF_TEMPLATES):
            yield str(path.relative_to(ROOT)), str(text)
    for path in sorted((ROOT / "jaxnets").rglob("assets/*.json")):  # Of the pages.
        for text in json.loads(path.read_text("utf-8")).values():
            yield str(path.relative_to(ROOT)), text
    yield from _given_to(dict.fromkeys(SAYING) | {"_refused": (2,)})
    yield from (("train.py", part) for part in str(train.__doc__).strip().split("\n\n"))
    kinds: list[tuple[str, type[Options]]] = [
        (kind.__module__, kind) for kind in (Config, ConfigFile)
    ]
    for command in COMMANDS.values():
        module = command.function.__module__
        yield _file_of(module), command.about
        kinds.append((module, command.kinds[0]))
    for module, kind in kinds:
        file = _file_of(module)
        for field in options_of(kind):
            yield from ((file, text) for key in ("help", "unset") if (text := field.metadata[key]))
    yield from (("jaxnets/course/exercises", text) for text in of_exercises())


def _file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _given_to(functions: dict[str, tuple[int, ...] | None]) -> Iterator[tuple[str, str]]:
    """The files of the package, and the texts that they give to some functions.

    Not those in f-strings, which Babel reads on Python 3.12 and later alone.
    """
    for path in sorted((ROOT / "jaxnets").rglob("*.py")):
        with contextlib.redirect_stderr(io.StringIO()):  # It notes f-strings among the values.
            found = list(extract_from_file("python", path, keywords=functions))
        for _line, text, *_rest in found:
            if not VALUES.fullmatch(str(text)):  # Values alone are the same in each language.
                yield str(path.relative_to(ROOT)), str(text)


def of_exercises() -> Iterator[str]:
    """The texts of the exercises' data; of the code its docstrings and what reads as a sentence."""
    yield from dict.fromkeys(exercise.about for exercise in EXERCISES.values())
    yield from dict.fromkeys(exercise.idea for exercise in EXERCISES.values())
    yield from WEEKS
    for sheet in [*SHEETS.values(), *BETS.values()]:
        yield sheet.given
        for asked in sheet.questions:
            yield from filter(None, (asked.asks, asked.hint, asked.then))
            yield from (says for _wrong, says in asked.slips)
    for derive in DERIVES.values():
        yield from (derive.given, *derive.asked.values())
    for blank in BLANKS.values():
        yield from (blank.forward, blank.arguments)
    for task in TASKS.values():
        yield from filter(None, (task.formula, task.arguments))
        yield from (cause.says for cause in task.causes)
        yield from task.hints.values()
    for bug in [*BUGS.values(), *LOOPS.values()]:
        yield from (bug.question, bug.hint)
    yield from (bug.says for bug in BUGS.values())
    for code in [
        *(one.code for one in [*BLANKS.values(), *TASKS.values()]),
        *(b.code + b.forward for b in BUGS.values()),
    ]:
        yield from (text for text in PROSE.findall(code) if re.search("[A-Za-z]{2} [a-z]{2}", text))


def renewed() -> str:
    """The catalogue with the texts of today; one that is new has no Chinese yet."""
    with CATALOGUE.open("rb") as file:
        catalogue = read_po(file, locale="zh")
    today = Catalog()
    for place, text in texts():
        today.add(text, locations=[(place, 0)])
    catalogue.update(today, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    written = io.BytesIO()
    write_po(written, catalogue, width=100, include_lineno=False, omit_header=True)
    return HEADER + written.getvalue().decode()


if __name__ == "__main__":
    CATALOGUE.write_text(renewed(), "utf-8")
