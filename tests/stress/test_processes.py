"""Commands as processes: killed, interrupted, short of memory, and left running for hours.

`pytest -m stress tests/stress/test_processes.py` takes hours; `--cases` says how many harms each
command gets, `--seed` which.
"""

import contextlib
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT, history, params_sha256, stress
from harm import python
from PIL import Image

IDX = "--data_dir={idx} --validation_size=40 --batch_size=32"


@pytest.fixture
def places(tiny_folder, tiny_arrays, tmp_path, monkeypatch):
    """What a command's braces stand for: data, a trained network, and a run folder to be made."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    return {"idx": tiny_folder, "pictures": tmp_path / "pictures", "run": tmp_path / "run"}


# Killed, and continued


class Job(NamedTuple):
    """A command that writes into {run}, and what it leaves there."""

    command: str
    left: Callable[[Path], Any]  # What must be that of a run left alone.
    begun: str = "config.json"  # With this file it is resumed.
    last: str = "result.json"  # With this file there is nothing left to continue.


def of_run(run: Path) -> Any:
    """What a training leaves, but times."""
    return params_sha256(run), history(run), sorted(os.listdir(run / "checkpoints"))


def digests(paths: Any) -> dict[str, str]:
    """The SHA-256 of files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def of_pictures(run: Path) -> Any:
    """What a training on pictures leaves, and the decoded pictures in the user's cache."""
    decoded = (run.parent / "cache").glob("jaxnets/pictures/*")
    return of_run(run), list(digests(p for p in decoded if not p.suffix).values())


TRAIN = f"train.py {IDX} --epochs=30 --checkpoint_every=2steps --workdir={{run}}"
JOBS = {
    "softmax": Job(f"{TRAIN} --model=softmax", of_run),
    "mlp": Job(f"{TRAIN} --model=mlp --schedule=plateau", of_run),
    "cnn": Job(f"{TRAIN} --model=cnn", of_run),
    "manual": Job(f"{TRAIN} --model=cnn --devices=2 --gradients=manual", of_run),
    "pmap": Job(f"{TRAIN} --model=cnn --devices=2 --parallel=pmap", of_run),
    "shard_map": Job(f"{TRAIN} --model=cnn --devices=2 --parallel=shard_map", of_run),
    "both": Job(f"{TRAIN} --model=cnn --devices=2 --parallel=pmap --gradients=manual", of_run),
    "replay": Job(
        "-m jaxnets replay --data_dir={idx} --sizes=4,8,16 --epochs=30 "
        "--learning_rate=1e-3 --checkpoint_every=2steps --workdir={run}",
        of_run,
    ),
    "pictures": Job(
        "train.py --model=cnn --dataset={pictures} --epochs=2 --batch_size=32 "
        "--checkpoint_every=2steps --workdir={run}",
        of_pictures,
    ),
    "search": Job(
        "-m jaxnets search --model=softmax --data_dir={idx} --over=batch_size=8,16,32,64 "
        "--over=learning_rate=0.1,0.2 --seeds=2 --epochs=2 --workdir={run}",
        lambda run: digests(run.glob("search.[jc]*")),
        begun="search.json",
        last="-",
    ),
}  # fmt: skip
MOST = 20  # Kills of one run: it must come to its end some time.


def write_pictures(folder, arrays):
    """The tiny images, eight times as wide, as files of a folder a class."""
    for part, split in (("train", "train"), ("t10k", "test")):
        labelled = zip(arrays[f"{part}-images"], arrays[f"{part}-labels"], strict=True)
        for number, (image, label) in enumerate(labelled):
            path = folder / split / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.kron(image, np.ones((8, 8))).astype(np.uint8)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", *(stress(name) for name in JOBS if name != "softmax")])
def test_killed_and_continued_a_command_leaves_the_same_bytes(
    name, places, tiny_arrays, tmp_path, request, monkeypatch
):
    wanted = request.config.getoption("cases") or 3
    rng = random.Random(f"{request.config.getoption('seed')} {name}")
    expected, kills, number = None, 0, 0
    while kills < wanted:
        folder = tmp_path / str(number)
        places |= {"pictures": folder / "pictures", "run": folder / "run"}
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        if name == "pictures":
            write_pictures(places["pictures"], tiny_arrays)
        run, job, killed_here = places["run"], JOBS[name], 0
        while True:
            command = job.command
            if (run / job.begun).exists():
                command += " --resume"
            harm: dict[str, Any] = {}
            if number and kills < wanted and killed_here < MOST:
                delay = rng.choice([0, 0, rng.uniform(0, 0.03), rng.uniform(0, 1)])
                harm = {"kill": dict(folder=str(folder), change=rng.randint(1, 20), delay=delay)}
            ended = python(*command.format(**places).split(), **harm)
            if ended.status != -signal.SIGKILL:
                assert (ended.status, ended.err) == (0, ""), ended
                break
            kills, killed_here = kills + 1, killed_here + 1
            if (run / job.last).exists():
                break
        found = job.left(run)
        expected = expected or found  # The first one was left alone.
        assert found == expected, f"after {killed_here} kills"
        number += 1


# Interrupted, and short of memory

COMMANDS = {  # Each command, and a file or a text on stdout that says that its work is done.
    "train": (f"train.py --model=softmax {IDX} --epochs=300 --workdir={{run}}", "result.json"),
    "predict": ("-m jaxnets predict {trained} {digit}", "1.png\t"),
    "summary": ("-m jaxnets summary", "FLOPs"),
    "script": (f"{Path(sys.executable).with_name('jaxnets')} summary", "FLOPs"),
    "gradcheck": ("-m jaxnets gradcheck --model=softmax", "agree"),
    "search": (
        f"-m jaxnets search --model=softmax {IDX} --over=learning_rate=0.1,0.2 --epochs=40 "
        "--workdir={run}",
        "results: ",
    ),
}
MODELS = ("softmax", "mlp", "mlp_handwritten", "cnn", "alexnet_small", "alexnet")
SHORT = {
    name: command.replace("--epochs=40", "--epochs=1") for name, (command, _) in COMMANDS.items()
}
SHORT |= {name: f"train.py --model={name} {IDX} --epochs=1 --learning_rate=0.001 --workdir={{run}}"
          for name in MODELS}  # fmt: skip
del SHORT["train"], SHORT["script"]


@pytest.fixture
def trained(places, tmp_path):
    """`places`, a trained network and a digit among them."""
    places |= {"trained": tmp_path / "trained", "digit": tmp_path / "1.png"}
    picture = Image.new("L", (28, 28))
    picture.paste(255, (12, 4, 16, 24))
    picture.save(places["digit"])
    command = f"train.py --model=softmax {IDX} --epochs=1 --workdir={{trained}}"
    assert python(*command.format(**places).split()).status == 0
    return places


# Left alone for hours

TICK = 10.0  # Seconds from one sample to the next.
# How a half of the samples is told in a number, and what the second may be of the first. Threads
# are a median, as idle ones end where the process is stopped for a minute. The folder: while the
# best checkpoint is one of the last two, two are kept, later three, and metrics.jsonl gains a line
# an epoch. Something left behind once in a hundred checkpoints would make two hours' halves differ
# by 12.
MEASURES = {
    "resident": (statistics.median, 1.02),
    "threads": (statistics.median, 1.1),
    "open files": (min, 1.0),
    "folder's bytes": (min, 1.55),
    "folder's files": (min, 1.55),
}


def sample(pid: int, folder: Path) -> dict[str, float]:
    """What a process and its folder hold now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    sizes = []
    for parent, _, files in os.walk(folder):  # Which passes over folders that are gone by then.
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # Checkpoints come and go.
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
    resident, threads = int(status["VmRSS"].split()[0]), int(status["Threads"])
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return dict(zip(MEASURES, (resident, threads, files, sum(sizes), len(sizes)), strict=True))


@pytest.mark.stress
def test_nothing_grows_in_hours_of_training_and_saving(tmp_path, request):
    """`--cases` samples, by default two hours of them: a stopped clock does not count."""
    flags = "--model=cnn", "--epochs=1000000", "--checkpoint_every=3seconds"
    command = [sys.executable, "train.py", *flags, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    samples = []
    for _ in range(request.config.getoption("cases") or 720):
        time.sleep(TICK)
        samples.append(sample(process.pid, tmp_path / "run"))
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    # The first tenth warms up: compiled programs, the evaluation's memory, the first checkpoints.
    samples = samples[len(samples) // 10 :]
    half = len(samples) // 2
    for name, (measure, growth) in MEASURES.items():
        early, late = (measure(s[name] for s in part) for part in (samples[:half], samples[half:]))
        assert late <= growth * early, name
