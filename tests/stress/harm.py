"""Commands under harm: `python` starts one, and this file, as a script, does it the harm.

harm.py JSON PROGRAM [ARGUMENT ...]    as `python PROGRAM [ARGUMENT ...]`, but harmed
"""

import ctypes
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 54321  # A user who is in no list, and has no home.
CLONE_NEWUSER = 0x10000000
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class Ended(NamedTuple):
    """How a process ended, and what it took."""

    status: int
    out: str
    err: str
    seconds: float
    peak_mb: float


def python(
    *command: Any, cwd: Path = ROOT, env: dict[str, str] | None = None,
    interrupt_after: float | None = None, hang: float = 600, **harm: Any,
) -> Ended:  # fmt: skip
    """Runs Python with a command to its end.

    Args:
      command: What follows `python`.
      cwd: Its folder.
      env: All of its environment.
      interrupt_after: The seconds after which it gets Ctrl-C.
      hang: The seconds after which it is killed.
      harm: `endless`: whether its stdin has no end. `limit`: a resource and how much of it.
        `nobody`: whether the user is unknown. `kill`: before which change of a file below which
        folder it is killed, and so many seconds later.
    """
    words = [str(Path(__file__).resolve()), json.dumps(harm)] if harm else []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *words, *map(str, command)],
            cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            seconds = time.monotonic() - began
            if pid:
                break
            if interrupt_after is not None and seconds >= interrupt_after:
                process.send_signal(signal.SIGINT)
                interrupt_after = None
            if seconds > hang:
                process.kill()
            time.sleep(0.005)
        process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has taken it from Popen.
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "backslashreplace"))
    return Ended(process.returncode, texts[0], texts[1], seconds, used.ru_maxrss / 1024)


def kill_at(folder: str, change: int, delay: float) -> None:
    """Kills this process before a change below a folder, or so many seconds after it."""
    lock = threading.Lock()

    def heard(event: str, arguments: Any) -> None:
        nonlocal change
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(folder):
            with lock:
                change -= 1
                if change == 0 and not delay:
                    os.kill(os.getpid(), signal.SIGKILL)
                if change == 0:
                    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(heard)


def become_nobody() -> None:
    """Becomes a user without a name, where the system allows that; files stay within reach."""
    user = os.geteuid()
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0:
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")


def main(harm: dict[str, Any], command: list[str]) -> None:
    """Does the harm, and becomes the command."""
    if harm.get("nobody"):
        become_nobody()
    if limit := harm.get("limit"):
        kind, most = limit
        resource.setrlimit(kind, (most, most))
    if harm.get("endless"):
        os.dup2(os.open("/dev/zero", os.O_RDONLY), 0)
    if "kill" not in harm:
        os.execv(sys.executable, [sys.executable, *command])
    kill_at(**harm["kill"])
    sys.path[0] = os.getcwd()
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
