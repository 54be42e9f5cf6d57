"""A training step of examples/cifar94.py: by hand, by jax.grad, and the same recipe in PyTorch.

    python benchmarks/cifar94.py                    batch 1,250, three rounds
    python benchmarks/cifar94.py --batch_size=256   also on a busy machine: it counts CPU time

Each way runs in a process of its own, in turn; "taught" is by hand with --kernels=plain. The share
is that of sgemm's rate (NumPy, 2,048 x 2,048): the products of the convolutions as they are
defined, three times those of the forward pass, by the CPU time of the whole step. Winograd's
algorithm takes fewer, so it may exceed 1. The last line has all ratios, for one machine beside
another. PyTorch runs in its faster memory format, channels last; it needs
`pip install -e '.[oracle]'`, and is left out where it is missing.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "cifar94.py"
WAYS = ("manual", "auto", "taught", "pytorch", "sgemm")
# Outputs, window, channels and filters of the convolutions.
CONVOLUTIONS = [(31, 2, 3, 24), (31, 3, 24, 64), (15, 3, 64, 64), (15, 3, 64, 256)]
CONVOLUTIONS += [(7, 3, 256, 256), (7, 3, 256, 256), (3, 3, 256, 256)]
SIDE = 2048


def batch_of(size: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise: a step takes as long."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, side, side, 3), np.uint8)
    return images, rng.integers(0, 10, size, np.int32)


def on_noise(network: Any, size: int, side: int = 32, **changes: Any) -> tuple[Any, Any]:
    """The experiment of a network of the user's own on images of noise, and its batch."""
    import jaxnets
    from jaxnets.data.batches import train_batches
    from jaxnets.data.datasets import Dataset, Split
    from jaxnets.experiment import Experiment

    split = Split(*batch_of(size, side))
    data = Dataset("noise", 10, split, split[:0], split, checksum="")
    network = network.for_data((side, side, 3), 10)
    config = jaxnets.preset(network, batch_size=size, augment="none", **changes)
    batch = next(train_batches(split, size, seed=0, epoch=0))
    return Experiment.create(config, data), batch


def ours(gradients: str, size: int, kernels: str = "fast") -> Callable[[], object]:
    """A function that takes a step."""
    import jax

    from jaxnets.networks.own import from_file

    changes = {"gradients": gradients, "kernels": kernels, "devices": 1}
    experiment, batch = on_noise(from_file(str(EXAMPLE)), size, **changes)
    step = experiment.parallel.compile(experiment.train_step(), donate=True)
    state = experiment.init_state()

    def take() -> object:
        nonlocal state
        state, result = step(state, batch)
        return jax.block_until_ready((state, result))

    return take


def pytorch(size: int) -> Callable[[], object]:
    """The same for PyTorch: SGD as it is, Muon as published, in float32."""
    import torch  # pyright: ignore[reportMissingImports]

    network = pytorch_network().to(memory_format=torch.channels_last)
    weights: list[Any] = [one.weight for one in network if isinstance(one, torch.nn.Conv2d)][1:]
    biases = [one.bias for one in network if isinstance(one, torch.nn.BatchNorm2d)]
    groups = [{"params": biases, "lr": 0.05}, {"params": [network[-1].weight], "lr": 1e-5}]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True, weight_decay=1e-4)
    momenta = [torch.zeros_like(weight) for weight in weights]
    images, labels = batch_of(size)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x, y = x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels).long()

    def take() -> object:
        loss = torch.nn.functional.cross_entropy(network(x), y, label_smoothing=0.2)
        network.zero_grad()
        loss.backward()
        sgd.step()
        with torch.no_grad():
            for weight, momentum in zip(weights, momenta, strict=True):
                momentum.mul_(0.65).add_(weight.grad)
                update = orthogonal(weight.grad + 0.65 * momentum)
                weight.mul_(weight.shape[0] ** 0.5 / weight.norm()).sub_(update, alpha=0.19)
        return loss.item()

    return take


def pytorch_network() -> Any:
    """The layers of the example; the whitening's filters are not trained."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    def convolution(inputs: int, filters: int, *pool: Any) -> list[Any]:
        norm = nn.BatchNorm2d(filters, eps=1e-5)
        norm.weight.requires_grad = False
        return [nn.Conv2d(inputs, filters, 3, padding=1, bias=False), *pool, norm, nn.GELU("tanh")]

    whiten, groups = nn.Conv2d(3, 24, 2), []
    whiten.weight.requires_grad = False
    for inputs, filters in ((24, 64), (64, 256), (256, 256)):
        groups += convolution(inputs, filters, nn.MaxPool2d(2)) + convolution(filters, filters)
    head = [nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False)]
    return nn.Sequential(whiten, nn.GELU("tanh"), *groups, *head)


def orthogonal(gradient: Any) -> Any:
    """Three steps of Muon's iteration (Jordan 2024), for a filter as a row."""
    rows = gradient.reshape(len(gradient), -1)
    x = rows / rows.norm()
    x = x.T if len(x) > x.shape[1] else x
    for _ in range(3):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if len(rows) > rows.shape[1] else x).reshape(gradient.shape)


def sgemm() -> Callable[[], object]:
    """A function that multiplies two matrices."""
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(np.float32)
    return lambda: a @ b


def cpu_seconds(take: Callable[[], object], steps: int) -> Iterator[float]:
    """The CPU time of each step, after the first."""
    for step in range(1 + steps):
        started = time.process_time()
        take()
        if step:
            yield time.process_time() - started


def seconds_of(way: str, size: int, steps: int) -> Iterator[float]:
    """The CPU time of each step of a way."""
    if way == "sgemm":
        return cpu_seconds(sgemm(), 4 * steps)
    if way == "pytorch":
        return cpu_seconds(pytorch(size), steps)
    step = ours("manual", size, kernels="plain") if way == "taught" else ours(way, size)
    return cpu_seconds(step, steps)


def main() -> None:
    """Runs the ways in turn and prints their medians."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--batch_size", type=int, default=1250)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help="internal: run one way and print its times")
    flags = parser.parse_args()
    if flags.way:
        print(*seconds_of(flags.way, flags.batch_size, flags.steps))
        return
    here = importlib.util.find_spec("torch") is not None
    ways = [way for way in WAYS if here or way != "pytorch"]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(flags.rounds):
        for way in ways:
            command = [sys.executable, *sys.argv, f"--way={way}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds[way] += map(float, done.stdout.split())
    least = {way: min(times) for way, times in seconds.items()}
    products = sum(side**2 * window**2 * c * k for side, window, c, k in CONVOLUTIONS)
    step = 3 * 2 * products * flags.batch_size
    rates = {way: (2 * SIDE**3 if way == "sgemm" else step) / least[way] for way in ways}
    for way, times in seconds.items():
        print(
            f"{way:8s} least {least[way]:7.3f} s of CPU time, median"
            f" {statistics.median(times):7.3f} s, {rates[way] / 1e9:5.0f} GFLOP a second of a core,"
            f" {rates[way] / rates['sgemm']:.2f} of sgemm's"
        )
    peers = {"by jax.grad": "auto", "with --kernels=plain": "taught", "PyTorch": "pytorch"}
    ratios = [
        f"/ {name} {least['manual'] / least[way]:.3f}"
        for name, way in peers.items()
        if way in least
    ]
    share = rates["manual"] / rates["sgemm"]
    print(f"{machine()}: by hand {', '.join(ratios)}; {share:.2f} of sgemm's rate")


def machine() -> str:
    """The processor and JAX's version."""
    import jax

    from jaxnets.machine.platform import cpu_name

    return f"{cpu_name()}, jax {jax.__version__}"


if __name__ == "__main__":
    main()
