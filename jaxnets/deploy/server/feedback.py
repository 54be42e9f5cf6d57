"""The log of an A/B test: each user's model, its answers, and whether they were right.

It is a SQLite file with a write-ahead log: a reader never waits for the server, nor the server for
a reader, and what was committed survives `kill -9` and a power cut. Any tool reads it:

    sqlite3 LOG "select arm, count(*), avg(correct) from feedback group by arm"
"""

import contextlib
import itertools
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxnets.errors import UserError, first_line

# A user is the hash of a key, a request the name of one picture's answers: the arms' rows share it
# where both models answered. `id` grows in the order of arrival.
SCHEMA = """
create table if not exists feedback (
  id integer primary key autoincrement,
  time real not null check (typeof(time) = 'real'),
  user text not null,
  model text not null,
  version text not null,
  arm text not null check (arm in ('A', 'B')),
  prediction text not null,
  label text,
  correct integer not null check (correct in (0, 1)),
  request text not null,
  unique (request, arm)
);
create table if not exists setting (name text primary key, value blob not null);
"""
KEY_BYTES = 32
WAIT = 30.0  # Seconds that a writer waits for another one.
MAX_ROW = 1 << 16  # Bytes of a row, and of each text, that a reader takes from an untrusted file.
MAX_STEPS = 200  # Millions of SQLite's instructions: five million rows take 55.


class Feedback(NamedTuple):
    """A row of the log, without its id."""

    time: float  # Seconds since 1970.
    user: str  # The hash of the user's key.
    model: str
    version: str
    arm: str  # "A" or "B".
    prediction: str  # The class that the model named.
    label: str | None  # The true class, if the user said it.
    correct: bool
    request: str  # Names the picture: the same for both arms where both models answered.


COLUMNS = ", ".join(Feedback._fields)


def read(path: str | Path) -> list[Feedback]:
    """Reads a log, which a server may be writing: the rows in the order of arrival.

    It takes a snapshot and neither locks the file nor writes to it.

    Raises:
      UserError: There is no such file, or it holds no feedback.
    """
    return list(rows(path))


def rows(path: str | Path) -> Iterator[Feedback]:
    """The same, row by row."""
    if not Path(path).is_file():
        raise UserError("{}: expected a feedback log, found no such file", path)
    try:
        with contextlib.closing(_open_to_read(Path(path))) as log:
            with contextlib.closing(sqlite3.connect(":memory:")) as own:
                own.executescript(SCHEMA)
                # A view, a virtual table or a computed column may hold more than its file.
                if _table(log) != _table(own):
                    raise UserError(
                        "{}: expected a feedback log, found another table or none", path
                    )
            for row in log.execute(f"select {COLUMNS} from feedback order by rowid"):
                yield checked(path, row)
    except (sqlite3.Error, UnicodeError) as error:  # The text of an error may be no Unicode.
        raise UserError("{}: expected a feedback log: {}", path, first_line(error)) from error


def _table(log: sqlite3.Connection) -> list[tuple]:
    """The feedback table's kind and its columns: name, type, default, key, whether hidden."""
    kind = "select type, rootpage > 0 from sqlite_master where name = 'feedback'"
    return [*log.execute(kind), *log.execute("pragma table_xinfo(feedback)")]


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Opens a log read-only; one on a read-only disk, which has no server, as immutable."""
    where = path.resolve().as_uri()
    has_server = os.access(path.resolve().parent, os.W_OK) or Path(f"{path}-wal").exists()
    log = sqlite3.connect(f"{where}?{'mode=ro' if has_server else 'immutable=1'}", uri=True)
    log.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)
    steps = itertools.count()
    log.set_progress_handler(lambda: next(steps) >= MAX_STEPS, 1_000_000)
    log.execute("pragma trusted_schema = off")
    return log


def _write_ahead(log: sqlite3.Connection) -> None:
    """Gives a log its write-ahead log: SQLite itself does not wait where several do so at once."""
    give_up = time.monotonic() + WAIT
    while True:
        try:
            log.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def checked(path: str | Path, row: tuple) -> Feedback:
    """A row of a file that may be untrusted."""
    found = Feedback(*row)
    texts = found.user, found.model, found.version, found.prediction, found.request
    sound = isinstance(found.time, float) and all(isinstance(text, str) for text in texts)
    sound = sound and isinstance(found.label, str | None)
    if not sound or found.arm not in ("A", "B") or found.correct not in (0, 1):
        raise UserError(
            "{}: expected rows as the server writes them, found {}", path, f"{row!r:.200}"
        )
    return found._replace(correct=bool(found.correct))


def checked_key(key: object) -> bytes:
    """The key that signs the answers, as a log has it; ValueError for a short one to be guessed."""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ValueError(f"its key is not {KEY_BYTES} bytes")
    return key


class FeedbackLog:
    """The log as its server has it open; to be used from one thread at a time."""

    def __init__(self, path: Path):
        """Opens a log, or makes one that only this user reads.

        Raises:
          UserError: The file cannot be written, or is no log.
        """
        self.path = path
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._log = sqlite3.connect(
                path, timeout=WAIT, isolation_level="IMMEDIATE", check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise UserError("feedback: cannot write to {}: {}", path, first_line(error)) from error
        try:
            _write_ahead(self._log)
            self._log.execute("pragma synchronous = full")  # A commit is on the disk.
            self._log.executescript(SCHEMA)
            with self._log:
                new = ("key", secrets.token_bytes(KEY_BYTES))
                self._log.execute("insert or ignore into setting values (?, ?)", new)
            found = self._log.execute("select value from setting where name = 'key'").fetchone()
            self.key = checked_key(found[0] if found else None)  # The same after a restart.
            self._log.execute(f"select {COLUMNS} from feedback limit 1")
        except (sqlite3.Error, ValueError) as error:
            self._log.close()
            raise UserError(
                "feedback: expected a log in {}: {}", path, first_line(error)
            ) from error

    def append(self, rows: Sequence[Feedback]) -> list[bool]:
        """Appends rows in one transaction, which is on the disk when this returns.

        Returns:
          Whether each is in the log now: not if another feedback came first for its answer. The
          same feedback again, as from a client that lost the reply, changes nothing and is True.

        Raises:
          OSError: The log cannot be written; then none of them is in it.
        """
        marks = ", ".join("?" * len(Feedback._fields))
        try:
            with self._log:  # Commits all of them, or nothing.
                return [self._append(row, marks) for row in rows]
        except sqlite3.Error as error:
            raise OSError(f"cannot write to {self.path}: {first_line(error)}") from error

    def _append(self, row: Feedback, marks: str) -> bool:
        command = f"insert into feedback ({COLUMNS}) values ({marks}) on conflict do nothing"
        done = self._log.execute(command, row)
        if done.rowcount:
            return True
        key = row.request, row.arm
        found = self._log.execute(
            "select label, correct from feedback where request = ? and arm = ?", key
        ).fetchone()
        return found == (row.label, row.correct)

    def close(self) -> None:
        self._log.close()
