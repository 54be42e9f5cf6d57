"""The answers of an experiment, by user: the server's log, or a CSV file from elsewhere."""

import contextlib
import csv
import dataclasses
import datetime
import hashlib
import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets.base.display import printable, short_path
from jaxnets.base.errors import UserError, first_line, not_installed
from jaxnets.server import is_url

ARMS = ("A", "B")
COLUMNS = {"arm": 1, "correct": 1, "user": 0, "time": 0, "model": 0}  # The least number of each.
MAX_LINE = 1 << 16  # Characters; a file may be untrusted.
MAX_MODELS = 1000  # Names of models and versions.
MAX_ANSWERS = 5_000_000
SQLITE = b"SQLite format 3\0"  # The first bytes of every such file.


class UserAnswer(NamedTuple):
    """One answer of a model, and whether the user called it right."""

    arm: str  # "A" or "B".
    correct: bool | None  # None where the user gave no feedback.
    user: str
    model: str  # The model and its version; "" where the log does not say.
    time: float = 0.0  # Answers with the same time keep their order.


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of an experiment, in the order of their first answers.

    Several answers of one user are alike, because the hand or the camera is the same: they are not
    independent trials. A user counts once, with the share of right answers.
    """

    shown: np.ndarray  # The answers of A and B, [N, 2] int32.
    judged: np.ndarray  # Those of them with feedback.
    right: np.ndarray  # Those that the user called right.
    models: dict[str, tuple[str, ...]]  # Each arm's models and versions, as far as the log says.

    @classmethod
    def of(cls, answers: Iterable[UserAnswer]) -> "Users":
        """Counts the answers of each user, with 19 bytes per answer while it reads.

        Users are distinguished by 64 bits of a hash: two of five million share them with a
        chance of 1e-6.
        """
        times, hashes = array("d"), bytearray()
        is_b, judged, right = bytearray(), bytearray(), bytearray()
        models: dict[str, set[str]] = {arm: set() for arm in ARMS}
        for answer in answers:
            times.append(answer.time)
            hashes += hashlib.blake2b(answer.user.encode(), digest_size=8).digest()
            is_b.append(answer.arm == "B")
            judged.append(answer.correct is not None)
            right.append(bool(answer.correct))
            models[answer.arm].add(answer.model)
            if len(models[answer.arm]) > MAX_MODELS:
                raise UserError(
                    "expected at most {} models and versions, found more", f"{MAX_MODELS:,}"
                )
        order = np.argsort(np.array(times), kind="stable")
        users = np.frombuffer(hashes, np.uint64)[order]
        _, first, rows = np.unique(users, return_index=True, return_inverse=True)
        place = np.empty(len(first), np.intp)
        place[np.argsort(first)] = np.arange(len(first))
        cells = 2 * place[rows] + np.frombuffer(is_b, np.uint8)[order]

        def count(flags: bytearray | None = None) -> np.ndarray:
            weights = np.frombuffer(flags, np.uint8)[order] if flags is not None else None
            return np.bincount(cells, weights, 2 * len(first)).astype(np.int32).reshape(-1, 2)

        names = {arm: tuple(sorted(models[arm] - {""})) for arm in ARMS}
        return cls(count(), count(judged), count(right), names)

    @property
    def counts_silence(self) -> bool:
        """Whether there are answers without feedback."""
        return bool((self.shown != self.judged).any())

    @property
    def shares(self) -> np.ndarray:
        """The share of right answers of A and B, [N, 2]; NaN where there are none."""
        return self.right / np.where(self.judged, self.judged, math.nan)


def read_users(path: str) -> Users:
    """Reads the answers of a log, by user: the server's, or CSV as in `read_csv`.

    Args:
      path: A file of SQLite or CSV, or a URL of PostgreSQL.

    Raises:
      UserError: There is no such log, or it is damaged, of another form, or empty.
    """
    answers = _answers(path) if is_url(path) else _answers_in_file(path)
    users = Users.of(itertools.islice(answers, MAX_ANSWERS + 1))
    name = log_name(path)
    if not users.judged.any():
        raise UserError("{}: expected answers of users, found none", name)
    if users.shown.sum() > MAX_ANSWERS:
        raise UserError("{}: expected at most {} answers, found more", name, f"{MAX_ANSWERS:,}")
    return users


def log_name(log: str) -> str:
    """A log's path, or its URL without a password."""
    return _feedback().without_password(log) if is_url(log) else short_path(log)


def _feedback() -> Any:
    """The server's log, which needs a package that CSV does not."""
    try:
        from jaxnets.server import feedback
    except ModuleNotFoundError:
        raise not_installed("sqlalchemy", "serve") from None
    return feedback


def _answers(log: str | Path) -> Iterator[UserAnswer]:
    """The answers of the server's own log."""
    for row in _feedback().rows(log):
        yield UserAnswer(row.arm, row.correct, row.user, f"{row.model} version {row.version}")


def _answers_in_file(path: str) -> Iterator[UserAnswer]:
    """The answers of a file, whose first bytes tell what it is."""
    try:
        file = Path(path).expanduser()
        if file.exists() and not file.is_file():  # A device or a pipe may never end.
            raise UserError("{}: expected a log or a run folder, found neither", path)
        with file.open("rb") as stream:
            is_database = stream.read(len(SQLITE)) == SQLITE
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: ~ of no user.
        raise UserError("{}: expected a log or a run folder: {}", path, first_line(error)) from None
    return _answers(file) if is_database else read_csv(file)


def read_csv(path: str | Path) -> Iterator[UserAnswer]:
    """Reads a CSV file whose first line names the columns: arm, correct and perhaps user, time.

    arm is A or B. correct is 1 or 0, or empty where the user gave no feedback. Rows with the same
    user belong together; a row without one counts as a separate user. Times are seconds or ISO
    8601. A column model names the model; others are ignored.

    Raises:
      UserError: The file cannot be read, or is not of this form.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(iter(lambda: stream.readline(MAX_LINE), ""), strict=True)
            header = [cell.strip().lower() for cell in next(rows, [])]
            for column, least in COLUMNS.items():
                if not least <= header.count(column) <= 1:
                    raise UserError(
                        "{}: expected one column {} in the first line "
                        "(arm,correct,user,time), found {}",
                        path,
                        column,
                        repr(",".join(header)[:80]),
                    )
            places = {name: place for place, name in enumerate(header)}
            for row in rows:
                if row:  # It may be an empty line.
                    try:
                        yield _answer(row, places, len(header), rows.line_num)
                    except ValueError as error:
                        raise UserError("{}, line {}: {}", path, rows.line_num, error) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError("{}: expected CSV in UTF-8: {}", path, first_line(error)) from None
    except OSError as error:
        raise UserError("{}: {}", path, first_line(error)) from None


def _answer(row: Sequence[str], places: dict[str, int], count: int, line: int) -> UserAnswer:
    """A row's answer; ValueError if it is not one."""
    if len(row) != count:
        raise ValueError(f"expected {count} cells, found {len(row)}")

    def cell(name: str, default: str = "") -> str:
        return row[places[name]].strip() if name in places else default

    if (arm := cell("arm").upper()) not in ARMS:
        raise ValueError(f"arm: expected A or B, found {_quoted(cell('arm'))}")
    if (correct := cell("correct")) not in ("0", "1", ""):
        raise ValueError(f"correct: expected 1 or 0, found {_quoted(correct)}")
    is_right = correct == "1" if correct else None
    time = _seconds(cell("time", "0"))
    user = cell("user") or f"\n{line}"  # Unlike any name, whose spaces are cut.
    return UserAnswer(arm, is_right, user, cell("model"), time)


def _seconds(text: str) -> float:
    """A time in seconds; a date without a time zone is taken as UTC."""
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    with contextlib.suppress(ValueError, OverflowError):
        date = datetime.datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
    raise ValueError(
        f"time: expected seconds or a date as 2026-11-26T10:15:00, found {_quoted(text)}"
    )


def _quoted(text: str) -> str:
    return f'"{printable(text[:40])}"'
