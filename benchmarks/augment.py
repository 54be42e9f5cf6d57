"""The CPU time of augmentations: a conditional around each, as on a CPU, or a barrier, as on a GPU.

    python benchmarks/augment.py                       three sets of names, 128 digits
    python benchmarks/augment.py crop,flip mixup       these sets

Both ways run in turn; the figures are medians of the rounds. XLA fuses nothing across a
conditional. On the CPU it removes a barrier before it fuses, and computes images again for each of
their uses.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

import jaxnets
from jaxnets.data.batches import Batch
from jaxnets.training.augment import Augmentation

ALL = "crop,flip,mixup,affine,strokes"


def compiled(names: str, data: jaxnets.Dataset, backend: str, batch: Batch) -> Callable:
    """The augmentation's program for this backend, compiled for the CPU."""
    augment = jax.jit(Augmentation(names.split(","), data, platform=backend))
    return augment.lower(jax.random.key(0), 0, batch, 0).compile()


def milliseconds(program: Callable, batch: Batch, calls: int = 100) -> float:
    """The CPU time of a call."""
    began = time.process_time()
    for step in range(calls):
        jax.block_until_ready(program(jax.random.key(0), step, batch, 0))
    return 1e3 * (time.process_time() - began) / calls


def main() -> None:
    """Prints a line for each set of names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["affine,strokes", "flip,affine", ALL])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    data = jaxnets.load_dataset("mnist")
    batch = Batch(data.train.images[:128], data.train.labels[:128], np.ones(128, np.float32))
    for names in arguments.names:
        programs = [compiled(names, data, backend, batch) for backend in ("cpu", "gpu")]
        rounds = [[milliseconds(p, batch) for p in programs] for _ in range(arguments.rounds + 1)]
        conditionals, barriers = map(statistics.median, zip(*rounds[1:], strict=True))
        ratio = conditionals / barriers
        print(f"{names}: {conditionals:.2f} ms, barriers {barriers:.2f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
