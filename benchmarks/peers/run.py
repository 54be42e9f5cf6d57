"""Runs the measurements in fresh processes, the ways in turn, and keeps the results as JSON."""

import gzip
import importlib.metadata
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.ways import DENSE, GROWING, INFERENCE, STARTING, TRAINING, Way
from jaxnets.base.display import one_line
from jaxnets.machine.platform import cpu_name

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("machine", "rate", "accuracy", "inference", "startup", "growth")
# Images of a repetition, and of a trial's; alexnet's are two batches.
COUNTS = {**dict.fromkeys(DENSE, 60000), "cnn": 12800, "alexnet": 256, "resnet20": 1280}
FEW = {**dict.fromkeys(DENSE, 1280), "cnn": 1280, "alexnet": 256, "resnet20": 256}
# Accuracies on the test images, and how the CNN gets there.
TARGETS = {0.99: ["--recipe=fast", "--stop_at_target"], 0.995: ["--epochs=9"]}
# What grows: the network, the field, its values.
GROWTH = {
    "batch": ("cnn", "batch_size", (32, 128, 512)),
    "width": ("mlp", "hidden", (128, 512, 2048)),
    "data": ("cnn", "images", (3200, 12800, 51200)),
    "devices": ("mlp", "cpu_devices", (1, 2)),
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "keras")
PACKAGES += ("tensorflow-cpu", "tensorflow", "scikit-learn", "onnxruntime")
Measurement = dict[str, Any]


class Job(NamedTuple):
    """A process to start, and what its measurement is called."""

    labels: Measurement  # part, network, way, ...
    command: list[str]  # After python.
    environment: dict[str, str]
    cold: bool = False  # Whether no compiled program is kept from earlier.


class Ended(NamedTuple):
    """A process that has ended."""

    status: int
    lines: list[tuple[float, str]]  # Of stdout, each with its seconds after the start.
    error: str  # The last line of stderr.
    wall: float
    cpu: float
    peak_mb: float


def jobs(parts: Sequence[str], networks: Sequence[str], folder: Path, quick: bool) -> list[Job]:
    """Everything that a round measures, without peers that are not installed."""
    made: list[Job] = []
    if "machine" in parts:
        command = ["-m", "benchmarks.peers.measure", json.dumps({"kind": "machine"})]
        made.append(Job({"part": "machine", "way": "machine"}, command, {}))
    repeats = 1 if quick else 3
    if "rate" in parts:
        for network in networks:
            for way in TRAINING:
                if network in way.networks:
                    count = (FEW if quick else COUNTS)[network]
                    made += _measure("rate", "training", way, network, count, repeats)
    if "accuracy" in parts:
        made += _accuracy_jobs(folder, quick)
    if "inference" in parts:
        for way in INFERENCE:
            count = 1280 if quick else 9984
            made += _measure("inference", "inference", way, "cnn", count, repeats)
            made += _measure("latency", "latency", way, "cnn", 20 if quick else 300, 1)
    if "startup" in parts:
        for way in STARTING:
            for cold in (True, False):
                for job in _measure("startup", "training", way, "cnn", 128, 0):
                    made.append(job._replace(labels=job.labels | {"cold": cold}, cold=cold))
    if "growth" in parts:
        for axis, (network, field, values) in GROWTH.items():
            for way in GROWING:
                for value in values[:2] if quick else values:
                    made += _growth(axis, network, field, value, way, quick)
    return made


def _measure(
    part: str, kind: str, way: Way, network: str, count: int, repeats: int, **changes: Any
) -> Iterator[Job]:
    """The job of a way that is installed."""
    if way.missing:
        return
    request = dict(kind=kind, network=network, place=way.place, options=way.options)
    request |= dict(count=count, repeats=repeats, changes=changes)
    command = ["-m", "benchmarks.peers.measure", json.dumps(request)]
    yield Job({"part": part, "network": network, "way": way.name}, command, way.environment)


def _growth(
    axis: str, network: str, field: str, value: int, way: Way, quick: bool
) -> Iterator[Job]:
    """The job of a point; only jaxnets has devices to be simulated."""
    count = 1280 if quick else COUNTS[network]
    changes: dict[str, Any] = {}
    if field == "cpu_devices":
        if not way.is_ours:
            return
        way = way._replace(options={"cpu_devices": value})
    elif field == "images":
        count = value // 10 if quick else value
    else:
        changes = {field: (value,) if field == "hidden" else value}
    for job in _measure("growth", "training", way, network, count, 1 if quick else 2, **changes):
        yield job._replace(labels=job.labels | {"axis": axis, "value": value})


def _accuracy_jobs(folder: Path, quick: bool) -> Iterator[Job]:
    """From the start of a process to the accuracy: jaxnets, the examples, the same network."""
    few = ["--epochs=1", "--limit=1280"] if quick else []
    for target, recipe in TARGETS.items():
        for name, flags in (
            ("jaxnets", []),
            ("jaxnets, gradients by hand", ["--gradients=manual"]),
        ):
            for cold in (True, False) if not flags else (False,):
                command = ["train.py", "--model=cnn", f"--target_accuracy={target}", *flags]
                command += [*(few or recipe), "--overwrite", f"--workdir={folder / 'run'}"]
                labels = {"part": "accuracy", "way": name, "cold": cold, "target": target}
                yield Job(labels, command, {}, cold)
    few = ["--epochs=1", "--images=1280"] if quick else []
    examples = [("Keras' example on TensorFlow", "keras", ("keras", "tensorflow"), "tensorflow")]
    examples += [("Keras' example on JAX", "keras", ("keras", "jax"), "jax")]
    examples += [("PyTorch's example", "pytorch", ("torch", "torchvision"), "")]
    for name, example, packages, backend in examples:
        if not Way(name, "", packages).missing:
            command = ["-m", "benchmarks.peers.until", example, *few, f"--mnist={folder}"]
            yield Job({"part": "accuracy", "way": name}, command, {"KERAS_BACKEND": backend})
    for way in GROWING:
        if not way.is_ours and not way.missing:
            command = ["-m", "benchmarks.peers.until", way.name, *few]
            labels = {"part": "accuracy", "way": f"{way.name}, the same network"}
            yield Job(labels, command, way.environment)


def start(job: Job, folder: Path, limit: float) -> Ended:
    """Runs a process to its end, or kills it after so many seconds."""
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_HOME": str(folder / "keras"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        **job.environment,
    }
    with tempfile.TemporaryDirectory() as fresh, tempfile.TemporaryFile() as errors:
        kept = Path(fresh) if job.cold else folder
        environment["JAX_COMPILATION_CACHE_DIR"] = str(kept / "jax")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(kept / "inductor")
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *job.command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            lines, timed_out = _read_lines(process, begun, limit)
        except BaseException:  # Ctrl-C: nothing outlives this program.
            process.kill()
            raise
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has taken it from Popen.
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    error = f"no end within {limit:.0f} s" if timed_out else "".join(said[-1:])
    cpu = usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, lines, error, wall, cpu, usage.ru_maxrss / 1024)


def _read_lines(process: Any, begun: float, limit: float) -> tuple[list[tuple[float, str]], bool]:
    """The lines of stdout, each with its seconds, and whether the limit ended the process."""
    lines, rest, stdout = [], b"", process.stdout
    with stdout:
        while True:
            left = begun + limit - time.perf_counter()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                process.kill()
                return lines, True
            content = os.read(stdout.fileno(), 1 << 16)
            if not content:
                return lines, False
            *whole, rest = (rest + content).split(b"\n")
            now = time.perf_counter() - begun
            lines += [(now, line.decode(errors="replace")) for line in whole]


def result_of(job: Job, ended: Ended, folder: Path) -> Measurement:
    """The result of a job: its labels, and its numbers or an `error`."""
    found: Measurement = {**job.labels, "peak_mb": ended.peak_mb}
    if job.labels["part"] == "accuracy" and "target" in job.labels:
        result = folder / "run" / "result.json"
        if ended.status not in (0, 1) or not result.exists():
            return {**found, "error": ended.error}
        epochs = [{"wall": ended.wall, "cpu": ended.cpu}]
        epochs[0]["accuracy"] = json.loads(result.read_text())["test_accuracy"]
        return {**found, "epochs": epochs}
    if ended.status:
        return {**found, "error": ended.error or f"exit status {ended.status}"}
    if job.labels["part"] == "accuracy":
        return {**found, "epochs": [{**json.loads(line), "wall": at} for at, line in ended.lines]}
    if job.labels["part"] == "startup":
        return {**found, "wall": [ended.wall], "cpu": [ended.cpu]}
    return {**found, **json.loads(ended.lines[-1][1])}


def run(
    parts: Sequence[str], networks: Sequence[str], rounds: int, quick: bool, limit: float
) -> Iterator[Measurement]:
    """Yields the measurements of all rounds; a failure is one of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack_mnist(folder / "MNIST" / "raw")
        todo = jobs(parts, networks, folder, quick)
        for number in range(rounds):
            turn = number % max(1, len(todo))  # Another one comes first in each round.
            for place, job in enumerate(todo[turn:] + todo[:turn], start=1):
                if number == 0 and job.labels.get("cold") is False:
                    start(job, folder, limit)  # It compiles what is kept for the measured one.
                ended = start(job, folder, limit)
                found = {**result_of(job, ended, folder), "round": number}
                what = ", ".join(str(value) for value in job.labels.values())
                said = f"  failed: {one_line(str(found['error']))}" if "error" in found else ""
                where = f"round {number + 1}/{rounds}, {place}/{len(todo)}"
                print(f"{where}: {what}{said}", file=sys.stderr, flush=True)
                yield found


def unpack_mnist(folder: Path) -> None:
    """Puts the package's MNIST where torchvision looks for it."""
    folder.mkdir(parents=True)
    for path in (ROOT / "jaxnets" / "data" / "mnist").glob("*.gz"):
        with gzip.open(path) as source, (folder / path.stem).open("wb") as target:
            shutil.copyfileobj(source, target)


def facts() -> dict[str, Any]:
    """The machine and how busy it is, the versions, the date, and which ways are left out."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    left_out = {way.name: way.missing for way in (*TRAINING, *INFERENCE) if way.missing}
    machine = {"processor": cpu_name(), "cores": os.cpu_count(), "system": platform.system()}
    date = time.strftime("%Y-%m-%d", time.gmtime())
    found = {"machine": machine, "versions": versions, "date": date, "left_out": left_out}
    return {**found, "load": os.getloadavg()[0]}
