"""An epoch of each dense network in one compiled loop, beside the machine's sgemm rate.

    python benchmarks/dense_epoch.py
    python benchmarks/dense_epoch.py mlp mlp_handwritten

The matrix products of training are counted: forward, gradient of every kernel, gradient of every
layer's input but the first's.
"""

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from sgemm import sgemm_rate

import jaxnets
from jaxnets.training.step import Checkpoint
from jaxnets.trees import LayerParams

DENSE = ("softmax", "mlp_sequential", "mlp_functional", "mlp", "mlp_handwritten")


def flops_per_image(params: Mapping[Any, LayerParams], model) -> int:
    """Of the matrix products of one image's training."""
    sizes = [
        params[layer.name]["kernel"].size for layer in model.layers if isinstance(layer, nn.Dense)
    ]
    return 2 * (2 * sizes[0] + 3 * sum(sizes[1:]))


def main() -> None:
    """Prints a line a network; the product's rate is taken before and after each."""
    for name in sys.argv[1:] or DENSE:
        config = jaxnets.preset(name, epochs=8)
        data = jaxnets.load_dataset("mnist", validation_size=config.validation_size)
        experiment = jaxnets.Experiment.create(config, data)
        state = experiment.init_state()
        flops = flops_per_image(state.params, experiment.model) * len(data.train)
        rates, sgemm = [], [sgemm_rate()]
        started = time.perf_counter()
        for trained, record in experiment.epochs(Checkpoint(state)):
            del trained
            rates.append(flops / record["seconds"] / 1e9)
        sgemm.append(sgemm_rate())
        rate, machine = statistics.median(rates[1:]), statistics.mean(sgemm)
        print(
            f"{name:16s}{flops / rate / 1e9:7.3f} s an epoch {rate:5.0f} GFLOP/s, sgemm "
            f"{machine:4.0f}: ratio {rate / machine:.2f}  ({time.perf_counter() - started:.1f} s)"
        )
        jax.clear_caches()


if __name__ == "__main__":
    main()
