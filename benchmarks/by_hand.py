"""The time of epochs with gradients by hand / with jax.grad, of each network, in one process.

    python benchmarks/by_hand.py
    python benchmarks/by_hand.py mlp_functional --rounds=30

Both ways train an epoch in turn, so a drift of the machine affects both alike. For a network with
convolutions an epoch is 40 steps. The ratios are medians over the rounds.
"""

import argparse
import dataclasses
import statistics
import time

import flax.linen as nn
import jax

import jaxnets
from jaxnets.models.chain import has_layer
from jaxnets.networks.create import create_model
from jaxnets.training.step import Checkpoint

NETWORKS = ("softmax", "mlp_sequential", "mlp_functional", "mlp", "mlp_handwritten")
NETWORKS += ("cnn", "cnn_bn", "cnn_tiny", "alexnet_small", "alexnet_small_bn")
NETWORKS += ("resnet20",)
WAYS = ("auto", "manual")


def ratios(name: str, rounds: int) -> dict[str, list[float]]:
    """By hand / auto in each round, by wall time and by the process's CPU time."""
    data = jaxnets.load_dataset("mnist", validation_size=0)
    epochs = {}
    for way in WAYS:
        settings: dict = dict(gradients=way, epochs=rounds + 1, validation_size=0)
        settings["learning_rate"] = 1e-4  # In so few steps alexnet_small can diverge at its own.
        config = jaxnets.preset(name, **settings)
        if has_layer(create_model(config, data.num_classes), nn.Conv):
            config = dataclasses.replace(config, steps_per_epoch=40)
        experiment = jaxnets.Experiment.create(config, data)
        epochs[way] = experiment.epochs(Checkpoint(experiment.init_state()))
        next(epochs[way])  # Compiles.
    found: dict[str, list[float]] = {"wall": [], "CPU": []}
    for number in range(rounds):
        spent = {}
        for way in WAYS if number % 2 else reversed(WAYS):
            started = time.perf_counter(), time.process_time()
            next(epochs[way])
            spent[way] = time.perf_counter() - started[0], time.process_time() - started[1]
        for clock, manual, auto in zip(found, spent["manual"], spent["auto"], strict=True):
            found[clock].append(manual / auto)
    return found


def main() -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=12)
    flags = parser.parse_args()
    for name in flags.networks:
        found = ratios(name, flags.rounds)
        wall, cpu = (statistics.median(numbers) for numbers in found.values())
        low, high = min(found["CPU"]), max(found["CPU"])
        print(f"{name:17s}wall {wall:.2f}  CPU {cpu:.2f} ({low:.2f} to {high:.2f})", flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
