"""Hours of training with a checkpoint every few seconds: does anything grow?

python benchmarks/soak.py [--minutes=120] [--every=3] [--model=cnn]

Samples the process every ten seconds: resident memory, threads, open files, and the bytes and files
of its run folder; the time is counted in samples, so that a stopped clock or a stopped process does
not count. In the end the run is asked to stop (SIGTERM), and the second half is held against the
first: the median of the memory and the threads, the least of the files, which come and go with
every checkpoint. Exit status 1 if anything has grown. The memory may by 2 %.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICK = 10.0  # Seconds from one sample to the next.
# How a half is told in a number, and what the second may be of the first. Threads are a median, as
# idle ones end where the process is stopped for a minute. The folder: while the best checkpoint is
# one of the last two, two are kept, later three, and metrics.jsonl gains a line an epoch. A thread,
# a file or a checkpoint left behind once in a hundred would make two hours' halves differ by 12.
MEASURES = {
    "resident_mb": (statistics.median, 1.02),
    "threads": (statistics.median, 1.1),
    "open_files": (min, 1.0),
    "folder_mb": (min, 1.55),
    "folder_files": (min, 1.55),
}


def sample(pid: int, folder: Path) -> dict[str, float]:
    """The process' resident memory, threads and open files, and its folder's size."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    sizes = []
    for parent, _, files in os.walk(folder):  # Which passes over folders that are gone by then.
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # Checkpoints come and go.
                sizes.append(os.stat(os.path.join(parent, name)).st_size)
    return {
        "resident_mb": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "folder_mb": sum(sizes) / 2**20,
        "folder_files": len(sizes),
    }


def main() -> int:
    """Trains for so many minutes and prints what grew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--every", type=int, default=3, help="seconds between checkpoints")
    parser.add_argument("--model", default="cnn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "run"
        process = subprocess.Popen(
            [
                sys.executable, "train.py", f"--model={arguments.model}", "--epochs=1000000",
                f"--checkpoint_every={arguments.every}seconds", f"--workdir={folder}",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        samples = []
        while len(samples) * TICK < 60 * arguments.minutes and process.poll() is None:
            time.sleep(TICK)
            samples.append(sample(process.pid, folder))
            if len(samples) % 30 == 1:
                now = " ".join(f"{name} {value:.0f}" for name, value in samples[-1].items())
                print(f"{len(samples) * TICK / 60:6.1f} min  {now}", flush=True)
        process.send_signal(signal.SIGTERM)
        status = process.wait()
        lines = (folder / "metrics.jsonl").read_text().count("\n")
    print(f"{len(samples) * TICK / 60:.0f} minutes, {lines} epochs, exit status {status}")
    # The first tenth warms up: compiled programs, the evaluation's memory, the first checkpoints.
    samples = samples[len(samples) // 10 :]
    half = len(samples) // 2
    grown = False
    for name, (measure, growth) in MEASURES.items():
        told = [measure(s[name] for s in part) for part in (samples[:half], samples[half:])]
        bad = told[1] > growth * told[0]
        grown = grown or bad
        print(
            f"{name:12} {measure.__name__:6} of the halves {told[0]:.1f} {told[1]:.1f}"
            f"  most {max(s[name] for s in samples):.1f}{'  GREW' if bad else ''}"
        )
    return 1 if grown or status != 128 + signal.SIGTERM else 0


if __name__ == "__main__":
    sys.exit(main())
