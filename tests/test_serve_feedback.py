"""The feedback log: what is in it, who may read it meanwhile, and what a crash leaves."""

import signal
import sqlite3
import stat
import sys

import pytest

from jaxnets.deploy.server.feedback import Feedback, FeedbackLog, read
from jaxnets.errors import UserError


def row(number: int, arm="A", correct=True, label: str | None = "7"):
    user, request = f"user {number % 5}", f"request {number}"
    return Feedback(1e9 + number, user, "cnn", "860", arm, "7", label, correct, request)


@pytest.fixture
def log(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    yield log
    log.close()


def test_rows_are_read_in_the_order_of_arrival(log):
    rows = [row(3), row(1, "B", False, None), row(2)]
    assert log.append(rows[:2]) == [True, True]
    assert log.append(rows[2:]) == [True]
    assert read(log.path) == rows
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_an_answer_takes_one_feedback_or_the_same_again(log):
    assert log.append([row(1), row(1), row(1, correct=False, label="1"), row(1, "B")]) == [
        True, True, False, True,
    ]  # fmt: skip
    assert read(log.path) == [row(1), row(1, "B")]


def test_reader_and_server_do_not_wait_for_each_other(log):
    log.append([row(1)])
    reader = sqlite3.connect(f"{log.path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("begin")
    assert reader.execute("select count(*) from feedback").fetchone() == (1,)
    log._log.execute("pragma busy_timeout = 0")  # A lock would be an error at once.
    log.append([row(2)])
    assert read(log.path) == [row(1), row(2)]
    assert reader.execute("select count(*) from feedback").fetchone() == (1,)  # Its snapshot.
    reader.close()


def test_a_batch_that_fails_leaves_nothing(log):
    with pytest.raises(OSError, match="CHECK constraint"):
        log.append([row(1), row(2, arm="C")])
    assert read(log.path) == []
    assert log.append([row(1)]) == [True]


def test_the_key_stays_with_the_log(log):
    again = FeedbackLog(log.path)
    assert again.key == log.key and len(log.key) == 32
    again.close()


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
    FeedbackLog(tmp_path / "bytes.sqlite").close()
    with sqlite3.connect(tmp_path / "bytes.sqlite") as damaged:
        damaged.execute("create table other (a)")
    damaged.close()
    content = (tmp_path / "bytes.sqlite").read_bytes()
    content = content.replace(b"CREATE TABLE other", b"CREATE TABLE \xee\xee\xee\xee\xee")
    (tmp_path / "bytes.sqlite").write_bytes(content)
    for name in ("text", "other.sqlite", "wrong.sqlite", "bytes.sqlite"):
        with pytest.raises(UserError, match="expected a"):
            read(tmp_path / name)
        with pytest.raises(UserError, match="feedback: expected a log"):
            FeedbackLog(tmp_path / name)
    with pytest.raises(UserError, match="cannot write to"):
        FeedbackLog(tmp_path / "nowhere" / "log")


@pytest.mark.parametrize(
    "key", ["k" * 32, 3.5, 32, 0, b"", b"k" * 31, b"k" * 33, None], ids=lambda key: repr(key)[:8]
)
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
from pathlib import Path
from test_serve_feedback import row
from jaxnets.deploy.server.feedback import FeedbackLog
log = FeedbackLog(Path(sys.argv[1]))
for number in range(10**9):
    log.append([row(number)])
    print(number, flush=True)
"""


def test_what_was_appended_before_a_kill_is_in_the_log(tmp_path, start_python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    path = tmp_path / "log.sqlite"
    with start_python("-c", KILLED, path) as process:
        printed = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        rest = process.stdout.read()  # `communicate` would lose what was read ahead.
    assert process.returncode == -signal.SIGKILL
    printed += [int(line) for line in rest.split("\n")[:-1]]
    found = [int(one.request.split()[1]) for one in read(path)]
    assert found[: len(printed)] == printed == list(range(len(printed)))
    assert len(found) <= len(printed) + 1  # The last may be in the log and not yet printed.
