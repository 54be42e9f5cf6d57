"""The answers of an experiment: those of a CSV file, and what each user gave."""

import contextlib
import csv
import dataclasses
import datetime
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnets.display import printable
from jaxnets.errors import UserError, first_line

ARMS = ("A", "B")
COLUMNS = ("arm", "correct")  # user and time are optional, others are ignored.

MAX_LINE, MAX_ANSWERS = 1 << 16, 5_000_000  # Characters; a file may be anybody's.


class Answer(NamedTuple):
    """One answer of a model, and whether the user called it right."""

    arm: str  # "A" or "B".
    correct: bool
    user: str
    model: str  # The model and its version; "" where the log does not say.


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of an experiment, in the order of their first answers.

    Several answers of one user are alike, as the user's hand or camera is: they are no independent
    trials. A user counts once, with the share of right answers.
    """

    a: np.ndarray  # The share of right answers from model A, [N] float64; NaN where there are none.
    b: np.ndarray  # The same from model B.
    answers: int
    models: dict[str, tuple[str, ...]]  # Each arm's models and versions, as far as the log says.

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> "Users":
        """Counts the answers of each user."""
        rows: dict[str, int] = {}
        right: list[list[int]] = []
        total: list[list[int]] = []
        models: dict[str, set[str]] = {arm: set() for arm in ARMS}
        for answer in answers:
            row = rows.setdefault(answer.user, len(rows))
            if row == len(right):
                right.append([0, 0])
                total.append([0, 0])
            arm = ARMS.index(answer.arm)
            right[row][arm] += answer.correct
            total[row][arm] += 1
            models[answer.arm].add(answer.model)
        counts = np.array(total, np.float64).reshape(-1, 2)
        shares = np.array(right, np.float64).reshape(-1, 2) / np.where(counts, counts, math.nan)
        names = {arm: tuple(sorted(models[arm] - {""})) for arm in ARMS}
        return cls(shares[:, 0], shares[:, 1], int(counts.sum()), names)


def read_csv(path: str | Path) -> list[Answer]:
    """Reads a CSV file whose first line names the columns: arm, correct and perhaps user, time.

    arm is A or B, correct is 1 or 0. Rows of one user belong together; without that column each row
    is a user of its own. With times (seconds, or ISO 8601) the rows are sorted by them. A column
    model names the model; others are ignored.

    Raises:
      UserError: The file cannot be read, or is not of this form.
    """
    found: list[tuple[float, Answer]] = []
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(iter(lambda: stream.readline(MAX_LINE), ""), strict=True)
            header = [cell.strip().lower() for cell in next(rows, [])]
            for column in COLUMNS:
                if header.count(column) != 1:
                    raise UserError(
                        f"{path}: expected a column {column} in the first line (arm,correct,user,"
                        f"time), found {','.join(header)[:80]!r}"
                    )
            for row in rows:
                if not row:  # An empty line.
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise UserError(f"{where}: expected {len(header)} cells, found {len(row)}")
                cells = dict(zip(header, map(str.strip, row), strict=True))
                arm, correct = _arm(cells["arm"], where), _correct(cells["correct"], where)
                time = _seconds(cells["time"], where) if "time" in cells else 0.0
                user = cells.get("user", str(rows.line_num))
                if len(found) == MAX_ANSWERS:
                    raise UserError(f"{path}: expected at most {MAX_ANSWERS:,} answers, found more")
                found.append((time, Answer(arm, correct, user, cells.get("model", ""))))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected CSV in UTF-8: {first_line(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    found.sort(key=lambda pair: pair[0])  # Rows of the same time stay in their order.
    return [answer for _, answer in found]


def _arm(value: object, where: str) -> str:
    if (arm := str(value).upper()) in ARMS:
        return arm
    raise UserError(f"{where}: arm: expected A or B, found {_shown(value)}")


def _correct(value: object, where: str) -> bool:
    if (text := str(value)) in ("0", "1"):
        return text == "1"
    raise UserError(f"{where}: correct: expected 1 or 0, found {_shown(value)}")


def _seconds(text: str, where: str) -> float:
    """A time in seconds; a date without a time zone is taken as UTC."""
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    with contextlib.suppress(ValueError, OverflowError):
        date = datetime.datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
    raise UserError(
        f"{where}: time: expected seconds or a date as 2026-11-26T10:15:00, found {_shown(text)}"
    )


def _shown(value: object) -> str:
    return f'"{printable(str(value)[:40])}"'
