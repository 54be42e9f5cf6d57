"""Brings jaxnets/zh.po up to date: `python docs/_ext/chinese.py`; then translate what is empty."""

import ast
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
from jaxnets.config.options import options_of
from jaxnets.course.exercises.catalogue import (
    BETS,
    BLANKS,
    BUGS,
    COURSE,
    EXERCISES,
    IDEAS,
    LOOPS,
    PROSE,
    SHEETS,
    TASKS,
)
from jaxnets.language import FEWEST

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "jaxnets" / "zh.po"
HEADER = """\
# The Chinese texts of jaxnets, each after the English one that the code has.
msgid ""
msgstr ""
"Language: zh\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""


# Which argument is the message, and what stands before it.
SAYING = ("UserError", "RunFailedError", "NonFiniteLossError", "BadPictureError", "report")
RAISED = {**dict.fromkeys(SAYING, (0, "")), "_refused": (1, "{}: ")}
# Names of variables for parts of a message, and of functions that yield whole ones.
PARTS = ("wanted", "hint", "what", "again", "numbers", "kept", "promise", "advice")
MISTAKES = "_mistakes"


def texts() -> Iterator[tuple[str, str]]:
    """The files, and every text in them that may be shown in Chinese."""
    # What `_` or N_ marks; not in an f-string, which Babel reads on Python 3.12 and later alone.
    for path in sorted((ROOT / "jaxnets").rglob("*.py")):
        if "from jaxnets.language import" in path.read_text("utf-8"):
            with contextlib.redirect_stderr(io.StringIO()):  # It notes f-strings among the values.
                found = list(extract_from_file("python", path))
            for _line, text, *_rest in found:
                yield str(path.relative_to(ROOT)), str(text)
    for path in sorted((ROOT / "jaxnets").rglob("assets/*.json")):  # Of the pages.
        for text in json.loads(path.read_text("utf-8")).values():
            yield str(path.relative_to(ROOT)), text
    for path in sorted((ROOT / "jaxnets").rglob("*.py")):
        for text in dict.fromkeys(messages(ast.parse(path.read_text("utf-8")))):
            yield str(path.relative_to(ROOT)), text
    yield from (("train.py", part) for part in str(train.__doc__).strip().split("\n\n"))
    commands = [kind for kind, *_others in COMMANDS.values()]
    for kind in [Config, ConfigFile, *commands]:
        file = kind.__module__.replace(".", "/") + ".py"
        if kind in commands:
            yield file, str(kind.__doc__)
        for field in options_of(kind):
            yield from ((file, text) for key in ("help", "unset") if (text := field.metadata[key]))
    yield from (("jaxnets/course/exercises", text) for text in of_exercises())


def messages(module: ast.Module) -> Iterator[str]:
    """The texts of a module's errors, which `language.said` says: {} stands for each value."""
    for node in ast.walk(module):
        found: list[str] = []
        if isinstance(node, ast.Call) and (name := getattr(node.func, "id", "")) in RAISED:
            place, before = RAISED[name]
            found = [before + text for text in either(node.args[place])]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in PARTS:
            found = [text.removeprefix("; ") for text in either(node.value)]
        elif isinstance(node, ast.FunctionDef) and node.name.startswith(MISTAKES):
            yields = [one.value for one in ast.walk(node) if isinstance(one, ast.Yield)]
            found = [text for value in yields if value for text in either(value)]
        elif isinstance(node, ast.JoinedStr) and (text := text_of(node)).startswith("; "):
            found = [text[2:]]  # A clause that follows a message.
        yield from (text for text in found if sum(map(str.isalpha, text)) >= FEWEST)


def either(node: ast.expr) -> list[str]:
    """The text of a string's expression, or its two."""
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [text_of(part) for part in parts]


def text_of(node: ast.expr) -> str:
    """The text of a string's expression, with one {} for values side by side."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = map(text_of, node.values)
    elif isinstance(node, ast.BinOp):
        parts = map(text_of, (node.left, node.right))
    else:
        return "{}"
    return re.sub(r"(\{\})+", "{}", "".join(parts))


def of_exercises() -> Iterator[str]:
    """The texts of the exercises' data; of the code its docstrings and what reads as a sentence."""
    yield from dict.fromkeys(exercise.about for exercise in EXERCISES.values())
    yield from [*IDEAS, *(step.idea for step in COURSE)]
    for sheet in [*SHEETS.values(), *BETS.values()]:
        yield sheet.given
        for asked in sheet.questions:
            yield from filter(None, (asked.asks, asked.hint, asked.then))
            yield from (says for _wrong, says in asked.slips)
    for blank in BLANKS.values():
        yield from (blank.forward, blank.arguments)
    for task in TASKS.values():
        yield from filter(None, (task.formula, task.arguments))
        yield from (cause.says for cause in task.causes)
    for bug in [*BUGS.values(), *LOOPS.values()]:
        yield from (bug.question, bug.hint)
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
