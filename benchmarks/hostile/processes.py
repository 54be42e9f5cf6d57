"""Hostile command lines, streams, places and folders, each met by a process of its own."""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile.damage import Rng, deep_folder, half, letters
from hostile.data import idx_samples
from hostile.flags import FLAGS, hostile_words
from hostile.launch import STREAMS
from hostile.pictures import scan_bomb, with_large_samples

ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds after which work that was asked for is stopped by Ctrl-C, and a process is killed.
PATIENCE, HANG = 15, 100

TINY = ["--model=softmax", "--epochs=1", "--batch_size=2", "--devices=1"]
SMALL = [*TINY, "--data_dir=data"]
SEARCH = [*SMALL, "--over=learning_rate=0.1,0.5", "--seeds=2"]
# Requests with little work, by what they do.
REQUESTS = {
    "train": ["train", "--workdir=new", *SMALL],
    "overwrite": ["train", "--workdir=run", "--overwrite", *SMALL],
    "resume": ["train", "--workdir=run", "--resume", "--epochs=2"],
    "pictures": ["train", "--workdir=new", "--dataset=./set", *TINY],
    "search": ["search", "--workdir=new", *SEARCH],
    "search on": ["search", "--workdir=search", "--resume", *SEARCH],
    "predict": ["predict", "run", "a.png"],
    "predict stdin": ["predict", "run", "-"],
    "summary": ["summary", "--model=softmax"],
    "gradcheck": ["gradcheck", "--model=softmax"],
    "compare": ["compare", "--workdir=new", "--models=knn", "--datasets=digits", "--curve=none"],
    "devices": ["devices"],
    "help": ["--help"],
}
ODD_NAMES = [
    "a\\b", "gs:", "gs:x", "*", "\xe9", "\udcff", "\u202e", "a b", "-x", "~", "~nobody-here", "",
    ".", "/", "/dev/null", "/dev/zero/x", "data", "run", "x" * 300, "d/" * 3000, "a\nb", "a.png",
    "a.png/x", "/proc/x", "/sys/x", "run/checkpoints", "%s", "{}", "\x1b[2J",
]  # fmt: skip
PLACES = ("run", "run/checkpoints", "search", "set/cat", "set", "data", ".")
LIMITS = [
    *((resource.RLIMIT_NOFILE, most) for most in (16, 40, 100)),
    *((resource.RLIMIT_FSIZE, most) for most in (0, 1, 5_000, 50_000)),
]


def process_samples(folder: Path) -> dict[str, Any]:
    """Sound data, pictures, a finished run and a finished search, made by the commands."""
    work = folder / "work"
    for name in ("data", "set/cat", "set/dog"):
        (work / name).mkdir(parents=True)
    for name, content in idx_samples(folder, train=24).items():
        (work / "data" / name).write_bytes(content)
    # In a process of its own: a command's ru_maxrss begins with the peak of the one that starts it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        made, large = pool.apply(with_large_samples, (folder,))
    (work / "a.png").write_bytes(made["rgb.png"])
    for label in ("cat", "dog"):
        for number in range(4):
            (work / "set" / label / f"{number}.png").write_bytes(made["grey.png"])
    most = 0.0
    for line in (["train", "--workdir=run", *SMALL], ["search", "--workdir=search", *SEARCH]):
        status, _, err, _, mb = run(line, work)
        assert status == 0, err
        most = max(most, mb)
    return {"work": work, "mb": most, "bombs": [made["progressive.jpg"], *large]}


def process_case(sample: dict[str, Any], folder: Path, rng: Rng) -> tuple[float, float]:
    """A request with something hostile; returns its seconds, and its memory in MB above a run's."""
    work, outside = folder / "work", folder.parent / "outside"
    shutil.copytree(sample["work"], work)
    kind = rng.choice(["flags", "flags", "name", "streams", "streams", "files", "files", "files"])
    request = rng.choice(sorted(REQUESTS))
    line, streams = [*REQUESTS[request]], {}
    with contextlib.ExitStack() as stack:
        if kind == "flags":
            words = hostile_words(rng, FLAGS.get(line[0], FLAGS["summary"]), rng.randint(1, 3))
            line[1:] = [*words, *line[1:]] if half(rng) else [*line[1:], *words]
        elif kind == "name":
            line = _renamed(rng, line)
        elif kind == "files":
            stack.enter_context(_malformed(rng, work, sample["bombs"]))
        if kind == "streams" or request == "predict stdin" or rng.randint(0, 5) == 0:
            streams = {number: rng.choice(STREAMS) for number in range(3) if half(rng)}
        limit = rng.choice(LIMITS) if rng.randint(0, 5) == 0 else None
        given: dict[str, Any] = {
            "streams": streams, "limit": limit, "env": _environment(rng, folder),
            "nobody": rng.randint(0, 9) == 0,
        }  # fmt: skip
        before = sorted(outside.iterdir())
        status, out, err, seconds, mb = run(line, work, **given)
    said = f"{line!r:.600} {kind} {given} status {status}, {seconds:.0f} s, {mb:.0f} MB\n"
    said += f"{out[-500:]}\n{err[-3000:]}"
    assert sorted(outside.iterdir()) == before, said
    assert status in (0, 1, 2, 128 + signal.SIGINT), said
    assert "Traceback" not in out + err, said
    for text in (out, err):
        assert text.translate({9: " ", 10: " ", 13: " "}).isprintable(), said
    is_short = limit is not None and limit[0] == resource.RLIMIT_FSIZE
    if status and streams.get(2, "endless") == "endless" and not is_short:
        # The reader of stdout that ended, such as `head`, wants no line.
        assert streams.get(1) == "broken" or "error: " in (err.splitlines() or [""])[-1], said
    if status == 0 and line[0] == "train" and kind != "flags":  # It is where it was to be.
        name = next(word for word in line if word.startswith("--workdir="))[10:]
        place = work / name if name else next((work / "runs").iterdir())
        assert list((place / "checkpoints").glob("*.safetensors")), said
    return seconds, mb - sample["mb"]


def run(
    line: list[str], work: Path, *, streams: dict[int, str] | None = None,
    limit: tuple[int, int] | None = None, env: dict[str, str] | None = None, nobody: bool = False,
) -> tuple[int, str, str, float, float]:  # fmt: skip
    """Starts a command in a folder: its status, stdout, stderr, seconds and memory in MB.

    Work that takes longer than PATIENCE is stopped by Ctrl-C.
    """
    words = [str(ROOT / "train.py")] if line[0] == "train" else ["-m", "jaxnets", line[0]]
    words += line[1:]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    if nobody:
        del env["HOME"], env["XDG_CACHE_HOME"]

    conditions = json.dumps({"streams": streams or {}, "limit": limit, "nobody": nobody})
    launch = [sys.executable, str(ROOT / "benchmarks" / "hostile" / "launch.py"), conditions]
    with open(work / "out", "w+b") as out, open(work / "err", "w+b") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            [*launch, sys.executable, *words], cwd=work, env=env,
            stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        )  # fmt: skip
        stopped = False
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            seconds = time.monotonic() - began
            if seconds > PATIENCE and not stopped:
                process.send_signal(signal.SIGINT)
                stopped = True
            if seconds > HANG:
                process.kill()
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "backslashreplace"))
    return process.returncode, *texts, time.monotonic() - began, used.ru_maxrss / 1024


def _renamed(rng: Rng, line: list[str]) -> list[str]:
    """The command line with a folder or file in it renamed."""
    name = rng.choice([*ODD_NAMES, letters(rng).replace("/", "|")])
    flags = [at for at, word in enumerate(line) if word.startswith(("--workdir=", "--data"))]
    at = rng.choice(flags) if flags else len(line) - 1
    value = f"{line[at].partition('=')[0]}={name}" if flags else name
    return [*line[:at], value, *line[at + 1 :]] if at else line


@contextlib.contextmanager
def _malformed(rng: Rng, work: Path, bombs: list[bytes]) -> Iterator[None]:
    """Something in the folders is too deep, too many, too large or not what its name says."""
    kind = rng.choice(["deep", "many", "sparse", "folder", "bomb", "bomb", "gone"])
    place = work / rng.choice(PLACES)
    with contextlib.ExitStack() as stack:
        if kind == "deep":
            depth = rng.choice([900, 1500, 3000, 5000])
            stack.enter_context(deep_folder(place / rng.choice(["d", "7.safetensors", "7"]), depth))
        elif kind == "many":
            ending = rng.choice(["", ".safetensors", ".safetensors.partial", ".png"])
            for number in range(rng.choice([1000, 20_000])):
                with contextlib.suppress(FileExistsError):
                    (place / f"{number}{ending}").mkdir()
        elif kind == "sparse":
            files = sorted(path for path in place.rglob("*") if path.is_file())
            os.truncate(rng.choice(files), rng.choice([1 << 24, 1 << 31, 1 << 40]))
        elif kind == "folder":
            names = ["7.safetensors", "config.json", "metrics.jsonl", "result.json", "search.json",
                     "checkpoints", "search.csv", "metrics.jsonl.partial", "0.png"]  # fmt: skip
            path = place / rng.choice(names)
            path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
            (path / rng.choice(["x", "."])).mkdir(parents=True)
        elif kind == "bomb":
            bomb = scan_bomb(rng, bombs[0]) if half(rng) else rng.choice(bombs)
            for path in work.rglob("*.png"):
                path.write_bytes(bomb)
        else:
            files = sorted(path for path in work.rglob("*") if path.is_file())
            for path in rng.sample(files, 3):
                path.unlink() if half(rng) else path.write_bytes(b"")
        yield


def _environment(rng: Rng, folder: Path) -> dict[str, str]:
    """Places and encodings that differ from a user's."""
    env = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder.parent / "cache")}
    if rng.randint(0, 3):
        return env
    changes: dict[str, Any] = rng.choice([
        {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "-1"},
        {"COLUMNS": "1"}, {"TERM": "dumb"}, {"PYTHONOPTIMIZE": "2"},
        {"XDG_CACHE_HOME": "/dev/null"},
        {"XDG_CACHE_HOME": ""}, {"HOME": "/dev/null"}, {"TMPDIR": "/nowhere"},
        {"NO_COLOR": "1"}, {"XDG_CACHE_HOME": "", "HOME": "relative"},
    ])  # fmt: skip
    return env | changes
