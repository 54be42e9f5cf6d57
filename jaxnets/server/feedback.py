"""The log of an A/B test: each user's model, its answers, and whether they were right.

It is a SQLite file with a write-ahead log, or a PostgreSQL database that servers on several
machines share. A reader never waits for the server, nor the server for a reader, and committed rows
survive `kill -9` and a power cut. Any tool reads it:

    select arm, count(*), avg(correct) from feedback group by arm
"""

import contextlib
import itertools
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Engine,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from jaxnets.base.errors import UserError, first_line, not_installed
from jaxnets.server import is_url

METADATA = MetaData()
# A user is the hash of a key; a request names one picture's answers: the arms' rows share it if
# both models answered. `id` grows in the order of arrival.
FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(True), primary_key=True),
    Column("time", Double, nullable=False),
    Column("user", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("arm", Text, CheckConstraint("arm in ('A', 'B')"), nullable=False),
    Column("prediction", Text, nullable=False),
    Column("label", Text),
    Column("correct", Integer, CheckConstraint("correct in (0, 1)"), nullable=False),
    Column("request", Text, nullable=False),
    UniqueConstraint("request", "arm"),
    sqlite_autoincrement=True,
)
SETTING = Table(
    "setting",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
INSERT = {  # An answer takes feedback once.
    "sqlite": sqlite.insert(FEEDBACK).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(FEEDBACK).on_conflict_do_nothing(),
}
KEY_BYTES = 32
# The first statement of a transaction. It limits the wait for a lock. (In PostgreSQL a setting of
# the connection would not pass every pool of connections.)
BEGIN = {"sqlite": "begin immediate", "postgresql": "set local statement_timeout = '10s'"}
WAIT = 30.0  # Seconds that a writer of a file waits for another one.
# A database that has vanished is noticed in 15 seconds.
NETWORK = {"connect_timeout": "10", "tcp_user_timeout": "15000", "keepalives_idle": "5"}
LOCK = 0x6A61786E657473  # Held while making the tables in PostgreSQL: "jaxnets" in ASCII.
FETCHED = 500  # Rows that a reader fetches at a time.
MAX_ROW = 1 << 16  # Bytes of a row, and of each text, that a reader accepts from an untrusted file.
MAX_STEPS = 200  # Millions of SQLite's instructions: five million rows take 55.


class FeedbackRow(NamedTuple):
    """A row of the log, without its id."""

    time: float  # Seconds since 1970.
    user: str  # The hash of the user's key.
    model: str
    version: str
    arm: str  # "A" or "B".
    prediction: str  # The class that the model predicted.
    label: str | None  # The true class, if the user said it.
    correct: bool
    request: str  # Names the picture: the same for both arms if both models answered.


COLUMNS = [FEEDBACK.c[name] for name in FeedbackRow._fields]


def without_password(log: str) -> str:
    """A log's file, or the host and the database of its URL, without user, password or options."""
    if not is_url(log):
        return log
    url = _parsed(log)
    return str(URL.create("postgresql", host=url.host, port=url.port, database=url.database))


def _parsed(log: str) -> URL:
    """The parts of a URL; no error quotes it, because it may hold a password."""
    with contextlib.suppress(ArgumentError, ValueError):
        url = make_url(log)
        # With a second @ the end of a password would be taken for the host, and shown.
        if url.drivername in ("postgresql", "postgres") and log.count("@") < 2:
            return url.set(drivername="postgresql+psycopg", query={**NETWORK, **url.query})
    raise UserError(
        "feedback: expected postgresql://USER@HOST:PORT/DATABASE, with @ / ? % in a password as "
        "%40 %2F %3F %25; got another form"
    )


def _connect(log: str) -> Engine:
    """An engine for a log in PostgreSQL."""
    try:
        # Prepared statements do not pass every pool of connections.
        arguments = {"prepare_threshold": None}
        return create_engine(_parsed(log), pool_pre_ping=True, connect_args=arguments)
    except ModuleNotFoundError:
        raise not_installed("psycopg", "postgres") from None


def _open(path: str) -> Engine:
    """An engine for a log in a file, which only this user can read."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    engine = create_engine(URL.create("sqlite", database=path), connect_args={"timeout": WAIT})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # BEGIN begins.
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")  # A commit is on the disk.

    return engine


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Opens a log read-only; on a read-only disk, where no server writes, as immutable."""
    where = path.resolve().as_uri()
    has_server = os.access(path.resolve().parent, os.W_OK) or Path(f"{path}-wal").exists()
    log = sqlite3.connect(f"{where}?{'mode=ro' if has_server else 'immutable=1'}", uri=True)
    log.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)
    steps = itertools.count()
    log.set_progress_handler(lambda: next(steps) >= MAX_STEPS, 1_000_000)
    log.execute("pragma trusted_schema = off")
    return log


def read(log: str | Path) -> list[FeedbackRow]:
    """Reads the rows of a log, to which a server may be writing, in the order of arrival.

    It takes a snapshot and neither locks the log nor writes to it.

    Raises:
      UserError: There is no such log, or it holds no feedback.
    """
    return list(rows(log))


def rows(log: str | Path) -> Iterator[FeedbackRow]:
    """The same, row by row."""
    name = without_password(str(log))
    if is_url(str(log)):
        engine = _connect(str(log))
    elif Path(log).is_file():
        engine = create_engine("sqlite://", creator=lambda: _open_to_read(Path(log)))
    else:
        raise UserError("{}: expected a feedback log, found no such file", log)
    try:
        with engine.connect() as connection:
            found = select(*COLUMNS).order_by(FEEDBACK.c.id).execution_options(yield_per=FETCHED)
            for row in connection.execute(found):
                yield _checked(name, row)
    except (SQLAlchemyError, sqlite3.Error, UnicodeError) as error:
        raise UserError("{}: expected a feedback log: {}", name, _reason(error)) from None
    finally:
        engine.dispose()


def _checked(name: str, row: Sequence[Any]) -> FeedbackRow:
    """A row of a log that may be untrusted."""
    found = FeedbackRow(*row)
    texts = found.user, found.model, found.version, found.prediction, found.request
    sound = isinstance(found.time, float) and all(isinstance(text, str) for text in texts)
    sound = sound and isinstance(found.label, str | None)
    if not sound or found.arm not in ("A", "B") or found.correct not in (0, 1):
        shortened = f"{row!r:.200}"
        raise UserError("{}: expected rows as the server writes them, found {}", name, shortened)
    return found._replace(correct=bool(found.correct))


def _reason(error: Exception) -> str:
    """A database's own message, without SQLAlchemy's."""
    return first_line(getattr(error, "orig", None) or error)


class FeedbackLog:
    """The log that its server has open; to be used by one thread at a time."""

    def __init__(self, log: str | Path):
        """Opens a log, or makes it.

        Raises:
          UserError: It cannot be written, or is not a log.
        """
        self.place = without_password(str(log))
        try:
            self._engine = _connect(str(log)) if is_url(str(log)) else _open(str(log))
        except OSError as error:
            raise UserError(
                "feedback: cannot write to {}: {}", self.place, first_line(error)
            ) from None
        begin = BEGIN[self._engine.dialect.name]
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        try:
            self.key = self._prepare()  # Signs the answers of all servers that share the log.
        except (SQLAlchemyError, sqlite3.Error, ValueError) as error:
            self.close()
            raise UserError(
                "feedback: expected a log in {}: {}", self.place, _reason(error)
            ) from None

    def _prepare(self) -> bytes:
        """Makes missing tables, and returns the key; ValueError if this is not such a log.

        The rights to make tables, and to write to `setting`, are needed only once.
        """
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(LOCK)))  # Two may start.
                encoding = connection.scalar(text("show server_encoding"))
                if encoding != "UTF8":  # One name would also fail the rows of others.
                    raise ValueError(f"its encoding is {encoding}, not UTF8")
            METADATA.create_all(connection)
            connection.execute(select(*COLUMNS).limit(1))
            get_key = select(text("value")).select_from(SETTING).where(SETTING.c.name == "key")
            if (key := connection.scalar(get_key)) is None:
                key = secrets.token_bytes(KEY_BYTES)
                connection.execute(insert(SETTING), {"name": "key", "value": key})
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:  # A short one could be guessed.
            raise ValueError(f"its key is not {KEY_BYTES} bytes")
        return key

    def append(self, rows: Sequence[FeedbackRow]) -> list[bool]:
        """Appends rows in one transaction, which is committed when this returns.

        Returns:
          Whether each is in the log now: False if its answer already has different feedback. The
            same feedback again, from a client that lost the reply, changes nothing and gives True.

        Raises:
          OSError: The log cannot be written; then none of them is known to be in it.
        """
        asked, is_asked = FEEDBACK.c, FEEDBACK.c.request.in_([row.request for row in rows])
        values = [{**row._asdict(), "correct": int(row.correct)} for row in rows]
        try:
            with self._engine.begin() as connection:
                connection.execute(INSERT[self._engine.dialect.name], values)
                found = connection.execute(
                    select(asked.request, asked.arm, asked.label, asked.correct).where(is_asked)
                )
                saved = {(request, arm): rest for request, arm, *rest in found}
        except SQLAlchemyError as error:
            raise OSError(f"cannot write to {self.place}: {_reason(error)}") from None
        return [saved[row.request, row.arm] == [row.label, row.correct] for row in rows]

    def close(self) -> None:
        """Closes the log."""
        self._engine.dispose()
