"""How sound files are damaged, and what no damage may bring about."""

import contextlib
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxnets.base.errors import DONE, run_main

Rng = random.Random  # Or what Hypothesis draws in its place, whose cases shrink.


class Escape(AssertionError):
    """A case did what no file may make us do."""


ALLOWED: list[str] = []  # Where the code under test may write.
_watching = False  # Whether it is at work.
NEVER = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
         "socket.connect", "ctypes.dlopen")  # fmt: skip
WRITES = ("os.truncate", "os.chmod", "os.utime")
# What these do is done to the name itself: where it is a link, the link and not what it leads to.
NAMES = ("os.mkdir", "os.remove", "os.rmdir")
MOVES = ("os.rename", "os.link", "os.symlink")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python calls it before it opens, moves or removes anything."""
    if not _watching:
        return
    if event in NEVER:
        raise Escape(f"{event} {arguments!r:.200}")
    paths: tuple[Any, ...] = ()
    if event in (*WRITES, *NAMES):
        paths = arguments[:1]
    elif event in MOVES:
        paths = arguments[:2]
    elif event == "open":
        path, mode, flags = arguments
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes or set(mode or "") & set("wax+"):
            paths = (path,)
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            path = os.fsdecode(path)
            parent, name = os.path.split(path)
            if event in (*NAMES, *MOVES) and name not in ("", ".", ".."):
                real = os.path.join(os.path.realpath(parent), name)
            else:
                real = os.path.realpath(path)
            if not real.startswith((*ALLOWED, "/dev/null")):
                raise Escape(f"{event} of {real}")


def guard(allowed: list[Path]) -> None:
    """Lets the code under test write in these places alone."""
    if not ALLOWED:  # A hook stays to the process's end.
        sys.addaudithook(watch)
    ALLOWED[:] = map(os.path.realpath, allowed)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While it lasts, what it never may do is an Escape."""
    global _watching
    _watching = True
    try:
        yield
    finally:
        _watching = False


def status_of(main: Callable[[], Any]) -> int:
    """Calls main as the command line does; what it prints must be safe for a terminal."""
    out, err = io.StringIO(), io.StringIO()

    def call(_) -> int:
        try:
            main()
        except SystemExit as done:  # --help
            return int(done.code or 0)
        return DONE

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), watched():
        status = run_main(call)
    for text in (out.getvalue(), err.getvalue()):
        assert text.replace("\n", "").replace("\t", "").isprintable(), f"{text!r:.500}"
        assert "Traceback" not in text, text[:2000]
    if status:
        last = err.getvalue().splitlines()[-1:]
        assert last and last[0].startswith("error: "), err.getvalue()[:500]
    return status


# How a file is damaged

NUMBERS = [
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1,
]  # fmt: skip
WIDTHS = [struct.Struct(form) for form in ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")]
KINDS = ("flip", "set", "number", "cut", "drop", "repeat", "insert", "splice")


def half(rng: Rng) -> bool:
    """True or False."""
    return rng.randint(0, 1) == 1


def damage(rng: Rng, content: bytes, other: bytes = b"") -> bytes:
    """A few changes: flipped bits, extreme numbers, bytes lost, repeated or of another file."""
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice(KINDS)
        # Headers are at the front, and are what is read first.
        front = half(rng)
        at = rng.randint(0, max(0, (min(len(content), 96) if front else len(content)) - 1))
        length = rng.randint(1, 64)
        if kind == "flip" and content:
            changed = bytes([content[at] ^ (1 << rng.randint(0, 7))])
            content = content[:at] + changed + content[at + 1 :]
        elif kind == "set":
            new = rng.randbytes(rng.randint(1, 8))
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "number":
            form = rng.choice(WIDTHS)
            number = rng.choice(NUMBERS) & (2 ** (8 * form.size) - 1)
            content = content[:at] + form.pack(number) + content[at + form.size :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + length :]
        elif kind == "repeat":
            times = rng.randint(2, 50)
            content = content[:at] + content[at : at + length] * times + content[at + length :]
        elif kind == "insert":
            content = content[:at] + rng.randbytes(rng.randint(0, 32)) + content[at:]
        elif kind == "splice":
            content = content[:at] + other[at:]
    return content


TEXTS = [
    "", "\x1b[2J\x1b]0;title\x07", "a\nb\r\tc", "\u202e", "\ud800", "../../outside/victim",
    "/etc/passwd", "\x00", "~", "~nobody-here/x", "x" * 5000, "mnist",
    "cnn", "0", "-1", "NaN", "1e400", "9" * 400,
    "\u0663", "%s%n", "{0.__class__}", "$(touch x)",
]  # fmt: skip
SCALARS = [
    None, True, False, -1, 0, 1, 2, 10, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308, 5e-324,
    float("nan"), float("inf"), *TEXTS,
]  # fmt: skip


def value_of(rng: Rng, depth: int = 2) -> Any:
    """Anything that JSON knows, and some that it does not."""
    kind = rng.randint(0, 7) if depth else 0
    if kind == 1:
        return [value_of(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    if kind == 2:
        return {rng.choice(TEXTS): value_of(rng, depth - 1) for _ in range(rng.randint(0, 4))}
    if kind == 3:
        return rng.choice([rng.randint(-5, 70), rng.random(), letters(rng)])
    return rng.choice(SCALARS)


def letters(rng: Rng) -> str:
    """A few characters out of all of Unicode."""
    return "".join(chr(rng.choice([rng.randint(1, 127), rng.randint(1, 0xD7FF)])) for _ in range(4))


@contextlib.contextmanager
def deep_folder(path: Path, depth: int) -> Iterator[None]:
    """Folders in folders below a path for a block, beyond the length that a path may have."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mkdir", "-p", "d/" * depth], cwd=path, check=True)
    try:
        yield
    finally:  # shutil.rmtree recurses.
        subprocess.run(["rm", "-rf", path], check=True)


def damage_json(rng: Rng, value: Any) -> bytes:
    """A JSON document of another structure, or a text that hardly is one."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        holder, key = _place(rng, value)
        if holder is None:
            value = value_of(rng)
        elif rng.randint(0, 4) == 0:
            del holder[key]
        else:
            holder[key] = value_of(rng)
    text = json.dumps(value)
    kind = rng.choice(["as it is"] * 6 + ["deep", "twice", "long", "bytes", "many"])
    if kind == "deep":
        depth = rng.choice([100, 900, 960, 990, 1200, 100_000])
        inner = "[" * depth + "]" * depth if half(rng) else '{"a":' * depth + "1" + "}" * depth
        text = re.sub(r"(?<=: )[^,{}\[\]]+", lambda _: inner, text, count=rng.randint(1, 2))
    elif kind == "twice":
        text = text.replace("{", '{"model": 1, "step": "x", ', 1) + rng.choice(["", text])
    elif kind == "long":
        text = re.sub(r"(?<=: )[^,{}\[\]]+", '"' + "y" * 100_000 + '"', text, count=1)
    elif kind == "many":
        text = re.sub(r"(?<=: )(\[[^\[\]]*\]|null)", json.dumps([1] * 20_000), text, count=2)
    content = text.encode("utf-8", "surrogatepass")
    return damage(rng, content, content) if kind == "bytes" else content


def _place(rng: Rng, value: Any) -> tuple[Any, Any]:
    """A container somewhere in a document, and a key of it; None for the document itself."""
    holder, key = None, None
    while isinstance(value, dict | list) and value and rng.randint(0, 5):
        holder = value
        key = rng.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
        value = value[key]
    return holder, key
