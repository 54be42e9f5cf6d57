"""Exercises to compute by hand: sheets of questions whose answers are numbers.

A sheet is a TOML file in which the student replaces each "" by a number or by rows of numbers. It
is read more kindly than TOML is: 1/8 is a number, "1.5" too, and (1, 2) a row.
"""

import math
import re
import textwrap
from typing import Any, NamedTuple

from jaxnets.errors import UserError

TOLERANCE = 1e-3  # Of a number's size, or of 1 if that is larger: three digits are enough.
EXAMPLE = "a number as 1.5 or 1/8, or rows as [[1, 2], [3, 4]]"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Signs of a Chinese keyboard or a PDF, and the sheet's own signs for them.
FULL_WIDTH = str.maketrans("，（）［］【】＝．－−／＋“”＃", ',()[][]=.--/+""#')
MAX_DEPTH = 3  # Of brackets, and the sheet.
MAX_TEXT = 30  # Characters of an answer in a message.


class Question(NamedTuple):
    """One line to fill in."""

    name: str
    asks: str
    answer: Any  # A number, or lists of numbers.
    hint: str


class Sheet(NamedTuple):
    """Questions about one situation."""

    title: str
    level: int
    minutes: int
    given: str
    questions: list[Question]


SHEETS = {
    "compute1": Sheet(
        "one neuron",
        1,
        10,
        "x = (1, 2), w = (3, -1), b = 0.5. The neuron computes z = x_1 w_1 + x_2 w_2 + b and "
        "y = max(z, 0). The loss is 1/2 (y - 1)^2. dv is the derivative of the loss with respect "
        "to v.",
        [
            Question("z", "forward: z", 1.5, "Multiply, add, and do not forget b."),
            Question("y", "forward: y", 1.5, "z is positive."),
            Question("loss", "forward: the loss", 0.125, "Half of the square of y - 1."),
            Question("dy", "backward: dy", 0.5, "The 2 of the square meets the 1/2."),
            Question("dz", "backward: dz", 0.5, "The slope of max(z, 0) at this z is 1."),
            Question("dw", "backward: dw, two numbers", [0.5, 1.0], "z grows by x_1 with w_1."),
            Question("db", "backward: db", 0.5, "z grows by 1 with b."),
            Question("dx", "backward: dx, two numbers", [1.5, -0.5], "z grows by w_1 with x_1."),
            Question("w_new", "w after a step of rate 0.1", [2.95, -1.1], "w - 0.1 dw."),
        ],
    ),
    "compute2": Sheet(
        "a dense layer on two examples",
        1,
        15,
        "X = [[1, 2], [3, 4]], one example a row. W = [[1, -1], [0, 2]], b = (1, 0), "
        "Z = X W + b. From above comes dZ = [[1, 0], [-1, 2]].",
        [
            Question("Z", "forward: Z, two rows", [[2, 3], [4, 5]], "Row 1: 1 W_1 + 2 W_2 + b."),
            Question("dW", "dW, two rows", [[-2, 6], [-2, 8]], "dW = X^T dZ."),
            Question("db", "db, two numbers", [0, 2], "Both examples share b: add their rows."),
            Question("dX", "dX, two rows", [[1, 0], [-3, 4]], "dX = dZ W^T."),
        ],
    ),
    "compute3": Sheet(
        "softmax and cross-entropy",
        2,
        15,
        "The scores of three classes are x = (0, ln 2, ln 5). p = softmax(x). The second class is "
        "right: y = (0, 1, 0). The loss is -ln p_2.",
        [
            Question("p", "p, three numbers", [0.125, 0.25, 0.625], "e^x = (1, 2, 5); their sum?"),
            Question("loss", "the loss", 1.386294, "-ln(1/4) = ln 4."),
            Question("dp", "dp, three numbers", [0, -4, 0], "Only p_2 stands in the loss."),
            Question("jacobian", "the derivative of p_2 by x_1", -0.03125, "-p_1 p_2."),
            Question("dx", "dx, three numbers", [0.125, -0.75, 0.625], "p - y."),
        ],
    ),
    "compute4": Sheet(
        "a network of two layers",
        2,
        20,
        "x = (1, 2). Z1 = x W1 with W1 = [[1, 0], [1, -1]]. H = max(Z1, 0). Z2 = H W2 with "
        "W2 = [[1, 2], [3, -1]]. The loss is 1/2 times the sum of (Z2 - y)^2 with y = (2, 8).",
        [
            Question("Z1", "forward: Z1, two numbers", [3, -2], "Row 1 plus 2 times row 2."),
            Question("H", "forward: H, two numbers", [3, 0], "No number below 0 is left."),
            Question("Z2", "forward: Z2, two numbers", [3, 6], "3 times row 1 of W2."),
            Question("loss", "forward: the loss", 2.5, "(1 + 4) / 2."),
            Question("dZ2", "backward: dZ2", [1, -2], "Z2 - y."),
            Question("dW2", "backward: dW2, two rows", [[3, -6], [0, 0]], "Row i is H_i dZ2."),
            Question("dH", "backward: dH", [-3, 5], "dZ2 W2^T."),
            Question("dZ1", "backward: dZ1", [-3, 0], "Nothing passes where Z1 was negative."),
            Question("dW1", "backward: dW1, two rows", [[-3, 0], [-6, 0]], "Row i is x_i dZ1."),
        ],
    ),
    "compute5": Sheet(
        "a convolution in one dimension",
        2,
        20,
        "x = (1, 2, 0, 3), the kernel is w = (2, -1), stride 1, no padding: "
        "z_i = x_i w_1 + x_(i+1) w_2. From above comes dz = (1, -1, 2).",
        [
            Question("z", "forward: z, three numbers", [0, 4, -3], "The kernel is not flipped."),
            Question("dw", "dw, two numbers", [-1, 8], "dw_1 = sum of x_i dz_i."),
            Question("dx", "dx, four numbers", [2, -3, 5, -2], "x_2: z_1 by w_2, z_2 by w_1."),
            Question("z_stride_2", "z with stride 2, two numbers", [0, -3], "Windows 1 and 3."),
        ],
    ),
    "compute6": Sheet(
        "kinks and ties",
        2,
        10,
        "In this package the slope of max(x, 0) at 0 is 0, and of equal elements the first wins a "
        "max pool.",
        [
            Question(
                "relu", "dx of a ReLU for x = (-1, 0, 2), dy = (5, 5, 5)", [0, 0, 5], "Slope at 0?"
            ),
            Question(
                "tie",
                "dx of a 2x2 max pool for x = [[1, 3], [3, 2]], dy = 1: two rows",
                [[0, 1], [0, 0]],
                "Read row by row: which 3 is the first?",
            ),
            Question(
                "overlap",
                "dx of a max pool, window 2, stride 1, for x = (1, 4, 2), dy = (5, -2)",
                [0, 3, 0],
                "The 4 has won both windows; the chain rule adds.",
            ),
            Question(
                "dropout",
                "dx of dropout for m = (1, 0, 1), rate 0.5, dy = (1, 1, 1)",
                [2, 0, 2],
                "y = m x / (1 - rate).",
            ),
        ],
    ),
    "compute7": Sheet(
        "sum against mean",
        1,
        10,
        "Three examples have the losses L_1, L_2, L_3, whose derivatives by the weight w are "
        "2, 4 and 6. w = 1, the learning rate is 0.1.",
        [
            Question("mean", "the derivative of the mean of the losses", 4, "Add, divide by 3."),
            Question("sum", "the derivative of their sum", 12, "Add."),
            Question("w_mean", "w after a step down the mean", 0.6, "1 - 0.1 times 4."),
            Question("w_sum", "w after a step down the sum", -0.2, "1 - 0.1 times 12."),
            Question(
                "rate",
                "the rate with which the sum's step is the mean's",
                0.0333333,
                "A third of 0.1.",
            ),
        ],
    ),
    "compute8": Sheet(
        "batch normalisation of one channel",
        2,
        20,
        "A batch of four examples, one channel: x = (1, 7, 9, 15), gamma = 5, beta = 1. "
        "y = gamma x_hat + beta with x_hat = (x - mean) / sqrt(var), so epsilon is 0. From above "
        "comes dy = (1, 0, 2, 1).",
        [
            Question("mean", "forward: the mean of x", 8, "Add, divide by 4."),
            Question("var", "forward: the variance of x", 25, "The mean of (x - 8)^2."),
            Question(
                "x_hat", "forward: x_hat, four numbers", [-1.4, -0.2, 0.2, 1.4], "(x - 8) / 5."
            ),
            Question("y", "forward: y, four numbers", [-6, 0, 2, 8], "5 x_hat + 1."),
            Question("dbeta", "backward: dbeta", 4, "beta is added to every y."),
            Question("dgamma", "backward: dgamma", 0.4, "The sum of dy_i x_hat_i."),
            Question(
                "fixed",
                "dx if mean and var were constants, four numbers",
                [1, 0, 2, 1],
                "gamma / sqrt(var) times dy.",
            ),
            Question(
                "dx",
                "backward: dx, four numbers",
                [0.14, -0.98, 0.98, -0.14],
                "From dy subtract (dbeta + x_hat dgamma) / 4, before the factor.",
            ),
            Question(
                "shift", "the derivative of the loss by c if x becomes x + c", 0, "Add the dx."
            ),
            Question(
                "running",
                "the running mean after this batch; it was 10, and keeps 0.9 of itself",
                9.8,
                "0.9 times 10 plus 0.1 times 8.",
            ),
        ],
    ),
}


class Answered(NamedTuple):
    """The result of one question."""

    name: str
    verdict: str  # "right", "wrong" or "blank".
    note: str = ""


def sheet_text(name: str, sheet: Sheet, file: str) -> str:
    """The file of a sheet, with blanks."""
    lines = [
        f"# Exercise {name}: {sheet.title}. Level {sheet.level}, about {sheet.minutes} minutes."
    ]
    lines += ["#", *textwrap.wrap(sheet.given, 88, initial_indent="# ", subsequent_indent="# ")]
    about = f'Replace each "" by {EXAMPLE}. Three digits are enough. Then: '
    lines += ["#", *textwrap.wrap(about, 88, initial_indent="# ", subsequent_indent="# ")]
    lines += ["#", f"#     jaxnets exercise check {file}", "", f'exercise = "{name}"', ""]
    for question in sheet.questions:
        lines += [f"# {question.asks}", f'{question.name} = ""', ""]
    return "\n".join(lines[:-1]) + "\n"


def check_sheet(source: str, path: str) -> tuple[str, list[Answered]]:
    """The name of a filled-in sheet's exercise, and the result of each question.

    Raises:
      UserError: It is no sheet.
    """
    filled = _entries(source, path)
    name = filled.get("exercise", "").strip("\"' ")
    if name not in SHEETS:
        known = ", ".join(SHEETS)
        raise UserError(f'{path}: expected a line such as exercise = "compute1" ({known})')
    questions = SHEETS[name].questions
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
        return Answered(question.name, "blank")
    try:
        given = _value(text.strip("\"'"))
    except ValueError as error:
        return Answered(question.name, "wrong", str(error))
    wanted, got = _shape(question.answer), _shape(given)
    if wanted != got:
        return Answered(question.name, "wrong", f"expected {_count(wanted)}, got {_count(got)}")
    pairs = zip(_flat(given), _flat(question.answer), strict=True)
    right = all(abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in pairs)
    return Answered(question.name, "right" if right else "wrong")


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
                raise ValueError(f"one bracket too many in {_short(text)}")
            rows[-1].append(row)
        elif part != "," and part.strip():
            rows[-1].append(_number(part.strip("\"' ")))
        if len(rows) > MAX_DEPTH:
            raise ValueError(f"too many brackets in {_short(text)}")
    if len(rows) > 1:
        raise ValueError(f"a bracket is not closed in {_short(text)}")
    if len(rows[0]) != 1:
        raise ValueError(f"expected a number as 1.5, or a row as [1, 2], got {_short(text)}")
    return rows[0][0]


def _number(text: str) -> float:
    """Reads a number, or a fraction as 1/8.

    Raises:
      ValueError: It is neither.
    """
    parts = [re.sub(r"^([+-])\s+", r"\1", part.strip()) for part in text.split("/")]
    if len(parts) > 2 or not all(map(NUMBER.fullmatch, parts)):
        raise ValueError(f"expected a number as 1.5 or 1/8, got {_short(text)}")
    above, *below = map(float, parts)
    if below == [0]:
        raise ValueError(f"{_short(text)} divides by 0")
    if not all(map(math.isfinite, [above, *below])):
        raise ValueError(f"{_short(text)} is too large")
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
        return "no rows of numbers of one length"
    if not shape:
        return "a number"
    rows = " rows of ".join(map(str, shape))
    return rows if len(shape) > 1 else f"{rows} numbers"


def _flat(value: Any) -> list[float]:
    return [x for part in value for x in _flat(part)] if isinstance(value, list) else [float(value)]


def hint_for(name: str, question: str) -> str:
    """The hint for a question of a sheet."""
    return next(found.hint for found in SHEETS[name].questions if found.name == question)
