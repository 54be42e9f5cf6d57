"""What can be seen of Windows from here: missing modules and signals, other files and encodings."""

import ast
import errno
import functools
import io
import os
import signal
import sys
from collections import Counter

import pytest
from conftest import DENSE_BACKWARD, ROOT, read_json, records

from jaxnets.abtest.log import read_csv
from jaxnets.base import display, files
from jaxnets.base.display import command_line
from jaxnets.base.errors import UserError
from jaxnets.data.pictures import folder
from jaxnets.machine import distributed
from jaxnets.tune import backends

fcntl = pytest.importorskip("fcntl", reason="this is Windows itself")

PACKAGE = ROOT / "jaxnets"
# What Windows lacks; the standard library's pages say "Availability: Unix".
MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
NAMES = {
    "os": {
        *("chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getuid"),
        *("killpg", "mkfifo", "nice", "openpty", "sched_getaffinity", "setgroups", "setsid"),
        *("setresgid", "setresuid", "statvfs", "sync", "sysconf", "uname", "wait4"),
        *("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC"),
    },
    "signal": {
        *("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGCHLD"),
        *("alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
    "time": {"tzset"},
}
# Each has its way on Windows, in an `if`, or a refusal before it.
GUARDED = {
    "base/files.py": {"fcntl"},
    "base/system.py": {"sched_getaffinity"},
    "course/exercises/child.py": {"resource", "setgroups", "setresgid", "setresuid"},
    "course/exercises/sandbox.py": {"getuid"},
    "tune/backends.py": {"pthread_sigmask"},
}


@functools.cache
def sources() -> dict[str, ast.Module]:
    """The package's files, parsed: not when tests are collected, which every worker does."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in PACKAGE.rglob("*.py")
    }


def of_unix(tree: ast.AST) -> set[str]:
    """The modules and names of Unix in a file."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= MODULES & {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= MODULES & {module}
                found |= NAMES.get(module, set()) & {alias.name for alias in names}
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                found |= NAMES.get(module, set()) & {name}
    return found


def test_what_windows_lacks_is_used_only_where_it_has_another_way():
    found = {name: names for name, tree in sources().items() if (names := of_unix(tree))}
    assert found == GUARDED
    assert of_unix(ast.parse("import pwd\nfrom signal import alarm\nos.fork()")) == {
        *("pwd", "alarm", "fork")
    }


def without_encoding(tree: ast.AST) -> list[str]:
    """The calls that read or write text in the encoding of the system."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="read_text"), args=[]):
                pass
            case ast.Call(func=ast.Attribute(attr="write_text"), args=[_]):
                pass
            case (
                ast.Call(func=ast.Name(id="open"))
                | ast.Call(
                    func=ast.Attribute(attr="open"),
                    args=[ast.Constant(value="r" | "w" | "a" | "x")],
                )
            ):
                if any(isinstance(x, ast.Constant) and "b" in str(x.value) for x in node.args):
                    continue
            case _:
                continue
        if "encoding" not in {keyword.arg for keyword in node.keywords}:
            found.append(ast.unparse(node))
    return found


def test_no_file_is_read_or_written_in_the_encoding_of_the_system():
    assert {
        name: found for name, tree in sources().items() if (found := without_encoding(tree))
    } == {}
    wrong = "open(file); open(file, 'w'); path.open('a'); path.read_text(); path.write_text(x)"
    right = (
        "open(file, 'rb'); open(file, encoding='utf-8'); path.open('ab'); path.read_text('utf-8')"
    )
    assert len(without_encoding(ast.parse(wrong))) == 5 and not without_encoding(ast.parse(right))


@pytest.fixture
def on_windows(monkeypatch):
    """A Windows as far as a run sees it: no locks, signals or masks, and its ways with files."""

    def sync(file: int, fsync=os.fsync) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(file)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for module in (files, display):
        monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr("jaxnets.runs.stopping.HANG_UP", None)


def test_a_run_trains_and_resumes_without_what_windows_lacks(on_windows, train_tiny, tmp_path):
    outcome = train_tiny("softmax")
    warning = "warning: this platform has no fcntl: nothing keeps a second process out of "
    assert (outcome.status, outcome.err) == (0, f"{warning}{tmp_path / 'run'}\n")
    assert train_tiny("softmax", "--resume", "--epochs=3").status == 0
    assert len(records(tmp_path / "run")) == 3 and read_json(tmp_path / "run/result.json")


def test_a_process_of_a_search_starts_where_no_signal_can_be_blocked(on_windows):
    with backends._interrupts_blocked():
        assert not hasattr(signal, "pthread_sigmask")


def test_a_command_is_quoted_for_the_shells_of_windows(on_windows):
    words = [r".venv\Scripts\jaxnets.exe", "report", r"C:\my runs\cnn"]
    assert command_line(words) == r'.venv\Scripts\jaxnets.exe report "C:\my runs\cnn"'


def test_a_folder_of_pictures_is_split_alike_on_every_system(monkeypatch, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / r"one\1.png").touch()  # As Windows joins a folder and a name.
    monkeypatch.setattr(os, "sep", "\\")
    assert list(folder._files(tmp_path / "cat", tmp_path, Counter())) == [b"cat/one/1.png"]


def test_several_processes_are_refused_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="expected Linux or macOS"):
        distributed.connected("127.0.0.1:1", 2, 1).__enter__()


def in_notepad(text: str) -> bytes:
    """A text as Windows' editor saves it."""
    return b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()


def test_what_users_write_may_be_saved_by_notepad(
    tmp_path, run_command, train_tiny, judge_in_float64
):
    def saved(name: str, text: str):
        (tmp_path / name).write_bytes(in_notepad(text))
        return tmp_path / name

    config = saved("my.toml", "epochs = 1\nseed = 7\n")
    assert train_tiny("softmax", f"--config={config}").status == 0
    assert read_json(tmp_path / "run/config.json")["seed"] == 7
    answers = read_csv(saved("log.csv", "arm,correct\nA,1\nB,0\n"))
    assert [(answer.arm, answer.correct) for answer in answers] == [("A", True), ("B", False)]
    ticks = saved("exercises-passed.txt", "relu\n")
    outcome = run_command("exercise", "check", saved("my_dense.py", DENSE_BACKWARD))
    assert (outcome.status, outcome.out) == (0, "dense_backward: passed\n")
    assert {"relu", "dense"} <= set(ticks.read_text("utf-8").split())


def test_a_console_that_lacks_characters_gets_their_numbers(monkeypatch, run_command, tmp_path):
    (tmp_path / "exercises-passed.txt").write_text("relu\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    console = functools.partial(io.TextIOWrapper, encoding="cp1252")
    for words in (["exercise"], ["exercise", "--language=zh"], ["--help", "--language=zh"]):
        monkeypatch.setattr(sys, "stdout", console(io.BytesIO()))
        assert run_command(*words).status == 0
