"""Checks a sheet: numbers that a student has computed by hand, or formulas.

A sheet is a TOML file in which the student replaces each "" with a number, with rows of numbers, or
with a formula, which derive.py judges. It is read more leniently than TOML: 1/8 and "1.5" are
numbers, and (1, 2) is a row.
"""

import math
import re
from typing import Any

import numpy as np

from jaxnets.base.display import shortened
from jaxnets.base.errors import UserError, did_you_mean
from jaxnets.base.language import N_, Text, _
from jaxnets.course.exercises.answered import BLANK, RIGHT, WRONG, Answered
from jaxnets.course.exercises.catalogue import BETS, DERIVES, SHEETS, Derive, Question, Sheet
from jaxnets.course.exercises.derive import judged
from jaxnets.course.exercises.student import near

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Characters from a Chinese keyboard or a PDF, and the ones that a sheet uses for them.
FULL_WIDTH = str.maketrans("，（）［］【】＝．－−／＋“”＃", ',()[][]=.--/+""#')
MAX_DEPTH = 3  # Of brackets, and the sheet.
NO_NUMBER = N_("expected a number such as 1.5 or 1/8, or a row such as [1, 2], got {}")
ROUNDED = 0.005  # Two digits after the point.
MAX_TEXT = 30  # Characters of an answer in a message.


def check_sheet(source: str, path: str) -> tuple[Sheet | Derive, list[Answered]]:
    """A filled-in sheet's exercise with the numbers of its student, and each question's result.

    Raises:
      UserError: It is not a sheet.
    """
    filled = _entries(source, path)
    name = filled.get("exercise", "").strip("\"' ")
    if name in DERIVES:
        return DERIVES[name], judged(DERIVES[name], filled)
    sheets = SHEETS | BETS
    if name not in sheets:
        wanted = Text('expected a line such as exercise = "compute1"')
        hint = did_you_mean(name, [*sheets, *DERIVES], quoted=True)
        raise UserError('{}: {}, got "{}"{}', path, wanted, shortened(name, MAX_TEXT), hint)
    sheet = sheets[name]
    if student := filled.get("student", "").strip("\"' "):
        sheet = sheet.of(student)
    pairs = zip(sheet.questions, sheets[name].questions, strict=True)
    found = [
        _answered(sheet, one, filled.get(one.name, ""), common.answer) for one, common in pairs
    ]
    return sheet, found


def _entries(source: str, path: str) -> dict[str, str]:
    """The text after each =, without comments; rows may continue on the next lines."""
    found: dict[str, str] = {}
    name = ""
    for number, line in enumerate(source.translate(FULL_WIDTH).splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if entry := re.fullmatch(r"(\w+)\s*=(?!=)(.*)", text):
            name, found[entry[1]] = entry[1], entry[2].strip()
        elif text and (not name or _is_complete(found[name])):
            wanted = Text("expected NAME = ANSWER in line {}", number)
            raise UserError("{}: {}, got {}", path, wanted, shortened(text, MAX_TEXT))
        elif text:
            found[name] += f" {text}"
    return found


def _is_complete(value: str) -> bool:
    """Whether all brackets are closed."""
    return sum(map(value.count, "[(")) <= sum(map(value.count, "])"))


def _answered(sheet: Sheet, question: Question, text: str, common: Any) -> Answered:
    """Compares the text after a question's = with its answer; `common` is everybody's answer."""
    if text in ("", '""', "''"):
        return Answered(question.name, BLANK)
    try:
        given = _read_answer(text.strip("\"'"))
    except ValueError as error:
        return Answered(question.name, WRONG, str(error))
    wanted, got = _shape(question.answer), _shape(given)
    if wanted != got:
        note = _("expected {}, got {}", _count(wanted), _count(got))
        return Answered(question.name, WRONG, note)
    if near(given, question.answer):
        return Answered(question.name, RIGHT, _(question.then))
    if question.then:
        return Answered(question.name, WRONG, _(question.then))
    slips = (says for wrong, says in question.slips if near(given, wrong))
    if cause := next(slips, None):
        return Answered(question.name, WRONG, sheet.said(cause))
    if sheet.student and near(given, common):
        note = _("that is the answer to everybody's numbers; yours are in your file")
        return Answered(question.name, WRONG, note)
    return Answered(question.name, WRONG, _cause(np.array(given), np.array(question.answer)))


def _cause(given: np.ndarray, right: np.ndarray) -> str:
    """What a wrong answer looks like, whatever the question; "" if it looks like nothing known."""
    for wrong, says in (
        (-right, N_("the sign is wrong")),
        (2 * right, N_("there is one factor 2 too many")),
        (right / 2, N_("a factor 2 is missing")),
        (100 * right, N_("it is 100 times too large: is it in percent?")),
        (right.T, N_("rows and columns are exchanged")),
        (np.abs(right), N_("a minus sign is missing")),
    ):
        if near(given, wrong):
            return _(says)
    if near(np.sort(given, axis=None), np.sort(right, axis=None)):
        return _("the right numbers are in the wrong places")
    if (np.abs(given - right) <= ROUNDED + 1e-12).all():
        return _("rounded too far: give three digits after the point")
    pairs = list(zip(given.flat, right.flat, strict=True))
    wrong = sum(not near(*pair) for pair in pairs)
    return _("{} of {} numbers are wrong", wrong, len(pairs)) if wrong < len(pairs) else ""


def _read_answer(text: str) -> Any:
    """Reads a number or nested rows of numbers; a row may be in brackets of either kind.

    Raises:
      ValueError: It is neither.
    """
    rows: list[list[Any]] = [[]]  # The rows that are open, the outermost first.
    for part in re.findall(r"[\[\](),]|[^\[\](),]+", text):
        if part in "[(":
            rows.append([])
        elif part in "])":
            row = rows.pop()
            if not rows:
                raise ValueError(_("one bracket too many in {}", shortened(text, MAX_TEXT)))
            rows[-1].append(row)
        elif part != "," and part.strip():
            rows[-1].append(_read_number(part.strip("\"' ")))
        if len(rows) > MAX_DEPTH:
            raise ValueError(_("too many brackets in {}", shortened(text, MAX_TEXT)))
    if len(rows) > 1:
        raise ValueError(_("a bracket is not closed in {}", shortened(text, MAX_TEXT)))
    if len(rows[0]) != 1:
        raise ValueError(_(NO_NUMBER, shortened(text, MAX_TEXT)))
    return rows[0][0]


def _read_number(text: str) -> float:
    """Reads a number, or a fraction such as 1/8.

    Raises:
      ValueError: It is neither.
    """
    parts = [re.sub(r"^([+-])\s+", r"\1", part.strip()) for part in text.split("/")]
    if len(parts) > 2 or not all(map(NUMBER.fullmatch, parts)):
        raise ValueError(_(NO_NUMBER, shortened(text, MAX_TEXT)))
    above, *below = map(float, parts)
    if below == [0]:
        raise ValueError(_("{} divides by 0", shortened(text, MAX_TEXT)))
    if not all(map(math.isfinite, [above, *below])):
        raise ValueError(_("{} is too large", shortened(text, MAX_TEXT)))
    return above / below[0] if below else above


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of lists of numbers; None if they have no common shape."""
    if not isinstance(value, list):
        return ()
    if not value:
        return None
    shapes = {_shape(part) for part in value}
    (first,) = shapes if len(shapes) == 1 else (None,)
    return None if first is None else (len(value), *first)


def _count(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return _("no rows of equal length")
    if not shape:
        return _("a number")
    return _("{} numbers", *shape) if len(shape) == 1 else _("{} rows of {}", *shape)
