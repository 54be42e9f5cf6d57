"""A search over three hidden sizes with ten seeds each, beside its matrix products alone.

    python benchmarks/search.py

The products (forward, both kernels' gradients, the hidden layer's gradient) are reckoned at the
machine's sgemm rate, taken before and after; the search's time is all of it, compiling included.
"""

import time

from sgemm import sgemm_rate

import jaxnets
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import TrainState
from jaxnets.tune.many import held_out, train_many

SIZES, SEEDS, STEPS = (100, 200, 300), 10, 20


class Clock(Observer):
    """Notes the time of every step."""

    def __init__(self, times: list[float]):
        self._times = times

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._times.append(time.perf_counter())


def main() -> None:
    """Prints the two times and their ratio."""
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
    main()
