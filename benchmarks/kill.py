"""Kills training processes (SIGKILL) at random moments, most while they save, and resumes them.

python benchmarks/kill.py [--kills=100] [--seed=0] [--model=cnn]

Runs take turns through WAYS until so many processes were killed. Each is killed and resumed until
it comes to its end; then its parameters must have the very bytes of a run that was left alone, its
history the same numbers except the times, and the last and best checkpoints must be there. Exit
status 1 if anything differs, or if a process ends otherwise than killed or done.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from idx_files import idx_bytes

# How gradients are computed, how the devices are used, and how many a CPU simulates.
WAYS = (("auto", "jit", 1), ("manual", "jit", 2), ("auto", "pmap", 2), ("manual", "pmap", 2))
TIMES = ("seconds", "data_seconds", "images_per_second")
SAVING, ANY, STARTING = "while it saves", "at any time", "while it starts"


def write_data(folder: Path) -> None:
    """Writes 200 training and 50 test images, 12x12: three prototypes under noise."""
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (3, 12, 12))
    for part, size in (("train", 200), ("t10k", 50)):
        labels = rng.permutation(np.arange(size) % 3)
        images = (prototypes[labels] + rng.integers(0, 256, (size, 12, 12))) // 2
        for kind, array in (("images", images), ("labels", labels)):
            (folder / f"{part}-{kind}-idx{array.ndim}-ubyte").write_bytes(idx_bytes(array))


def unfinished_saves(folder: Path) -> set[str]:
    """The checkpoints that are being written, under a name of their own."""
    with contextlib.suppress(FileNotFoundError):
        return {name for name in os.listdir(folder / "checkpoints") if name.endswith(".partial")}
    return set()


class Killer:
    """Starts, kills and resumes."""

    def __init__(self, work: Path, seed: int, flags: list[str]):
        """Draws its moments with a seed."""
        self.random, self.work, self.flags = random.Random(seed), work, flags
        self.startup = 3.0  # Seconds until the first save; measured as it goes.
        self.found = collections.Counter()

    def start(self, folder: Path, way: tuple[str, str, int]) -> subprocess.Popen:
        """Begins the run, or resumes it."""
        gradients, parallel, devices = way
        flags = [f"--gradients={gradients}", f"--parallel={parallel}", f"--devices={devices}"]
        resume = ["--resume"] if (folder / "config.json").exists() else []
        command = [sys.executable, "train.py", *self.flags, *flags, *resume, f"--workdir={folder}"]
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"), **os.environ}
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
        )

    def kill(self, process: subprocess.Popen, folder: Path) -> bool:
        """Kills the process at a moment of its own; False if it came to its end before."""
        moment = self.random.choices((SAVING, ANY, STARTING), (6, 2, 2))[0]
        begun, seen = time.monotonic(), unfinished_saves(folder)
        if moment == STARTING:
            time.sleep(self.random.uniform(0, self.startup))
        else:
            wanted = self.random.randint(1, 6) if moment == SAVING else 1
            before = seen
            while wanted and process.poll() is None:
                now = unfinished_saves(folder)
                if now - before:
                    if before is seen:
                        self.startup = time.monotonic() - begun
                    wanted -= 1
                before = now
                time.sleep(0.0005)
            time.sleep(self.random.uniform(0, 0.03 if moment == SAVING else 1))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            return False
        self.found[moment] += 1
        self.found["left a checkpoint half written"] += bool(unfinished_saves(folder) - seen)
        self.found["left no config.json"] += not (folder / "config.json").exists()
        return True


def outcome(folder: Path) -> tuple[str, list, list[str]]:
    """The final parameters' digest, the history without its times, the checkpoints kept."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    history = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    digest = json.loads((folder / "result.json").read_text())["params_sha256"]
    return digest, history, sorted(os.listdir(folder / "checkpoints"))


def main() -> int:
    """Kills and resumes until it is enough, and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="cnn")
    arguments = parser.parse_args()
    survived = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_data(work)
        killer = Killer(work, arguments.seed, [
            f"--model={arguments.model}", f"--data_dir={work}", "--validation_size=40",
            "--batch_size=32", "--epochs=30", "--checkpoint_every=2steps",
        ])  # fmt: skip
        expected = {}
        for number in itertools.count():
            way, folder = WAYS[number % len(WAYS)], work / f"run{number}"
            if way not in expected:
                whole = work / f"whole{number}"
                process = killer.start(whole, way)
                if process.wait():
                    print(f"{way}: status {process.returncode}: {process.communicate()[1]}")
                    return 1
                expected[way] = outcome(whole)
            kills = 0
            while True:
                process = killer.start(folder, way)
                left = arguments.kills - survived.total() - kills
                if left > 0 and killer.kill(process, folder):
                    kills += 1
                    if (folder / "result.json").exists():
                        break  # The last file of a run: there is nothing left to resume.
                    continue
                _, errors = process.communicate()
                if process.returncode or errors:
                    print(f"{way}: status {process.returncode} after {kills} kills: {errors}")
                    return 1
                break
            if outcome(folder) != expected[way]:
                print(f"{way}: not what the run left alone has: {outcome(folder)}")
                return 1
            survived[way] += kills
            print(f"{' '.join(map(str, way))}: {kills} kills survived, the same bytes", flush=True)
            if survived.total() >= arguments.kills:
                break
    for way, kills in survived.items():
        print(f"{' '.join(map(str, way)):14} {kills:4} kills")
    print(f"{survived.total()} kills survived: {dict(killer.found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
