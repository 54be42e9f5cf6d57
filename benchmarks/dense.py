"""Compares dense networks with the rate at which the machine multiplies large matrices (sgemm).

    python benchmarks/dense.py                         an epoch of each, in one compiled loop
    python benchmarks/dense.py mlp mlp_handwritten     some of them
    python benchmarks/dense.py --search                three hidden sizes, ten seeds each

The rate is taken before and after. The counted matrix products of training are the forward pass,
the gradient of every kernel, and the gradient of every layer's input except the first. A search's
time includes compilation.
"""

import argparse
import statistics
import time

import flax.linen as nn
import jax
import numpy as np

import jaxnets
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import Checkpoint, TrainState
from jaxnets.tune.train_many import held_out, train_many

DENSE = ("softmax", "mlp_sequential", "mlp_functional", "mlp", "mlp_handwritten")
SIZES, SEEDS, STEPS = (100, 200, 300), 10, 20


def sgemm_rate(size: int = 2048, repeats: int = 9) -> float:
    """GFLOP/s of a float32 product of two square matrices, median."""
    rng = np.random.default_rng(0)
    a = jax.device_put(rng.random((size, size), dtype=np.float32))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds) / 1e9


def print_epoch(name: str) -> None:
    """Prints a network's line."""
    config = jaxnets.preset(name, epochs=8)
    data = jaxnets.load_dataset("mnist", validation_size=config.validation_size)
    experiment = jaxnets.Experiment.create(config, data)
    state = experiment.init_state()
    names = [str(layer.name) for layer in experiment.model.layers if isinstance(layer, nn.Dense)]
    sizes = [state.params[name]["kernel"].size for name in names]
    flops = 2 * (2 * sizes[0] + 3 * sum(sizes[1:])) * len(data.train)
    rates, sgemm = [], [sgemm_rate()]
    started = time.perf_counter()
    for _, record in experiment.epochs(Checkpoint(state)):
        rates.append(flops / record["seconds"] / 1e9)
    sgemm.append(sgemm_rate())
    rate, machine = statistics.median(rates[1:]), statistics.mean(sgemm)
    print(
        f"{name:16s}{flops / rate / 1e9:7.3f} s an epoch {rate:5.0f} GFLOP/s, sgemm "
        f"{machine:4.0f}: ratio {rate / machine:.2f}  ({time.perf_counter() - started:.1f} s)"
    )
    jax.clear_caches()


class Clock(Observer):
    """Notes the time of every step."""

    def __init__(self, times: list[float]):
        self._times = times

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._times.append(time.perf_counter())


def print_search() -> None:
    """Prints a search's time, and that of its products at the machine's rate."""
    data = held_out(jaxnets.load_dataset("mnist", validation_size=0))
    before = sgemm_rate()
    started, steps = time.perf_counter(), list[float]()
    for size in SIZES:
        configs = [
            jaxnets.preset("mlp_handwritten", hidden=(size,), epochs=STEPS, seed=seed)
            for seed in range(SEEDS)
        ]
        first = len(steps)
        train_many(configs, data, data.validation, [Clock(steps)])
        print(f"{size}: {(steps[-1] - steps[first]) / (STEPS - 1):.3f} s a step of {SEEDS} seeds")
    seconds = time.perf_counter() - started
    rate = (before + sgemm_rate()) / 2
    operations = 2 * len(data.train) * SEEDS * STEPS * sum(SIZES) * (2 * 785 + 3 * 10)
    products = operations / rate / 1e9
    print(
        f"{len(SIZES)} sizes x {SEEDS} seeds x {STEPS} steps: {seconds:.1f} s, its products at "
        f"{rate:.0f} GFLOP/s {products:.1f} s: ratio {seconds / products:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=DENSE)
    parser.add_argument("--search", action="store_true")
    flags = parser.parse_args()
    if flags.search:
        print_search()
    else:
        for name in flags.networks:
            print_epoch(name)
