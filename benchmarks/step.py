"""A network's training step: plain JAX, jax.grad with our rules, by hand; and on several devices.

    python benchmarks/step.py                          the CNN at batch 128
    python benchmarks/step.py --model=alexnet --input_size=224 --steps=2 --rounds=3
    python benchmarks/step.py --model=mlp --batch_size=512
    python benchmarks/step.py --cpu_time               counts CPU time: steady on a busy machine
    python benchmarks/step.py --devices                one device against eight simulated ones

Each way runs in separate processes, in turn, so a drift of the machine affects all alike and
none inherits what another has set up. "plain" is jax.jit around optax and jax.grad of the same Flax
network, without any of our settings. "apart" is "auto" with each convolution separate from its pool
(kernels/conv_pool.py). With `--devices` the ways are whole steps on a single device, on one of
eight, and on eight; then the gradients of each device's rows, without and with their sum over the
devices.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

import jaxnets
from jaxnets.data.batches import train_batches
from jaxnets.experiment import Experiment
from jaxnets.kernels import accelerate
from jaxnets.losses import LOSSES
from jaxnets.training.step import autodiff_loss_and_grad, make_gradient_step, make_train_step

WAYS = ("plain", "apart", "auto", "manual")
# Placement, devices, how many the CPU simulates, and how much of a step.
PLACED = ("jit:1:1:step", "jit:1:8:step", "jit:1:8:gradients", "jit:8:8:step",
          "shard_map:8:8:step", "pmap:8:8:step", "pmap:8:8:gradients",
          "pmap:8:8:added")  # fmt: skip


def step_of(way: str, experiment: Experiment) -> Callable[..., Any]:
    """A way's compiled step."""
    model, parallel, loss = experiment.model, experiment.parallel, LOSSES[experiment.config.loss]
    if way == "plain":
        step = make_train_step(autodiff_loss_and_grad(model.apply, loss), experiment.optimizer)
        return jax.jit(step, donate_argnums=0)
    if way == "apart":
        apart = autodiff_loss_and_grad(accelerate(model, "cpu", sharded=True).apply, loss)
        return parallel.compile(make_train_step(apart, experiment.optimizer), donate=True)
    if not way.endswith((":gradients", ":added")):
        return parallel.compile(experiment.train_step(), donate=True)
    # What pmap returns of gradients that are not added are the first device's.
    axis_name = parallel.axis_name if way.endswith(":added") else None
    gradients = parallel.compile(make_gradient_step(experiment.loss_and_grad, axis_name=axis_name))
    return lambda state, batch: (state, gradients(state, batch))


def images_per_second(way: str, flags: argparse.Namespace) -> float:
    """The rate of one way, median of five; a batch comes from the host."""
    clock = time.process_time if flags.cpu_time else time.perf_counter
    changes: dict[str, Any] = {"input_size": flags.input_size} if flags.input_size else {}
    if way in PLACED:
        kind, devices, simulated, _ = way.split(":")
        changes |= dict(parallel=kind, devices=int(devices), cpu_devices=int(simulated))
    config = jaxnets.preset(
        flags.model,
        batch_size=flags.batch_size,
        gradients="manual" if way == "manual" else "auto",
        augment="none",
        **changes,
    )
    data = jaxnets.load_dataset("mnist")
    experiment = Experiment.create(config, data)
    step, state = step_of(way, experiment), experiment.init_state()
    batch = next(train_batches(data.train, flags.batch_size, seed=0, epoch=0))
    split = experiment.parallel.split if way in PLACED else lambda batch: batch
    seconds = []
    for number in range(6):
        count = flags.steps if number else 1  # The first compiles.
        started = clock()
        for _ in range(count):
            state, result = step(state, split(batch))
            jax.block_until_ready((state, result))
        seconds.append((clock() - started) / count)
    return flags.batch_size / statistics.median(seconds[1:])


def in_turn(ways: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """The figures of each way: what this program prints with --way=WAY."""
    figures: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            command = [sys.executable, *sys.argv, f"--way={way}"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures[way].append(float(output.split()[-1]))
    return figures


def main() -> None:
    """Runs the ways in turn and prints their rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--input_size", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu_time", action="store_true", help="rates by the process' CPU time")
    parser.add_argument("--devices", action="store_true", help="one device against eight")
    parser.add_argument("--way", help="internal: run one way and print its rate")
    flags = parser.parse_args()
    if flags.way:
        print(images_per_second(flags.way, flags))
        return
    ways = PLACED if flags.devices else WAYS
    rates = in_turn(ways, flags.rounds)
    for way in ways:
        pairs = zip(rates[way], rates[ways[0]], strict=True)
        ratio = statistics.median(ours / first for ours, first in pairs)
        rate, low, high = statistics.median(rates[way]), min(rates[way]), max(rates[way])
        print(
            f"{way:18s}{rate:10,.0f} images/s  ({low:,.0f} to {high:,.0f})"
            f"  {1000 * flags.batch_size / rate:.1f} ms  {ratio:.2f} x {ways[0]}"
        )
    if not flags.devices:
        pairs = zip(rates["auto"], rates["manual"], strict=True)
        ratio = statistics.median(auto / manual for auto, manual in pairs)
        print(f"time of a step by hand / by jax.grad: {ratio:.2f}")


if __name__ == "__main__":
    main()
