"""Ctrl-C at random moments of a command's process, at a terminal and in a pipe.

`pytest -m stress tests/stress/test_signals.py --cases=25` sends two hundred; `--seed` chooses the
moments. Each is between the first line of the process and most of the time that it took alone.
Before that line Python starts: a signal then is Python's.
"""

import contextlib
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import DENSE_BACKWARD, HANGS, ROOT, history, params_sha256

pytestmark = pytest.mark.stress

SCRIPT = Path(sys.executable).with_name("jaxnets")
FLAGS = "--model=softmax --data_dir={idx} --validation_size=40 --batch_size=32"
SEARCH = f"search {FLAGS} --over=augment=none,shift --seeds=2 --epochs=30 --workdir={{run}}"
COMMANDS = {
    "train.py": f"{sys.executable} train.py {FLAGS} --epochs=2000 --workdir={{run}}",
    "train": f"{SCRIPT} train {FLAGS} --epochs=2000 --gradients=manual --workdir={{run}}",
    "search": f"{SCRIPT} {SEARCH}",
    "search of 2": f"{sys.executable} -m jaxnets {SEARCH} --processes=2",
    "check": f"{SCRIPT} exercise check {{folder}}/dense.py",
    "gradcheck": f"{SCRIPT} gradcheck --model=softmax",
    "report": f"{SCRIPT} report {{trained}} --output={{folder}}/report.html",
    "export": f"{SCRIPT} export {{trained}} --output={{folder}}/weights.safetensors",
}
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Ended(NamedTuple):
    """How a process ended: a terminal's text has no stdout of its own."""

    status: int
    out: str
    err: str
    sent: bool  # Whether it still ran when the signal's time came.
    seconds: float  # From the signal, or from the start without one, to the end.


def has_begun(pid: int) -> bool:
    """Whether a process has come to its first line: from then on it handles SIGTERM."""
    found = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(found and int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def run(command: str, at_terminal: bool, mark: str, moment: float | None = None) -> Ended:
    """Runs a command; so many seconds after its first line it gets Ctrl-C."""
    environment = {**os.environ, "SIGNALLED": mark, "LANG": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    if at_terminal:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 200))  # A terminal without a size shows no bars.
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    else:
        ours, theirs = os.pipe()
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
    process = subprocess.Popen(
        shlex.split(command), cwd=ROOT, env=environment, start_new_session=True, **pipes
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    began, sent, text, out = time.monotonic(), False, b"", b""
    if process.stdout:
        os.set_blocking(process.stdout.fileno(), False)
    first: float | None = None
    while True:
        ended = process.poll() is not None
        with contextlib.suppress(BlockingIOError, OSError):
            while piece := os.read(ours, 1 << 16):
                text += piece
        if process.stdout:
            out += process.stdout.read() or b""
        if ended:
            break
        with contextlib.suppress(FileNotFoundError):
            if first is None and has_begun(process.pid):
                first = time.monotonic()
        now = time.monotonic()
        if moment is not None and not sent and first is not None and now >= first + moment:
            os.kill(process.pid, signal.SIGINT)
            began, sent = time.monotonic(), True
        assert now < began + HANGS, (command, text)
        time.sleep(0.002)
    seconds = time.monotonic() - began
    os.close(ours)
    if process.stdout:
        process.stdout.close()
    err = ESCAPES.sub("", text.decode()).replace("\r\n", "\n")
    return Ended(process.returncode, out.decode(), err, sent, seconds)


def left_behind(mark: str) -> list[str]:
    """The processes that a command has started, and that outlive it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"SIGNALLED={mark}".encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def result_of(name: str, folder: Path) -> object:
    """What a command that can be resumed leaves."""
    place = folder / "run"
    if name.startswith("train"):
        return params_sha256(place), history(place)
    return {path.name: path.read_text() for path in place.glob("search.[jc]*")}


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """By a command's name, the seconds that it takes, and what it leaves."""
    return {}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_folder):
    """A trained network."""
    place = tmp_path_factory.mktemp("trained") / "run"
    command = f"{COMMANDS['train.py']}".format(idx=tiny_folder, run=place)
    ended = run(command, False, "trained")
    assert ended.status == 0, ended
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_at_any_moment_ctrl_c_is_one_line_and_nothing_is_lost(
    name, whole, trained, tiny_folder, tmp_path, request, capsys
):
    wanted = request.config.getoption("cases") or 3
    rng = random.Random(f"{request.config.getoption('seed')} {name}")
    slowest = finished = resumed = 0
    for number in range(-1, wanted):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "dense.py").write_text(DENSE_BACKWARD)
        values = dict(idx=tiny_folder, run=folder / "run", trained=trained, folder=folder)
        command, mark = COMMANDS[name].format(**values), uuid.uuid4().hex
        resumable = name.startswith(("train", "search"))
        if number < 0:  # Alone.
            alone = run(command, False, mark)
            assert alone.status == 0, alone
            expected = result_of(name, folder) if resumable else None
            continue
        at_terminal = rng.random() < 0.5
        ended = run(command, at_terminal, mark, rng.uniform(0, 0.8 * alone.seconds))
        about = name, number, at_terminal, ended
        if ended.sent and ended.status == 130:
            slowest = max(slowest, ended.seconds)
            assert ended.err.count("error: interrupted") == 1, about
            if not at_terminal:
                *_, last = ended.err.splitlines()
                assert last.startswith("error: interrupted"), about
            assert not re.search("Traceback|Error:|Exception ignored", ended.err), about
        else:  # All was done.
            assert ended.status == 0 and "interrupted" not in ended.err, about
            finished += 1
        until = time.monotonic() + HANGS
        while (others := left_behind(mark)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not others, about
        assert not list(folder.rglob("*.partial")), about
        if resumable and ended.status == 130 and "--resume" in ended.err:
            again = run(f"{command} --resume", False, mark)
            assert again.status == 0, (about, again)
            assert result_of(name, folder) == expected, about
            resumed += 1
    with capsys.disabled():
        print(
            f"\n{name}: {wanted} signals, {finished} after its end, {resumed} resumed; "
            f"the slowest end took {slowest:.2f} s"
        )
