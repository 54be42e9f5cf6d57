"""Starts a command with hostile streams, limits and user: launch.py JSON PROGRAM [ARGUMENT ...]."""

import ctypes
import json
import os
import resource
import sys
from pathlib import Path

NOBODY = 54321  # A user who is in no list, and has no home.
CLONE_NEWUSER = 0x10000000
STREAMS = ("closed", "full", "broken", "reversed", "endless")


def redirect(number: int, kind: str) -> None:
    """Gives a standard stream a hostile end."""
    if kind == "closed":
        os.close(number)
        return
    if kind == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)
        os.close(writer)
        return
    if kind == "endless" and number:
        return  # Only stdin is read.
    path, mode = {
        "full": ("/dev/full", os.O_RDWR), "endless": ("/dev/zero", os.O_RDONLY),
        "reversed": ("/dev/null", os.O_RDONLY if number else os.O_WRONLY),
    }[kind]  # fmt: skip
    opened = os.open(path, mode)
    os.dup2(opened, number)
    if opened != number:
        os.close(opened)


def become_nobody() -> None:
    """Becomes a user without a name, where the system allows that; files stay within reach."""
    user = os.geteuid()
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0:
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if asked["nobody"]:
        become_nobody()
    if asked["limit"]:
        kind, most = asked["limit"]
        resource.setrlimit(kind, (most, most))
    for number, kind in asked["streams"].items():
        redirect(int(number), kind)
    os.execv(sys.argv[2], sys.argv[2:])
