"""Do several devices give the same parameters as one? step.py measures what a step costs.

    python benchmarks/parallel.py                      every network: 20 steps, all three ways
    python benchmarks/parallel.py cnn mlp              some of them
    python benchmarks/parallel.py alexnet --devices 2 8

The steps are taken on 500 of MNIST's images in batches of 128, every fourth of 116; the large
AlexNets take 5, on 68 images in batches of 16, every fifth of 4. AlexNets train at a tenth of their
recipe's rate, so that the first steps do not diverge. Differences are the largest |a - b| of an
array over its largest |b|, against one device: after all steps, and after each single step taken
from the one device's state. If a single step differs by more, it counts the units that a ReLU or a
max pool treats differently. The accuracies are those of 1,000 test images, or of 64.
"""

import argparse
import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

import jaxnets
from jaxnets.backprop.rules import KINDS
from jaxnets.config.recipes import LARGE_ALEXNETS, PRESETS
from jaxnets.data.batches import train_batches
from jaxnets.data.datasets import Split
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import relative_error
from jaxnets.machine.platform import compiler_options
from jaxnets.models.chain import map_layers
from jaxnets.models.layers import MaxPool
from jaxnets.training.pixels import to_float

STEPS, STEPS_OF_LARGE, BATCH, DEVICES = 20, 5, 128, (1, 2, 4, 8)


def some_mnist(large: bool):
    """The first images of MNIST."""
    data = jaxnets.load_dataset("mnist", validation_size=0)
    train, test = (68, 64) if large else (500, 1000)
    cut = {name: getattr(data, name) for name in ("train", "test")}
    sizes = {"train": train, "test": test}
    return dataclasses.replace(
        data, **{n: Split(s.images[: sizes[n]], s.labels[: sizes[n]]) for n, s in cut.items()}
    )


def sides(model, params, images, key):
    """On which side of its kink each unit of a training step's forward pass is."""
    found: list[jax.Array] = []

    def recording(layer):
        """The same layer, which appends the side of each unit, or each pool's winners."""
        if layer is not nn.relu and not isinstance(layer, MaxPool):
            return layer
        rule = KINDS[type(layer) if isinstance(layer, MaxPool) else layer]

        def recorded(x):
            found.append(x > 0 if layer is nn.relu else rule.forward(x, **rule.static(layer))[1][0])
            return layer(x)

        return recorded

    map_layers(model, recording).apply(
        {"params": params}, to_float(images), train=True, rngs={"dropout": key}
    )
    return found


class Way:
    """Steps with one placement, from its own state and from that of the one device."""

    def __init__(self, config, data):
        """At the first state."""
        self.config, self.data = config, data
        self.experiment = Experiment.create(config, data)
        self.model, self.parallel = self.experiment.model, self.experiment.parallel
        self.step = self.parallel.compile(self.experiment.train_step(), donate=True)
        self.state = self.experiment.init_state()
        self.sides = jax.jit(
            functools.partial(sides, self.model), compiler_options=compiler_options("cpu")
        )
        self.count_crossed = self.parallel.compile(self._crossed, replicated=2)
        self.single_steps: list[float] = []  # How far each is from the one device's.
        self.crossed: list[int] = []  # Of those that are far, how many units' sides differ.

    def _crossed(self, params, key, rows):
        """How many units of the rows are on a different side than given."""
        images, mask, told = rows
        ours = sides(self.model, params, images, key)
        count = sum(
            jnp.sum((a != b) & (mask > 0).reshape(-1, *[1] * (a.ndim - 1)))
            for a, b in zip(ours, told, strict=True)
        )
        axis = self.parallel.axis_name
        return count if axis is None else lax.psum(count, axis)

    def go(self, batch) -> None:
        """Takes the next step."""
        self.state, _ = self.step(self.state, self.parallel.split(batch))

    def go_from(self, before, one: "Way", batch, bound: float) -> None:
        """Takes the step that one device took from a state, and compares."""
        copy = self.parallel.replicate(jax.tree.map(jnp.copy, before))  # The step uses it up.
        after, _ = self.step(copy, self.parallel.split(batch))
        error, _ = relative_error(after.params, one.state.params)
        self.single_steps.append(error)
        if error > bound:
            key = jax.random.fold_in(before.key, before.step)
            told = one.sides(before.params, batch.images, key)
            rows = self.parallel.split(jax.device_get((batch.images, batch.mask, told)))
            whole = self.parallel.replicate((before.params, key))
            self.crossed.append(int(self.count_crossed(*whole, rows)))

    def accuracy(self) -> float:
        """That of the test images."""
        return self.experiment.evaluate(self.state.params, self.data.test).accuracy


def compare(name: str, precision: str, counts: list[int]) -> list[int]:
    """Prints a line for each way of a network, and adds them up.

    Returns:
      How many ways there were; how many ended within 1e-6 (in float64: 1e-12) with the same
      accuracy; how many single steps there were; how many were within it; how many of the others
      crossed a kink.
    """
    large, bound = name in LARGE_ALEXNETS, 1e-12 if precision == "float64" else 1e-6
    data, totals = some_mnist(large), [0] * 5
    recipe = PRESETS[name]
    batch_size = 16 if large else BATCH
    size = {"batch_size": batch_size, "cpu_devices": 8, "precision": precision}
    size |= {"learning_rate": recipe["learning_rate"] / 10} if "input_size" in recipe else {}
    size |= {"augment": "none", "validation_size": 0}
    dropouts = (0.0, recipe["dropout"]) if "dropout" in recipe else (None,)  # None: it has none.
    for gradients, dropout in itertools.product(("auto", "manual"), dropouts):
        changes = {**size, "gradients": gradients}
        changes |= {} if dropout is None else {"dropout": dropout}
        config = jaxnets.preset(name, **changes, devices=1, parallel="jit")
        one = Way(config, data)
        # By shard_map and pmap every device drops others.
        kinds = ("jit",) if dropout else ("jit", "shard_map", "pmap")
        ways = [
            Way(dataclasses.replace(config, devices=devices, parallel=kind), data)
            for kind, devices in itertools.product(kinds, counts)
            if (kind, devices) != ("jit", 1)
        ]
        epochs = (
            train_batches(data.train, batch_size, seed=0, epoch=epoch)
            for epoch in itertools.count()
        )
        steps = STEPS_OF_LARGE if large else STEPS
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), steps):
            before = jax.tree.map(jnp.copy, one.state)
            one.go(batch)
            for way in ways:
                way.go(batch)
                way.go_from(before, one, batch, bound)
        accuracy = one.accuracy()
        for way in ways:
            error, _ = relative_error(way.state.params, one.state.params)
            ours = way.accuracy()
            near = sum(error <= bound for error in way.single_steps)
            numbers = [1, error <= bound and ours == accuracy, steps, near,
                       sum(count > 0 for count in way.crossed)]  # fmt: skip
            totals = [sum(pair) for pair in zip(totals, numbers, strict=True)]
            print(
                f"{name:18s}{gradients:7s} dropout {dropout or 0:.1f}  "
                f"{way.config.devices} by {way.config.parallel:10s}{error:.1e}  "
                f"test accuracy {ours:.4f}{'' if ours == accuracy else f' != {accuracy}'}  "
                f"single steps: {near} of {steps} near, at most {max(way.single_steps):.1e}"
                f"{f', units across {way.crossed}' if way.crossed else ''}",
                flush=True,
            )
        jax.clear_caches()
    return totals


def main() -> None:
    """Compares and counts."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("models", nargs="*", default=list(PRESETS))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--devices", nargs="*", type=int, default=list(DEVICES))
    flags = parser.parse_args()
    found = [compare(name, flags.precision, flags.devices) for name in flags.models]
    ways, good, steps, near, crossed = (sum(numbers) for numbers in zip(*found, strict=True))
    print(f"{good} of {ways} ways end as one device does")
    print(
        f"{near} of {steps} steps from its states go where it went; "
        f"of the other {steps - near}, {crossed} saw a unit on the other side of its kink"
    )


if __name__ == "__main__":
    main()
