"""Files that are written whole or not at all, by several writers, some of whom are killed."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from jaxnets.base import files

fcntl = pytest.importorskip("fcntl", reason="Windows has no locks: see test_windows.py")


def test_each_of_two_writers_has_a_file_of_its_own(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as first:
        first.write(b"first")
        files.write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_a_writer_that_fails_leaves_the_other_ones_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ZeroDivisionError), files.replacing(path):
        files.write_text(path, "whole")
        raise ZeroDivisionError
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from jaxnets.base.files import replacing
with replacing(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path, other = tmp_path / "file", tmp_path / "file.txt"
    other.write_text("another file")
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        assert len(list(tmp_path.glob("file.*.partial"))) == 1  # The second removed the first's.
    files.write_text(path, "whole")
    assert path.read_text() == "whole" and sorted(os.listdir(tmp_path)) == ["file", "file.txt"]


def test_what_is_no_rest_of_a_writer_is_not_followed_and_not_opened(tmp_path):
    path, victim = tmp_path / "file", tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "file.01234567.partial").symlink_to(victim)
    (tmp_path / "file.partial").symlink_to(victim)
    os.mkfifo(tmp_path / "file.89abcdef.partial")  # To open it would wait for ever.
    kept = ["file.notes.partial", "file.0123abcd.partial.txt", "other.01234567.partial"]
    for name in kept:
        (tmp_path / name).write_text("a user's")
    files.write_text(path, "whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["file", "victim", *kept])
    assert victim.read_text() == "untouched"


def test_a_file_that_is_removed_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    """Another writer may take it for the rest of a dead one."""
    flock, removed = fcntl.flock, []

    def late(stream, kind):
        if kind == fcntl.LOCK_EX and not removed:
            removed.append(os.path.realpath(f"/proc/self/fd/{stream.fileno()}"))
            os.remove(removed[0])
        flock(stream, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    files.write_text(tmp_path / "file", "whole")
    assert removed and (tmp_path / "file").read_text() == "whole"
    assert os.listdir(tmp_path) == ["file"]


WRITER = """
import sys
from pathlib import Path
from jaxnets.base.files import write_text
for number in range(40):
    write_text(Path(sys.argv[1]), sys.argv[2] * 300_000)
"""


def test_readers_see_whole_files_while_two_processes_write(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "a" * 300_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, letter], cwd=ROOT) for letter in "ab"
    ]
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert len(text) == 300_000 and len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["file"]
