"""Hostile command lines, in a process of their own."""

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_flags import FLAGS
from damage import Rng, deep_folder, half, letters
from harm import ROOT, Ended, python
from surfaces import idx_samples, large_pictures, picture_samples, scan_bomb

WORDS = [
    "cnn", "mlp", "softmax", "alexnet", "mlp_handwritten", "1", "0", "-1", "1e9", "64,32", "all",
    "full", "none", "hidden=100,200", "learning_rate=0.1,x", "auto", "adam", "\udc80", "--", "-",
    "=", "x" * 20_000, "28,28,1", "paper", "\x1b[2J", "%", "true", "digit", "crop,flip",
    "10minutes", "", " ", "\n", "--epochs=3--seed=1", "--seed=1 --epochs=1", "\u202e", "knn",
    "plateau", "paper", "both", "manual", "float64", "bfloat16", "127.0.0.1:0", "[::1]:99999",
    "9" * 400, "9" * 5000, "inf", "-inf", "nan", "-0", "1e400", "1e-400", "0x10", "1_000",
    "\u0663", *(str(sign * 2**bits) for bits in (31, 53, 63, 64, 128) for sign in (1, -1)),
    f"{2**63},1,1", "10000,10000,10000", "1,1,1", "1000000",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "/", ".", "..", "/proc/x", "~",
    "~nobody-here/x", "/etc/passwd", "a\\b", "gs:x", "*", "x" * 300, "/proc/self/mem",
]  # fmt: skip


def hostile_words(rng: Rng, flags: list[str], count: int) -> list[str]:
    """So many flags with values that they do not expect: joined, apart, doubled, misspelt."""
    words: list[str] = []
    for _ in range(count):
        flag = rng.choice(flags)
        if rng.randint(0, 9) == 0:
            changes = [flag.replace("--", "--no_"), flag[:-1], flag.replace("_", "-"), flag.upper(),
                       flag[1:], flag[2:]]  # fmt: skip
            flag = rng.choice(changes)
        kind = rng.choice(["both", "both", "flag", "word", "apart", "twice", "joined"])
        word = rng.choice([*WORDS, letters(rng).replace("/", "|")])
        words += {
            "both": [f"{flag}={word}"],
            "flag": [flag],
            "word": [word],
            "apart": [flag, word],
            "twice": [f"{flag}={word}", f"{flag}={rng.choice(WORDS)}"],
            "joined": [f"{flag}{word}{rng.choice(flags)}={word}"],
        }[kind]
    return words


# As processes: files, flags, streams, places, limits and users

PATIENCE = 15  # Seconds after which work that was asked for is stopped by Ctrl-C.
TINY = ["--model=softmax", "--epochs=1", "--batch_size=2", "--devices=1"]
SMALL = [*TINY, "--data_dir=data"]
SEARCH = [*SMALL, "--over=learning_rate=0.1,0.5", "--seeds=2"]
REQUESTS = {  # With little work, by what they do.
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
    "help": ["--help"],
}
ODD_NAMES = [
    "a\\b", "gs:", "gs:x", "*", "\xe9", "\udcff", "\u202e", "a b", "-x", "~", "~nobody-here", "",
    ".", "/", "/dev/null", "/dev/zero/x", "data", "run", "x" * 300, "d/" * 3000, "a\nb", "a.png",
    "a.png/x", "/proc/x", "/sys/x", "run/checkpoints", "%s", "{}", "\x1b[2J",
]  # fmt: skip
PLACES = ("run", "run/checkpoints", "search", "set/cat", "set", "data", ".")
FILES = ["7.safetensors", "config.json", "metrics.jsonl", "result.json", "search.json",
         "checkpoints", "search.csv", "metrics.jsonl.partial", "0.png"]  # fmt: skip
LIMITS = [
    *((resource.RLIMIT_NOFILE, most) for most in (16, 40, 100)),
    *((resource.RLIMIT_FSIZE, most) for most in (0, 1, 5_000, 50_000)),
]
ENVIRONMENTS: list[dict[str, str]] = [
    {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "-1"},
    {"COLUMNS": "1"}, {"TERM": "dumb"}, {"PYTHONOPTIMIZE": "2"}, {"XDG_CACHE_HOME": "/dev/null"},
    {"XDG_CACHE_HOME": ""}, {"HOME": "/dev/null"}, {"TMPDIR": "/nowhere"}, {"NO_COLOR": "1"},
    {"XDG_CACHE_HOME": "", "HOME": "relative"},
]  # fmt: skip


def start(line: list[str], work: Path, changes: dict[str, str | None], **harm: Any) -> Ended:
    """Runs a command in a folder under harm, with changes of the environment."""
    words = [ROOT / "train.py"] if line[0] == "train" else ["-m", "jaxnets", line[0]]
    changed = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    env = {name: value for name, value in changed.items() if value is not None}
    return python(*words, *line[1:], cwd=work, env=env, **harm)


def process_samples(folder: Path) -> dict[str, Any]:
    """Sound data, pictures, a finished run and a finished search, made by the commands."""
    work = folder / "work"
    for name in ("data", "set/cat", "set/dog"):
        (work / name).mkdir(parents=True)
    for name, content in idx_samples(folder, train=24).items():
        (work / "data" / name).write_bytes(content)
    made = picture_samples(folder)
    (work / "a.png").write_bytes(made["rgb.png"])
    for label in ("cat", "dog"):
        for number in range(4):
            (work / "set" / label / f"{number}.png").write_bytes(made["grey.png"])
    most = 0.0
    for line in (["train", "--workdir=run", *SMALL], ["search", "--workdir=search", *SEARCH]):
        ended = start(line, work, {})
        assert ended.status == 0, ended
        most = max(most, ended.peak_mb)
    return {"work": work, "mb": most, "progressive": made["progressive.jpg"]}


def process_case(sample: dict[str, Any], folder: Path, rng: Rng) -> tuple[float, float]:
    """A request with something hostile; returns its seconds, and its memory in MB above a run's."""
    work, outside = folder / "work", folder.parent / "outside"
    shutil.copytree(sample["work"], work)
    kind = rng.choice(["flags", "flags", "name", "files", "files", "files"])
    request = rng.choice(sorted(REQUESTS))
    line, harm = [*REQUESTS[request]], {}
    with contextlib.ExitStack() as stack:
        if kind == "flags":
            words = hostile_words(rng, FLAGS.get(line[0], FLAGS["summary"]), rng.randint(1, 3))
            line[1:] = [*words, *line[1:]] if half(rng) else [*line[1:], *words]
        elif kind == "name":
            line = _renamed(rng, line)
        elif kind == "files":
            stack.enter_context(_malformed(rng, work, sample["progressive"]))
        if request == "predict stdin":
            harm["endless"] = half(rng)
        if rng.randint(0, 5) == 0:
            harm["limit"] = rng.choice(LIMITS)
        env: dict[str, str | None] = {
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder.parent / "cache"),
        }
        if rng.randint(0, 3) == 0:
            env |= rng.choice(ENVIRONMENTS)
        if rng.randint(0, 9) == 0:
            harm["nobody"], env = True, dict.fromkeys(env)
        before = sorted(outside.iterdir())
        status, out, err, seconds, mb = start(line, work, env, interrupt_after=PATIENCE, **harm)
    said = f"{line!r:.600} {kind} {harm} {env} status {status}, {seconds:.0f} s, {mb:.0f} MB\n"
    said += f"{out[-500:]}\n{err[-3000:]}"
    assert sorted(outside.iterdir()) == before, said
    assert status in (0, 1, 2, 128 + signal.SIGINT), said
    assert "Traceback" not in out + err, said
    for text in (out, err):
        assert text.translate({9: " ", 10: " ", 13: " "}).isprintable(), said
    is_short = harm.get("limit", (None,))[0] == resource.RLIMIT_FSIZE
    if status and not is_short:
        assert "error: " in (err.splitlines() or [""])[-1], said
    if status == 0 and line[0] == "train" and kind != "flags":  # It is where it was to be.
        name = next(word for word in line if word.startswith("--workdir="))[10:]
        place = work / name if name else next((work / "runs").iterdir())
        assert list((place / "checkpoints").glob("*.safetensors")), said
    return seconds, mb - sample["mb"]


def _renamed(rng: Rng, line: list[str]) -> list[str]:
    """The command line with a folder or file in it renamed."""
    name = rng.choice([*ODD_NAMES, letters(rng).replace("/", "|")])
    flags = [at for at, word in enumerate(line) if word.startswith(("--workdir=", "--data"))]
    at = rng.choice(flags) if flags else len(line) - 1
    value = f"{line[at].partition('=')[0]}={name}" if flags else name
    return [*line[:at], value, *line[at + 1 :]] if at else line


@contextlib.contextmanager
def _malformed(rng: Rng, work: Path, progressive: bytes) -> Iterator[None]:
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
            path = place / rng.choice(FILES)
            path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
            (path / rng.choice(["x", "."])).mkdir(parents=True)
        elif kind == "bomb":
            bomb = scan_bomb(rng, progressive) if half(rng) else rng.choice(large_pictures())
            for path in work.rglob("*.png"):
                path.write_bytes(bomb)
        else:
            files = sorted(path for path in work.rglob("*") if path.is_file())
            for path in rng.sample(files, 3):
                path.unlink() if half(rng) else path.write_bytes(b"")
        yield
