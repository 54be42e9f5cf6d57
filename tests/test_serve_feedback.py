"""The feedback log: what is in it, who may read it meanwhile, and what a crash leaves."""

import contextlib
import itertools
import os
import signal
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxnets.abtest.log import read_users
from jaxnets.base.errors import UserError
from jaxnets.server import feedback
from jaxnets.server.feedback import FeedbackLog, FeedbackRow, read, without_password


def row(number: int, arm="A", correct=True, label: str | None = "7"):
    user, request = f"user {number % 5}", f"request {number}"
    return FeedbackRow(1e9 + number, user, "cnn", "860", arm, "7", label, correct, request)


@pytest.fixture
def log(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    yield log
    log.close()


@pytest.fixture
def url(postgres):
    return postgres.create()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a log is."""
    return tmp_path / "log" if request.param == "sqlite" else request.getfixturevalue("url")


def test_rows_are_read_in_the_order_of_arrival(place):
    rows = [row(3), row(1, "B", False, None), row(2, label="ß ? 七 \\x00")]
    with contextlib.closing(FeedbackLog(place)) as log:
        assert log.append(rows[:2]) == [True, True]
        assert log.append(rows[2:]) == [True]
        assert read(place) == rows
    assert read(place) == rows


def test_only_its_user_reads_the_file(log):
    assert stat.S_IMODE(os.stat(log.place).st_mode) == 0o600


def test_an_answer_takes_one_feedback_or_the_same_again(place):
    with contextlib.closing(FeedbackLog(place)) as log:
        other = row(1, correct=False, label="1")
        assert log.append([row(1), row(1), other, row(1, "B")]) == [True, True, False, True]
        assert log.append([other, row(1)]) == [False, True]
    assert read(place) == [row(1), row(1, "B")]


def test_reader_and_server_do_not_wait_for_each_other(log):
    log.append([row(1)])
    reader = sqlite3.connect(f"file:{log.place}?mode=ro", uri=True, isolation_level=None)
    reader.execute("begin")
    assert reader.execute("select count(*) from feedback").fetchone() == (1,)
    log.append([row(2)])
    assert read(log.place) == [row(1), row(2)]
    assert reader.execute("select count(*) from feedback").fetchone() == (1,)  # Its snapshot.
    reader.close()


OLD = """
create table feedback (
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
create table setting (name text primary key, value blob not null);
"""


def test_a_file_of_an_earlier_version_is_read_and_written(tmp_path):
    key = os.urandom(32)
    with sqlite3.connect(tmp_path / "log") as old:
        old.executescript(OLD)
        old.execute("insert into setting values ('key', ?)", (key,))
        marks = ", ".join("?" * len(row(1)))
        old.execute(f"insert into feedback ({', '.join(row(1)._fields)}) values ({marks})", row(1))
    old.close()
    assert read(tmp_path / "log") == [row(1)]
    with contextlib.closing(FeedbackLog(tmp_path / "log")) as log:
        assert log.key == key
        assert log.append([row(1), row(1, correct=False), row(2)]) == [True, False, True]
    assert read(tmp_path / "log") == [row(1), row(2)]


def test_a_batch_that_fails_leaves_nothing(place):
    with contextlib.closing(FeedbackLog(place)) as log:
        with pytest.raises(OSError, match="(?i)check constraint"):
            log.append([row(1), row(2, arm="C")])
        assert read(place) == []
        assert log.append([row(1)]) == [True]


def test_servers_that_start_together_share_one_key(place):
    together = threading.Barrier(8)

    def start(number):
        together.wait()
        with contextlib.closing(FeedbackLog(place)) as log:
            log.append([row(number), row(100, correct=bool(number % 2))])
            return log.key

    with ThreadPoolExecutor(8) as servers:
        keys = set(servers.map(start, range(8)))
    assert [len(key) for key in keys] == [32]
    assert {one.request for one in read(place)} == {
        f"request {number}" for number in [*range(8), 100]
    }


def test_another_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none")
    (tmp_path / "text").write_text("no database " * 100)
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("create view feedback as select 1")
    other.close()
    with sqlite3.connect(tmp_path / "wrong.sqlite") as wrong:
        wrong.execute("create table feedback (id, time)")
    wrong.close()
    for name in ("text", "other.sqlite", "wrong.sqlite"):
        with pytest.raises(UserError, match="expected a"):
            read(tmp_path / name)
        with pytest.raises(UserError, match="feedback: expected a log"):
            FeedbackLog(tmp_path / name)
    with pytest.raises(UserError, match="cannot write to"):
        FeedbackLog(tmp_path / "nowhere" / "log")


@pytest.mark.parametrize("key", ["k" * 32, 32, b"k" * 31], ids=lambda key: repr(key)[:8])
def test_a_log_whose_key_is_not_32_bytes_is_refused(tmp_path, key):
    path = tmp_path / "log.sqlite"
    FeedbackLog(path).close()
    with sqlite3.connect(path) as foreign:
        foreign.execute("drop table setting")
        foreign.execute("create table setting (name text primary key, value)")
        foreign.execute("insert into setting values ('key', ?)", (key,))
    foreign.close()
    with pytest.raises(UserError, match="expected a log in .*: its key is not 32 bytes"):
        FeedbackLog(path)


KILLED = """
import sys
from jaxnets.server.feedback import FeedbackRow, FeedbackLog
log = FeedbackLog(sys.argv[1])
for number in range(10**9):
    log.append([FeedbackRow(1e9, "u", "cnn", "860", "A", "7", "7", True, f"request {number}")])
    print(number, flush=True)
"""


def test_what_was_appended_before_a_kill_is_in_the_log(place, start_python):
    with start_python("-c", KILLED, place) as process:
        printed = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        rest = process.stdout.read()  # `communicate` would lose what was read ahead.
    assert process.returncode == -signal.SIGKILL
    printed += [int(line) for line in rest.split("\n")[:-1]]
    found = [int(one.request.split()[1]) for one in read(place)]
    assert found[: len(printed)] == printed == list(range(len(printed)))
    assert len(found) <= len(printed) + 1  # The last may be in the log and not yet printed.


# PostgreSQL


def test_a_lost_database_is_found_again(postgres, url):
    with contextlib.closing(FeedbackLog(url)) as log:
        assert log.append([row(1)]) == [True]
        postgres.ask("postgres", "select pg_terminate_backend(pid) from pg_stat_activity "
                     "where datname = %s", url.rpartition("/")[2])  # fmt: skip
        assert log.append([row(1), row(2)]) == [True, True]
        postgres.stop()
        with pytest.raises(OSError, match="cannot write to postgresql://127.0.0.1:") as raised:
            log.append([row(3)])
        assert "s3cret" not in str(raised.value) and "owner" not in str(raised.value)
        postgres.start()
        assert log.append([row(3)]) == [True]
    assert read(url) == [row(1), row(2), row(3)]


@pytest.mark.slow
def test_what_is_accepted_survives_lost_connections(postgres, url):
    """Connections end at any moment, also between a commit and its answer."""
    name, ended, saved = url.rpartition("/")[2], threading.Event(), []

    def append(log, first):
        with contextlib.closing(log):
            for number in itertools.count(first):
                if ended.is_set():
                    return
                with contextlib.suppress(OSError):
                    assert log.append([row(number)]) == [True]
                    saved.append(f"request {number}")

    with ThreadPoolExecutor(2) as writers:
        written = [writers.submit(append, FeedbackLog(url), first) for first in (0, 10**9)]
        for _ in range(100):
            postgres.ask("postgres", "select pg_terminate_backend(pid) from pg_stat_activity "
                         "where datname = %s", name)  # fmt: skip
        ended.set()
        for one in written:
            one.result()
    found = [one.request for one in read(url)]
    assert len(saved) > 20 and set(saved) <= set(found) and len(found) == len(set(found))


def test_a_held_lock_is_not_waited_for_for_ever(url, monkeypatch):
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setitem(feedback.BEGIN, "postgresql", "set local statement_timeout = '100ms'")
    with contextlib.closing(FeedbackLog(url)) as log, psycopg.connect(url) as other:
        other.execute("lock table feedback in exclusive mode")
        with pytest.raises(OSError, match="statement timeout"):
            log.append([row(1)])


def test_the_least_rights_are_enough(postgres, url):
    name = url.rpartition("/")[2]
    FeedbackLog(url).close()
    for user, rights in (
        ("server", "grant select, insert on feedback to {0}; grant select on setting to {0}"),
        ("reader", "grant select on feedback to {0}"),
    ):
        postgres.ask(name, f"create role {name}_{user} login password 'x'")
        postgres.ask(name, rights.format(f"{name}_{user}"))
    with contextlib.closing(FeedbackLog(postgres.url(name, f"{name}_server:x"))) as log:
        assert log.append([row(1), row(2, "B")]) == [True, True]
    reader = postgres.url(name, f"{name}_reader:x")
    assert read_users(reader).right.sum(axis=0).tolist() == [1, 1]
    with pytest.raises(UserError, match="permission denied for table setting"):
        FeedbackLog(reader)


def test_another_database_is_refused_in_one_line(postgres, url):
    name = url.rpartition("/")[2]
    with pytest.raises(UserError, match='relation "feedback" does not exist'):
        read_users(url)
    postgres.ask(name, "create table feedback (id int)")
    for use in (FeedbackLog, read_users):
        with pytest.raises(UserError, match="expected a (feedback )?log"):
            use(url)
    postgres.ask(name, "drop table feedback")
    FeedbackLog(url).close()
    with pytest.raises(UserError, match="expected answers of users, found none"):
        read_users(url)
    postgres.ask(name, "update setting set value = 'k'")
    with pytest.raises(UserError, match="its key is not 32 bytes"):
        FeedbackLog(url)
    latin = f"{name}_latin"
    postgres.ask("postgres", f"create database {latin} encoding 'LATIN1' template template0")
    with pytest.raises(UserError, match="its encoding is LATIN1, not UTF8"):
        FeedbackLog(postgres.url(latin))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@127.0.0.1:{}/postgres",  # No such user.
        "postgresql://owner:s3cret2@127.0.0.1:{}/postgres",
        "postgresql://owner:s3cret@127.0.0.1:1/postgres",
        "postgresql://owner:s3cret@nowhere.invalid/a,b",
        "postgresql://127.0.0.1:{}/postgres?user=owner&password=s3cret2",
        "postgresql://owner:s3cret@127.0.0.1:1,[::1]:1/postgres?connect_timeout=1",
        "postgresql://owner:at@s3cret@127.0.0.1/postgres",
        "postgresql://owner:slash/s3cret@127.0.0.1/postgres",
        "postgresql://owner:query?s3cret@127.0.0.1/postgres",
        "postgresql://owner:100%s3cret@127.0.0.1/postgres",
        "postgresql://owner:s3cret",
        "postgresql://owner:s3cret@host:port/postgres",
        "mysql://owner:s3cret@127.0.0.1/postgres",
    ],
)
def test_no_error_shows_a_password(request, url, run_command, tmp_path):
    if "{}" in url:
        url = url.format(request.getfixturevalue("postgres").port)
    pytest.importorskip("psycopg")
    for arguments in (["abtest", url], ["abtest", url, url], ["serve", url]):
        outcome = run_command(*arguments)
        outcome.assert_refused()
        assert "s3cret" not in outcome.err
    with pytest.raises(UserError) as raised:
        FeedbackLog(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.oracle
def test_a_log_is_shown_by_its_hosts_and_database():
    pytest.importorskip("psycopg")
    assert (
        without_password("postgresql://ann:x@a:1/d?sslmode=require&password=x")
        == "postgresql://a:1/d"
    )
    assert without_password("postgres://ann@[::1]/d") == "postgresql://[::1]/d"
    assert without_password("runs/log.sqlite") == "runs/log.sqlite"
