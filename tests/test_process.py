"""A command's process before it trains: what a signal does to it, and streams that are closed.

A process sends the signals itself, at moments that the code chooses: a slow machine is never too
late. Random moments: tests/stress/test_signals.py.
"""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, read_json

LINE = "error: interrupted\n"
# It runs train.py or `jaxnets` as a user's shell does, and lays a trap before.
RUN = """
import os, runpy, signal, sys
def interrupt(*_):
    signal.raise_signal(signal.{number})
class Trap:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {trap}
{now}
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    sys.path.insert(0, os.getcwd())
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
TRAIN = ("train.py", "--model=softmax", "--limit=500", "--epochs=1")


@pytest.fixture
def run_trapped(run_python, tmp_path):
    """Runs a command that comes to a trap when it imports a module."""

    def run(*command, module, trap="interrupt()", number="SIGINT"):
        now = "sys.meta_path.insert(0, Trap())"
        code = RUN.format(number=number, module=module, trap=trap, now=now)
        if command[0] == "train.py":
            command += (f"--workdir={tmp_path / 'run'}",)
        return run_python("-c", code, *command)

    return run


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", [TRAIN, ("jaxnets", "gradcheck", "--model=softmax")])
def test_a_signal_while_modules_are_loaded_ends_it_in_one_line(command, number, run_trapped):
    for module in ("jaxnets.base.errors", "numpy"):
        ended = run_trapped(*command, module=module, number=number)
        assert ended == (128 + getattr(signal, number), "", LINE)


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(run_trapped, tmp_path):
    """JAX has one, and Python drops what is raised there."""
    collect = "import gc; gc.callbacks.append(interrupt); gc.collect()"
    ended = run_trapped(*TRAIN, module="jaxnets.runs.run", trap=collect)
    assert ended == (130, "", LINE)
    assert not (tmp_path / "run").exists()


def test_a_signal_ends_it_while_its_main_thread_computes(run_trapped):
    """Python's own handlers would wait for that thread, here for ever."""
    trap = """
            import ctypes, threading
            mutex, lock = ctypes.create_string_buffer(256), ctypes.CDLL(None).pthread_mutex_lock
            lock(mutex)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            lock(mutex)
"""
    assert run_trapped(*TRAIN, module="numpy", trap=trap) == (130, "", LINE)


def test_a_signal_that_is_ignored_stays_ignored(run_trapped):
    """As a shell's script starts a command in the background, and as nohup does."""
    for number in ("SIGINT", "SIGHUP"):
        code = RUN.format(
            number=number,
            module="numpy",
            trap="interrupt()",
            now=f"signal.signal(signal.{number}, signal.SIG_IGN); sys.meta_path.insert(0, Trap())",
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "jaxnets", "summary", "--model=softmax"],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), number


WRITES = """
import signal, sys, threading
from pathlib import Path
from jaxnets.base import process
process.begin()
from jaxnets.base.errors import before_end, on_interrupt
from jaxnets.base.files import replacing
from jaxnets.base.language import Text

def fails():
    raise ValueError

with on_interrupt(Text("kept: {}", "all")), before_end(fails), replacing(Path("file")) as stream:
    stream.write(b"half")
    stream.flush()
    signal.raise_signal(signal.SIGINT)
"""


def test_a_half_file_goes_and_the_line_says_what_is_kept(tmp_path, run_python):
    (tmp_path / "file").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", WRITES], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted; kept: all\n")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_importing_the_package_changes_no_handler():
    code = """
import signal, threading
numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
before = list(map(signal.getsignal, numbers))
import jaxnets, jaxnets.__main__, jaxnets.cli.start, train
jaxnets.Network
assert list(map(signal.getsignal, numbers)) == before
assert signal.set_wakeup_fd(-1) == -1
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Too little memory

THREAD = """
import resource, sys, threading
from jaxnets.cli.start import run_main

def main(arguments):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))  # A thread's stack has 8 MB.
    threading.Thread(target=print).start()
    return 0

sys.exit(run_main(main))
"""


def test_no_memory_for_a_thread_is_one_line(run_python):
    line = "error: not enough memory: can't start new thread\n"
    assert run_python("-c", THREAD) == (1, "", line)


# Streams that are closed


def closed(command, redirection):
    line = f'exec "$0" "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", line, sys.executable, *command], cwd=ROOT, capture_output=True, text=True
    )


def test_without_a_stdout_a_run_is_trained_to_its_end(tmp_path, tiny_flags):
    flags = [flag for flag in tiny_flags if "workdir" not in flag]
    for redirection in (">&-", "<&- >&- 2>&-"):
        run = tmp_path / f"run{len(redirection)}"
        done = closed(["train.py", "--model=softmax", *flags, f"--workdir={run}"], redirection)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert read_json(run / "result.json")["epochs"] == 2
        # No file of the run has taken the place of a stream.
        assert (run / "metrics.jsonl").read_text().count("\n") == 2


def test_without_a_stderr_an_errors_line_goes_nowhere():
    done = closed(["-m", "jaxnets", "no_such_command"], "2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
