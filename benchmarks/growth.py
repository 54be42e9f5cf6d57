"""How a training step's time and memory grow: over batch, channels, image side and devices.

    python -m benchmarks.growth              draws benchmarks/notes/growth-NAME.svg
    python -m benchmarks.growth --axis=side  one axis

The network has two convolutions of 3x3 with C and 2C channels, each with ReLU and a pool of 2x2,
and a dense layer; it trains by hand. Each point runs in a process of its own, which takes a few
steps: the time is the least CPU time of one, the memory that of the compiled step's own arrays, of
all devices. The limit is the time of its products at the rate of sgemm (NumPy, 2,048 x 2,048): they
are counted as they are defined, three times those of the forward pass. The slope is that of the
line that fits the logarithms best: 1 if the cost grows as its cause does.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from benchmarks.cifar94 import SIDE, cpu_seconds, on_noise, sgemm
from jaxnets import Chain, MaxPool, flatten
from jaxnets.drawing.charts import Caption, Scale, Series, curves
from jaxnets.networks.own import from_object

NOTES = Path(__file__).parent / "notes"
USUAL = {"batch": 128, "channels": 32, "side": 32, "devices": 1}
AXES = {
    "batch": (32, 64, 128, 256, 512, 1024),
    "channels": (8, 16, 32, 64, 128),
    "side": (16, 24, 32, 48, 64, 96),
    "devices": (1, 2, 4, 8),
}
STEPS = 5


def network(channels: int) -> Chain:
    """The network of so many channels."""
    layers = []
    for filters in (channels, 2 * channels):
        layers += [nn.Conv(filters, (3, 3)), nn.relu, MaxPool(2)]
    return Chain([*layers, flatten, nn.Dense(10)])


def measure(batch: int, channels: int, side: int, devices: int) -> dict[str, float]:
    """The CPU seconds of a step, and the megabytes of its arrays."""
    way = dict(devices=devices, cpu_devices=devices, parallel="pmap" if devices > 1 else "jit")
    chain = from_object(network(channels))
    experiment, rows = on_noise(chain, batch, side, gradients="manual", **way)
    rows = experiment.parallel.split(rows)
    state = experiment.init_state()
    step = experiment.parallel.compile(experiment.train_step(), donate=True)
    program = step.lower(state, rows).compile()

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(program(state, rows))

    arrays = program.memory_analysis().temp_size_in_bytes * devices
    return {"seconds": min(cpu_seconds(take, STEPS)), "megabytes": arrays / 1e6}


def flop(batch: int, channels: int, side: int, devices: int) -> float:
    """Of a step's products, on all devices."""
    first, second = side**2 * 9 * 3 * channels, (side // 2) ** 2 * 9 * channels * 2 * channels
    dense = (side // 4) ** 2 * 2 * channels * 10
    return 3 * 2 * (first + second + dense) * batch


def slope(x: tuple[int, ...], y: list[float]) -> float:
    """That of the line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def report(axis: str, rate: float) -> None:
    """Measures an axis, prints its table and draws its curves."""
    values, times, limits, memory = AXES[axis], [], [], []
    print(f"\n| {axis} | CPU time, ms | limit, ms | share | memory, MB |\n|{' ---: |' * 5}")
    for value in values:
        point = USUAL | {axis: value}
        command = [sys.executable, "-m", "benchmarks.growth", f"--point={json.dumps(point)}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        times.append(1e3 * found["seconds"])
        limits.append(1e3 * flop(**point) / rate)
        memory.append(found["megabytes"])
        share = limits[-1] / times[-1]
        print(
            f"| {value:,} | {times[-1]:.1f} | {limits[-1]:.1f} | {share:.2f} | {memory[-1]:.0f} |"
        )
    slopes = [slope(values, ys) for ys in (times, limits, memory)]
    print("slopes: time {:.2f}, limit {:.2f}, memory {:.2f}".format(*slopes))
    lines = [
        Series(f"a step, slope {slopes[0]:.2f}", values, times, 0),
        Series(f"its products at sgemm's rate, slope {slopes[1]:.2f}", values, limits, 1),
    ]
    alt = "; ".join(f"{one.label}: {', '.join(f'{y:.1f}' for y in one.y if y)}" for one in lines)
    caption = Caption(f"growth-{axis}", f"CPU milliseconds of a step by {axis}", alt)
    figure = curves(caption, lines, x=Scale(axis, log=True), y=Scale(log=True))
    (NOTES / f"{caption.name}.svg").write_text(figure.themed())


def main() -> None:
    """Measures and reports each axis, or one point."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--axis", choices=AXES, help="the only one to measure")
    parser.add_argument("--point", type=json.loads, help="internal: measures one and prints it")
    flags = parser.parse_args()
    if flags.point:
        print(json.dumps(measure(**flags.point)))
        return
    rate = 2 * SIDE**3 / min(cpu_seconds(sgemm(), 20))
    print(f"sgemm: {rate / 1e9:.0f} GFLOP a second of a core")
    for axis in AXES if flags.axis is None else [flags.axis]:
        report(axis, rate)


if __name__ == "__main__":
    main()
