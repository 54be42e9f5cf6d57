"""Training on folders of pictures: do steps wait for pictures, and do more take more memory?

    python benchmarks/pictures.py stall      share of an epoch spent waiting for a batch
    python benchmarks/pictures.py memory     memory of 10,000 and of 100,000 pictures

Every figure comes from a separate process; the folders are made in the temporary folder, and
removed.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import jaxnets
from jaxnets.experiment import Experiment
from jaxnets.runs.request import load_data

CLASSES = 10
DISTINCT = 500  # Pictures with different content; the others are hard links to them.
STALLS = [
    ("cnn", (32, 32), 10_000, dict(epochs=2)),
    ("alexnet", (400, 300), 1_000, dict(epochs=1, input_size=224)),
]
COUNTS = (10_000, 100_000)


def make_folder(root: Path, count: int, size: tuple[int, int]) -> None:
    """Writes count JPEG files of smooth noise, as photos compress, in CLASSES folders."""
    rng, written = np.random.default_rng(0), []
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for number in range(count):
        path = root / str(number % CLASSES) / f"{number:06}.jpg"
        if number < DISTINCT:
            small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
            written.append(path)
        else:
            os.link(written[number % DISTINCT], path)


def train_on(folder: str, model: str, changes: dict) -> dict:
    """Trains in this process; returns the last epoch's record, seconds of loading, memory in MB."""
    os.environ["XDG_CACHE_HOME"] = f"{folder}-cache"
    config = jaxnets.preset(model, dataset=folder, **changes)
    seconds = []
    for _ in range(2):  # Decoded, then found.
        started = time.perf_counter()
        data = load_data(config)
        seconds.append(time.perf_counter() - started)
    _, history = Experiment.create(config, data).train()
    # Not the mapped file, which the system drops when memory is short.
    memory = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    own = int(memory[1]) / 1024 if memory else 0
    return history[-1] | {"own_mb": own, "pictures": len(data.train), "loading": seconds}


def in_a_process(*arguments) -> dict:
    """The result of train_on in a separate process."""
    command = [sys.executable, __file__, "child", repr(arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def stall(folder: Path) -> None:
    """Prints the share of the last epoch that its steps waited."""
    for model, size, count, changes in STALLS:
        make_folder(folder / model, count, size)
        record = in_a_process(str(folder / model), model, changes)
        share = record["data_seconds"] / record["seconds"]
        first, again = record["loading"]
        print(
            f"{model:8s} {size[0]} x {size[1]} JPEG, {record['pictures']:7,} pictures decoded in "
            f"{first:.1f} s, found in {again:.2f} s, {record['seconds']:6.1f} s an epoch, "
            f"waited {record['data_seconds']:.2f} s: {share:.1%}",
            flush=True,
        )


def memory(folder: Path) -> None:
    """Prints the memory of so many steps, decoding included.

    The steps are as many for every count: the allocator's share grows with them for a while.
    """
    own = []
    for count in COUNTS:
        make_folder(folder / str(count), count, (32, 32))
        changes = dict(epochs=COUNTS[-1] // count, hidden=(16,))
        own.append(in_a_process(str(folder / str(count)), "cnn", changes)["own_mb"])
        print(f"{count:7,} pictures: {own[-1]:6.0f} MB", flush=True)
    decoded = (COUNTS[1] - COUNTS[0]) * 32 * 32 * 3 / 1e6
    print(f"difference {own[1] - own[0]:+.0f} MB of {decoded:.0f} MB decoded")


def main() -> None:
    """Runs what the command line names."""
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(train_on(*ast.literal_eval(sys.argv[2]))))
        return
    measures = {"stall": stall, "memory": memory}
    for name in sys.argv[1:] or measures:
        with tempfile.TemporaryDirectory() as folder:
            measures[name](Path(folder))


if __name__ == "__main__":
    main()
