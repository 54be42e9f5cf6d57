"""A training step of AlexNet at batch 128, 224 x 224, float32: this program beside PyTorch.

    python benchmarks/alexnet.py [--rounds=5]

torchvision's network and recipe (SGD, momentum 0.9, weight decay 5e-4), 1,000 classes, dropout on,
the batch in memory. Each way runs in processes of its own, in turn, so that a drift of the machine
meets all alike; a process' figure is the fastest of four steps after the first.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from in_turn import in_turn

BATCH_SIZE, IMAGE_SIZE, NUM_CLASSES = 128, 224, 1000
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
WAYS = ("torch", "torch_channels_last", "auto", "manual")


def torch_step(images: np.ndarray, labels: np.ndarray, channels_last: bool) -> Callable[[], Any]:
    """One step of torchvision's network."""
    import torch  # pyright: ignore[reportMissingImports]
    import torchvision  # pyright: ignore[reportMissingImports]

    model = torchvision.models.alexnet(num_classes=NUM_CLASSES).train()
    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()
    if channels_last:
        model: Any = model.to(memory_format=torch.channels_last)  # type: ignore
        x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(images: np.ndarray, labels: np.ndarray, gradients: str) -> Callable[[], Any]:
    """One step of ours."""
    import jax
    import jax.numpy as jnp

    import jaxnets
    from jaxnets.data.batches import Batch
    from jaxnets.experiment import find_devices, make_loss_and_grad
    from jaxnets.kernels import accelerate
    from jaxnets.models import create_model
    from jaxnets.training.optimizer import create_optimizer
    from jaxnets.training.parallel import Parallel
    from jaxnets.training.step import TrainState, make_train_step

    config = jaxnets.preset("alexnet", input_size=IMAGE_SIZE, gradients=gradients)
    parallel = Parallel(find_devices(config), convolutions=True)
    model = create_model(config, NUM_CLASSES)
    optimizer = create_optimizer("sgd", LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    compiled = parallel.compile(
        make_train_step(make_loss_and_grad(config, accelerate(model, "cpu")), optimizer),
        donate=True,
    )
    batch = jax.device_put(Batch(images, labels, np.ones(BATCH_SIZE, np.float32)))
    params = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]
    opt_state, number = optimizer.init(params), jnp.zeros((), int)
    state = TrainState(step=number, params=params, opt_state=opt_state, key=jax.random.key(0))

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        return float(metrics.loss_sum)

    return step


def seconds(way: str) -> float:
    """The fastest of four steps of one way."""
    rng = np.random.default_rng(0)
    images = rng.random((BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    labels = rng.integers(0, NUM_CLASSES, BATCH_SIZE).astype(np.int32)
    if way.startswith("torch"):
        step = torch_step(images, labels, way.endswith("channels_last"))
    else:
        step = our_step(images, labels, way)
    step()
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Runs the ways in turn and prints their times and speeds."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help="internal: run one way and print its time")
    flags = parser.parse_args()
    if flags.way:
        warnings.simplefilter("ignore")
        print(seconds(flags.way))
        return
    taken = in_turn(WAYS, flags.rounds)
    best = [min(pair) for pair in zip(taken["torch"], taken["torch_channels_last"], strict=True)]
    for way in WAYS:
        speeds = [theirs / ours for theirs, ours in zip(best, taken[way], strict=True)]
        print(
            f"{way:20s}{statistics.median(taken[way]):6.2f} s a step "
            f"({min(taken[way]):.2f} to {max(taken[way]):.2f}), "
            f"{statistics.median(speeds):.2f} of the speed of the faster torch"
        )


if __name__ == "__main__":
    main()
