"""A small set of your own pictures, three classes of drawn shapes, against a tutorial's network.

    python benchmarks/shapes.py                train.py's defaults and the tutorial's, three seeds
    python benchmarks/shapes.py --make=FOLDER  only draws the set
    python benchmarks/shapes.py --model=alexnet_small --epochs=20   flags of train.py

629 pictures of circles, squares and triangles of any size and colour, filled or not, with lines
that are no shape, under noise; 48 to 240 pixels a side; PNG, JPEG, BMP, GIF and WebP. The tutorial
is Keras's "Image classification" (tensorflow.org/tutorials/images/classification): pictures of
180 x 180, convolutions of 16, 32 and 64 channels, 128 units, Adam, batches of 32, 10 epochs; here
on PyTorch, and on the same training and test pictures. Each run is a separate process.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COUNT, SEEDS = 629, (0, 1, 2)
SHAPES = {"circle": 0, "square": 4, "triangle": 3}  # Their corners.
FORMATS = ("png", "jpg", "bmp", "gif", "webp")
ROOT = Path(__file__).parents[1]


def draw(rng: np.random.Generator, corners: int) -> Image.Image:
    """Draws one shape."""
    side = int(rng.integers(48, 181))
    width, height = rng.permutation([side, int(side * rng.uniform(1, 4 / 3))])
    background = rng.integers(0, 256, 3)
    shift = rng.choice([-1, 1], 3) * rng.integers(60, 160, 3)
    colour = tuple(int(c) for c in np.clip(background + shift, 0, 255))
    picture = Image.new("RGB", (int(width), int(height)), tuple(map(int, background)))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 4)):  # Lines that are not a shape.
        ends = rng.random(4) * [width, height, width, height]
        pen.line(ends.tolist(), fill=tuple(map(int, rng.integers(0, 256, 3))), width=1 + side // 60)
    radius = side * rng.uniform(0.22, 0.45)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    filled = bool(rng.random() < 0.5)
    form: dict[str, Any] = (
        dict(fill=colour) if filled else dict(outline=colour, width=2 + side // 24)
    )
    if corners:
        turn = rng.uniform(-20, 20)
        pen.regular_polygon((x, y, radius), corners, rotation=turn, **form)
    else:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), **form)
    noise = rng.normal(0, 20, (int(height), int(width), 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def make(folder: Path, count: int = COUNT) -> None:
    """Draws the set."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = list(SHAPES)[number % len(SHAPES)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / name / f"{number:04}.{FORMATS[number // len(SHAPES) % len(FORMATS)]}"
        draw(rng, SHAPES[name]).save(path)


def tutorial(folder: str, seed: int) -> float:
    """The test accuracy of the tutorial's network, on the parts that jaxnets makes."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    from jaxnets.config.resolve import preset
    from jaxnets.runs.request import load_data

    data = load_data(preset("cnn", dataset=folder, decode_size=180))
    train, test = ((np.asarray(part.images), part.labels) for part in (data.train, data.test))
    keras.utils.set_random_seed(seed)
    model: Any = keras.Sequential([keras.Input((180, 180, 3)), layers.Rescaling(1 / 255)])
    for channels in (16, 32, 64):
        model.add(layers.Conv2D(channels, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(data.num_classes))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    model.fit(*train, batch_size=32, epochs=10, verbose=0)
    return model.evaluate(*test, verbose=0)[1]


def ours(folder: str, seed: int, flags: list[str]) -> tuple[float, float | None]:
    """The test and the last validation accuracy of train.py."""
    with tempfile.TemporaryDirectory() as run:
        own = f"--dataset={folder}", f"--workdir={run}", f"--seed={seed}"
        command = [sys.executable, "train.py", *own, *flags]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        result = json.loads((Path(run) / "result.json").read_text())
    return result["test_accuracy"], result["validation_accuracy"]


def theirs(folder: str, seed: int) -> float:
    """Runs `tutorial` in a separate process."""
    command = [sys.executable, __file__, f"--tutorial={folder}", str(seed)]
    return float(subprocess.check_output(command, text=True).split()[-1])


def spent() -> tuple[float, float]:
    """The time now, and the processor time of all processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def main(flags: list[str]) -> None:
    """Draws the set, and trains both on it."""
    if flags and flags[0].startswith("--make="):
        make(Path(flags[0].removeprefix("--make=")))
        return
    if flags and flags[0].startswith("--tutorial="):
        print(tutorial(flags[0].removeprefix("--tutorial="), int(flags[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        for seed in SEEDS:
            times = [spent()]
            test, validation = ours(folder, seed, flags)
            times.append(spent())
            tutorials = theirs(folder, seed)
            own, other = np.diff([*times, spent()], axis=0)
            shown = "{:.0f} s, {:.0f} s of CPU".format
            print(
                f"seed {seed}: test {test:.3f}, validation {validation:.3f}, {shown(*own)}; "
                f"the tutorial's test {tutorials:.3f}, {shown(*other)}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
