"""The feedback log in PostgreSQL, which servers on several machines share.

The table is that of `feedback.py`, so any tool reads it:

    select arm, count(*), avg(correct) from feedback group by arm
"""

import contextlib
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from jaxnets.deploy.server.feedback import KEY_BYTES, Feedback, checked, checked_key
from jaxnets.errors import UserError, first_line, not_installed

SCHEMA = """
create table feedback (
  id bigint generated always as identity primary key,
  time double precision not null,
  "user" text not null,
  model text not null,
  version text not null,
  arm text not null check (arm in ('A', 'B')),
  prediction text not null,
  label text,
  correct integer not null check (correct in (0, 1)),
  request text not null,
  unique (request, arm)
);
create table setting (name text primary key, value bytea not null);
"""
# Quoted, as user is a word of SQL's. (In quotes SQLite takes a missing column for a text.)
COLUMNS = ", ".join(f'"{name}"' for name in Feedback._fields)
LOCK = 0x6A61786E657473  # Of the one who makes the tables: "jaxnets" in ASCII.
# Seconds. A server that is gone is noticed in 15: by what it does not acknowledge, or keep alive.
NETWORK = {
    "connect_timeout": 10,
    "tcp_user_timeout": 15_000,  # Milliseconds.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
# In each transaction: a setting of the connection would not pass every pool of connections.
# What is committed is on the disk, also where the database's own setting is not to wait for it.
LIMITS = """
set local lock_timeout = '5s';
set local statement_timeout = '10s';
set local idle_in_transaction_session_timeout = '30s';
select set_config('synchronous_commit', 'on', true)
  where current_setting('synchronous_commit') = 'off';
"""
LONGEST = 20  # Seconds of a transaction.
FETCHED = 10_000  # Rows that a reader asks for at a time.
# One @, before every / and ?, and ports of digits: libpq would take the end of another password for
# a host or a port, and name it in its errors.
HOST = r"(\[[^]/?@]*\]|[^\[/?@:,]*)(:\d*)?"
URL = re.compile(rf"postgres(ql)?://([^/?@]*@)?{HOST}(,{HOST})*([/?][^@]*)?")


def is_url(log: str) -> bool:
    """Whether a log is named by a URL, as PostgreSQL's are; else it is a file."""
    return "://" in log


def shown(url: str) -> str:
    """The hosts and the database of a URL, without the user, a password or options."""
    found = _parameters(url)
    ports = str(found.get("port") or "").split(",")
    hosts = str(found.get("host") or "").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    places = (f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True))
    return f"postgresql://{','.join(places)}/{found.get('dbname') or ''}"


def _psycopg() -> Any:
    try:
        import psycopg  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise not_installed("psycopg", "postgres") from None
    return psycopg


def _parameters(url: str) -> dict[str, Any]:
    """What a URL says, as libpq reads it; no error quotes it, as it may hold a password."""
    psycopg = _psycopg()
    if URL.fullmatch(url):
        with contextlib.suppress(psycopg.ProgrammingError):
            return {**NETWORK, **psycopg.conninfo.conninfo_to_dict(url)}
    raise UserError(
        "feedback: expected postgresql://USER@HOST:PORT/DATABASE, with @ / ? % in a password as "
        "%40 %2F %3F %25; got another form"
    )


def _connect(url: str) -> Any:
    """A connection; psycopg's OperationalError if there is none."""
    psycopg = _psycopg()
    # Prepared statements do not pass every pool of connections.
    log = psycopg.connect(
        **_parameters(url), autocommit=True, prepare_threshold=None, client_encoding="utf8"
    )
    log.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return log


@contextlib.contextmanager
def _limited(log: Any) -> Iterator[Any]:
    """A transaction, whose waits for locks and statements have limits."""
    # A database that hangs keeps no limit of its own, while its system still answers the network.
    cut = threading.Timer(LONGEST, _cut, [log])
    cut.daemon = True
    cut.start()
    try:
        with log.transaction():
            log.execute(LIMITS)
            yield log
    finally:
        cut.cancel()


def _cut(log: Any) -> None:
    """Ends a connection from another thread: who waits for its answer gets an OperationalError."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(log.fileno())) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def rows(url: str) -> Iterator[Feedback]:
    """The rows of a log in the order of arrival, as one snapshot has them.

    Raises:
      UserError: The database cannot be read, or holds no such table.
    """
    place, psycopg = shown(url), _psycopg()
    try:
        with contextlib.closing(_connect(url)) as log, log.transaction():
            log.execute("set transaction read only")
            with log.cursor("rows") as cursor:  # On the server's side.
                cursor.itersize = FETCHED
                for row in cursor.execute(f"select {COLUMNS} from feedback order by id"):
                    yield checked(place, row)
    except psycopg.Error as error:
        raise UserError("{}: expected a feedback log: {}", place, first_line(error)) from None


class PostgresLog:
    """The log as a server has it open; to be used from one thread at a time."""

    def __init__(self, url: str):
        """Opens a log, or makes its tables where they are missing.

        Raises:
          UserError: The database cannot be reached or written, or holds another table.
        """
        self.place, self._url = shown(url), url
        psycopg = _psycopg()
        with contextlib.ExitStack() as stack:
            try:
                self._log = stack.enter_context(contextlib.closing(_connect(url)))
                self.key = self._prepare()  # Signs the answers of all servers that share the log.
            except (psycopg.Error, ValueError) as error:
                message = f"expected a log in {self.place}: {first_line(error)}"
                raise UserError("feedback: {}", message) from None
            stack.pop_all()  # It stays open.

    def _prepare(self) -> bytes:
        """Makes what is missing, and returns the key; ValueError if the log is another's.

        The rights to make tables, and to write to `setting`, are needed once.
        """
        with _limited(self._log) as log:
            if (encoding := log.info.parameter_status("server_encoding")) != "UTF8":
                raise ValueError(f"its encoding is {encoding}, not UTF8")
            log.execute("select pg_advisory_xact_lock(%s)", (LOCK,))  # Two servers may start.
            if log.execute("select to_regclass('feedback')").fetchone() == (None,):
                log.execute(SCHEMA)
            get_key = "select value from setting where name = 'key'"
            if not log.execute(get_key).fetchone():
                new = (secrets.token_bytes(KEY_BYTES),)
                log.execute("insert into setting values ('key', %s)", new)
            (key,) = log.execute(get_key).fetchone()
            log.execute(f"select {COLUMNS} from feedback limit 1")
        return checked_key(key)

    def append(self, rows: Sequence[Feedback]) -> list[bool]:
        """Appends rows in one transaction, which is committed when this returns.

        A lost connection is opened again, once. If it was lost during the commit, the rows may be
        in the log already: they are the same feedback again, which changes nothing.

        Returns:
          Whether each is in the log now, as of `FeedbackLog.append`.

        Raises:
          OSError: The log cannot be written; then none of them is known to be in it.
        """
        for may_try_again in (True, False):
            try:
                if self._log.closed:
                    self._log = _connect(self._url)
                return self._append(rows)
            except _psycopg().Error as error:
                is_lost = self._log.broken
                self._log.close()
                if not (is_lost and may_try_again):
                    message = f"cannot write to {self.place}: {first_line(error)}"
                    raise OSError(message) from None
        raise AssertionError  # The last try returns or raises.

    def _append(self, rows: Sequence[Feedback]) -> list[bool]:
        marks = ", ".join(["%s"] * len(Feedback._fields))
        command = f"insert into feedback ({COLUMNS}) values ({marks}) on conflict do nothing"
        with _limited(self._log) as log:
            with log.cursor() as cursor:
                cursor.executemany(
                    command, [row._replace(correct=int(row.correct)) for row in rows]
                )
            names = [row.request for row in rows], [row.arm for row in rows]
            asked = "unnest(%s::text[], %s::text[]) as asked (request, arm)"
            found = log.execute(
                "select request, arm, label, correct from feedback natural join " + asked, names
            )
            saved = {(request, arm): rest for request, arm, *rest in found}
        return [saved[row.request, row.arm] == [row.label, row.correct] for row in rows]

    def close(self) -> None:
        self._log.close()
