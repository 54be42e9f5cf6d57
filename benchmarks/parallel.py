"""Several devices beside one: the same parameters, and what a step costs.

    python benchmarks/parallel.py                      every network: 20 steps, jit and pmap
    python benchmarks/parallel.py cnn mlp              some of them
    python benchmarks/parallel.py alexnet --devices 2 8
    python benchmarks/parallel.py --time               the CNN's step on 1 and 8 simulated devices
    python benchmarks/parallel.py --time --batch_size=1024

The steps are taken on 500 of MNIST's images in batches of 128, every fourth of 116; the large
AlexNets take them in batches of 16 at their smallest pictures, 63 pixels. Convolutions train at a
tenth of their recipe's rate, at which 20 first steps do not diverge. Differences are the
largest |a - b| of an array over its largest |b|, against one device; the accuracies are those of
1,000 test images. Times are of whole steps, the batch's way from the host included, each way in
processes of its own, in turn.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from typing import Any

import jax
from in_turn import in_turn

import jaxnets
from jaxnets.backprop.check import relative_error
from jaxnets.data.batches import train_batches
from jaxnets.data.datasets import Split
from jaxnets.experiment import (
    augmentation_of,
    create_parallel,
    gradients_of,
    optimizer_of,
)
from jaxnets.recipes import LARGE_ALEXNETS, PRESETS
from jaxnets.training.step import make_train_step

STEPS, BATCH, DEVICES = 20, 128, (1, 2, 4, 8)
WAYS = ("jit:1", "jit:8", "pmap:8")


def step_of(config, model, parallel, data):
    """The compiled training step."""
    return parallel.compile(
        make_train_step(
            gradients_of(config, model),
            optimizer_of(config, data),
            reduction=config.reduction,
            axis_name=parallel.axis_name,
            augment=augmentation_of(config, data),
        ),
        donate=True,
    )


def some_mnist(large: bool):
    """The first images of MNIST."""
    data = jaxnets.load_dataset("mnist", validation_size=0)
    train, test = (124, 64) if large else (500, 1000)
    cut = {name: getattr(data, name) for name in ("train", "test")}
    sizes = {"train": train, "test": test}
    return dataclasses.replace(
        data, **{n: Split(s.images[: sizes[n]], s.labels[: sizes[n]]) for n, s in cut.items()}
    )


def trained(config, data) -> tuple[Any, float]:
    """The parameters after some steps, and the test accuracy with them."""
    model, parallel = jaxnets.create_model(config, data), create_parallel(config)
    step, state = step_of(config, model, parallel, data), jaxnets.create_state(config, model, data)
    epochs = (
        train_batches(data.train, config.batch_size, seed=0, epoch=epoch)
        for epoch in itertools.count()
    )
    for batch in itertools.islice(itertools.chain.from_iterable(epochs), STEPS):
        state, _ = step(state, parallel.split(batch))
    accuracy = jaxnets.evaluate(config, model, state.params, data.test).accuracy
    return jax.device_get(state.params), accuracy


def compare(name: str, precision: str, counts: list[int]) -> tuple[int, int]:
    """Prints a line for each way of a network; how many there were, and how many are within 1e-6.

    In float64 1e-12 is asked for.
    """
    large, bound = name in LARGE_ALEXNETS, 1e-12 if precision == "float64" else 1e-6
    data, good, all_ways = some_mnist(large), 0, 0
    recipe = PRESETS[name]
    size = {"batch_size": 16 if large else BATCH, "cpu_devices": 8, "precision": precision}
    size |= {"latent_dims": None} if "latent_dims" in recipe else {}
    size |= {"image_size": 63} if large else {}
    size |= {"learning_rate": recipe["learning_rate"] / 10} if "dropout" in recipe else {}
    size |= {"augment": "none", "validation_size": 0}
    dropouts = (0.0, recipe["dropout"]) if "dropout" in recipe else (None,)  # None: it has none.
    for gradients, dropout in itertools.product(("auto", "manual"), dropouts):
        changes = {**size, "gradients": gradients}
        changes |= {} if dropout is None else {"dropout": dropout}
        one = jaxnets.preset(name, **changes, devices=1, parallel="jit")
        params, accuracy = trained(one, data)
        kinds = ("jit",) if dropout else ("jit", "pmap")  # By pmap every device drops others.
        for kind, devices in itertools.product(kinds, counts):
            if (kind, devices) == ("jit", 1):
                continue
            ours, our_accuracy = trained(
                dataclasses.replace(one, devices=devices, parallel=kind), data
            )
            (error, _), same = relative_error(ours, params), our_accuracy == accuracy
            good, all_ways = good + (error <= bound and same), all_ways + 1
            print(
                f"{name:18s}{gradients:7s} dropout {dropout or 0:.1f}  {devices} by {kind:5s}"
                f"{error:.1e}  test accuracy {our_accuracy:.4f}{'' if same else f' != {accuracy}'}",
                flush=True,
            )
        jax.clear_caches()
    return good, all_ways


def milliseconds(way: str, batch_size: int) -> float:
    """A step of the CNN, median of 7 times 10."""
    kind, devices = way.split(":")
    config = jaxnets.preset(
        "cnn", batch_size=batch_size, cpu_devices=int(devices), parallel=kind, augment="none"
    )
    data = jaxnets.load_dataset("mnist")
    model, parallel = jaxnets.create_model(config, data), create_parallel(config)
    step, state = step_of(config, model, parallel, data), jaxnets.create_state(config, model, data)
    batch = next(train_batches(data.train, batch_size, seed=0, epoch=0))
    seconds = []
    for number in range(8):
        started = time.perf_counter()
        for _ in range(10):
            state, metrics = step(state, parallel.split(batch))
            jax.block_until_ready(metrics)
        if number:  # The first compiles.
            seconds.append((time.perf_counter() - started) / 10)
    return 1000 * statistics.median(seconds)


def main() -> None:
    """Compares, or measures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("models", nargs="*", default=list(PRESETS))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--devices", nargs="*", type=int, default=list(DEVICES))
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--batch_size", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help="internal: run one way and print its time")
    flags = parser.parse_args()
    if flags.way:
        print(milliseconds(flags.way, flags.batch_size))
    elif flags.time:
        times = in_turn(WAYS, flags.rounds)
        for way in WAYS:
            ratio = statistics.median(
                ours / one for ours, one in zip(times[way], times[WAYS[0]], strict=True)
            )
            print(
                f"{way:8s}{statistics.median(times[way]):8.1f} ms a step of {flags.batch_size}"
                f"  ({min(times[way]):.1f} to {max(times[way]):.1f})  {ratio:.2f} x one device"
            )
    else:
        found = [compare(name, flags.precision, flags.devices) for name in flags.models]
        good, ways = (sum(numbers) for numbers in zip(*found, strict=True))
        print(f"{good} of {ways} ways are those of one device")


if __name__ == "__main__":
    main()
