"""Checks the numbers that a student has computed by hand.

A sheet is a TOML file in which the student replaces each "" by a number or by rows of numbers. It
is read more kindly than TOML is: 1/8 is a number, "1.5" too, and (1, 2) a row.
"""

import math
import re
from typing import Any, NamedTuple

from jaxnets.course.exercises.catalogue import BETS, SHEETS, Question
from jaxnets.errors import UserError
from jaxnets.language import N_, _

TOLERANCE = 1e-3  # Of a number's size, or of 1 if that is larger: three digits are enough.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Signs of a Chinese keyboard or a PDF, and the sheet's own signs for them.
FULL_WIDTH = str.maketrans("，（）［］【】＝．－−／＋“”＃", ',()[][]=.--/+""#')
MAX_DEPTH = 3  # Of brackets, and the sheet.
RIGHT, WRONG, BLANK = N_("right"), N_("wrong"), N_("blank")
MAX_TEXT = 30  # Characters of an answer in a message.


class Answered(NamedTuple):
    """The result of one question."""

    name: str
    verdict: str  # RIGHT, WRONG or BLANK.
    note: str = ""


def check_sheet(source: str, path: str) -> tuple[str, list[Answered]]:
    """The name of a filled-in sheet's exercise, and the result of each question.

    Raises:
      UserError: It is no sheet.
    """
    filled = _entries(source, path)
    name = filled.get("exercise", "").strip("\"' ")
    sheets = SHEETS | BETS
    if name not in sheets:
        known = ", ".join(sheets)
        raise UserError(f'{path}: expected a line such as exercise = "compute1" ({known})')
    questions = sheets[name].questions
    return name, [_answered(question, filled.get(question.name, "")) for question in questions]


def _entries(source: str, path: str) -> dict[str, str]:
    """The text behind each =, without comments; rows may go on in the next lines."""
    found: dict[str, str] = {}
    name = ""
    for number, line in enumerate(source.translate(FULL_WIDTH).splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if entry := re.fullmatch(r"(\w+)\s*=(?!=)(.*)", text):
            name, found[entry[1]] = entry[1], entry[2].strip()
        elif text and (not name or _is_complete(found[name])):
            wanted = f"expected NAME = NUMBER in line {number}"
            raise UserError(f"{path}: {wanted}, got {_short(text)}")
        elif text:
            found[name] += f" {text}"
    return found


def _is_complete(value: str) -> bool:
    """Whether all brackets are closed."""
    return sum(map(value.count, "[(")) <= sum(map(value.count, "])"))


def _answered(question: Question, text: str) -> Answered:
    """Compares the text behind a question's = with its answer."""
    if text in ("", '""', "''"):
        return Answered(question.name, BLANK)
    try:
        given = _value(text.strip("\"'"))
    except ValueError as error:
        return Answered(question.name, WRONG, str(error))
    wanted, got = _shape(question.answer), _shape(given)
    if wanted != got:
        note = _("expected {}, got {}", _count(wanted), _count(got))
        return Answered(question.name, WRONG, note)
    if _is_near(given, question.answer):
        return Answered(question.name, RIGHT, _(question.then))
    slips = (says for slip, says in question.slips.items() if _is_near(given, _value(slip)))
    return Answered(question.name, WRONG, _(question.then or next(slips, "")))


def _is_near(given: Any, wanted: Any) -> bool:
    """Whether two answers of one shape are the same number by number, up to rounding."""
    pairs = zip(_flat(given), _flat(wanted), strict=True)
    return all(abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in pairs)


def _value(text: str) -> Any:
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
                raise ValueError(_("one bracket too many in {}", _short(text)))
            rows[-1].append(row)
        elif part != "," and part.strip():
            rows[-1].append(_number(part.strip("\"' ")))
        if len(rows) > MAX_DEPTH:
            raise ValueError(_("too many brackets in {}", _short(text)))
    if len(rows) > 1:
        raise ValueError(_("a bracket is not closed in {}", _short(text)))
    if len(rows[0]) != 1:
        wanted = _("expected a number as 1.5, or a row as [1, 2], got {}", _short(text))
        raise ValueError(wanted)
    return rows[0][0]


def _number(text: str) -> float:
    """Reads a number, or a fraction as 1/8.

    Raises:
      ValueError: It is neither.
    """
    parts = [re.sub(r"^([+-])\s+", r"\1", part.strip()) for part in text.split("/")]
    if len(parts) > 2 or not all(map(NUMBER.fullmatch, parts)):
        raise ValueError(_("expected a number as 1.5 or 1/8, got {}", _short(text)))
    above, *below = map(float, parts)
    if below == [0]:
        raise ValueError(_("{} divides by 0", _short(text)))
    if not all(map(math.isfinite, [above, *below])):
        raise ValueError(_("{} is too large", _short(text)))
    return above / below[0] if below else above


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of lists of numbers; None if they are none."""
    if not isinstance(value, list):
        return ()
    if not value:
        return None
    shapes = {_shape(part) for part in value}
    (first,) = shapes if len(shapes) == 1 else (None,)
    return None if first is None else (len(value), *first)


def _count(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return _("no rows of numbers of one length")
    if not shape:
        return _("a number")
    return _("{} numbers", *shape) if len(shape) == 1 else _("{} rows of {}", *shape)


def _flat(value: Any) -> list[float]:
    return [x for part in value for x in _flat(part)] if isinstance(value, list) else [float(value)]
