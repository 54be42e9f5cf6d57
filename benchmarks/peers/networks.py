"""The networks that every peer builds: sizes, recipe, weights and products; without JAX.

The recipe is that of the network (`jaxnets.preset`), without what peers lack or do differently:
shifts of the images, weight decay and a schedule.
"""

import dataclasses
import math

import numpy as np

from benchmarks.peers.ways import DENSE
from jaxnets.config.resolve import preset

# Each layer's kernel, bias, ..., laid out as in Flax; its name is its path in jaxnets's parameters.
Params = dict[str, dict[str, np.ndarray]]

CHANNELS = (32, 64)  # Of cnn's two convolutions, 3 x 3 without padding, each with a 2 x 2 pool.
# alexnet's convolutions: features, window, stride, padding, whether a 3 x 3 pool of stride 2 comes.
ALEXNET = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
# resnet20's blocks: features and stride; one with a stride has a convolution as its shortcut.
RESNET20 = tuple((f, 2 if f > 16 and n == 0 else 1) for f in (16, 32, 64) for n in range(3))
# Of its batch norms: running = momentum * running + (1 - momentum) * the batch's.
EPSILON, MOMENTUM = 1e-5, 0.9


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and how it is trained; each field is one of `jaxnets.preset`."""

    model: str
    hidden: tuple[int, ...]  # Units of the hidden dense layers.
    image_shape: tuple[int, int, int]  # (H, W, C).
    num_classes: int
    batch_size: int
    dropout: float
    loss: str  # "cross_entropy", or "mse" of softmax and one-hot labels.
    optimizer: str  # "sgd" or "rmsprop".
    learning_rate: float
    momentum: float
    nesterov: bool

    @property
    def is_dense(self) -> bool:
        """Whether it has no convolution."""
        return self.model in DENSE


def network_of(model: str, **changes) -> Network:
    """A network with its recipe, some fields changed; alexnet is ImageNet's, at 224 pixels."""
    config = preset(model, **changes)
    large = model == "alexnet"
    shapes = {"alexnet": (224, 224, 3), "resnet20": (32, 32, 3)}
    return Network(
        model=model,
        hidden=(4096, 4096) if large else tuple(config.hidden or ()),
        image_shape=shapes.get(model, (28, 28, 1)),
        num_classes=1000 if large else 10,
        batch_size=config.batch_size or 128,
        dropout=config.dropout or 0.0,
        loss=config.loss,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )


def layers_of(network: Network) -> list[tuple[str, tuple[int, ...], int]]:
    """Each layer's name, the shape of its kernel, and at how many places of an image it is used.

    >>> layers_of(network_of("mlp"))
    [('hidden1', (784, 512), 1), ('logits', (512, 10), 1)]
    """
    layers: list[tuple[str, tuple[int, ...], int]] = []
    side, _, channels = network.image_shape
    if network.model == "cnn":
        for number, features in enumerate(CHANNELS, start=1):
            side -= 2
            layers.append((f"conv{number}", (3, 3, channels, features), side**2))
            side, channels = side // 2, features
        names = ["hidden"]
    elif network.model == "alexnet":
        for number, (features, window, stride, padding, pool) in enumerate(ALEXNET, start=1):
            side = (side + 2 * padding - window) // stride + 1
            layers.append((f"conv{number}", (window, window, channels, features), side**2))
            side, channels = (side - 3) // 2 + 1 if pool else side, features
        names = ["dense6", "dense7"]
    elif network.model == "resnet20":
        layers.append(("conv1", (3, 3, channels, 16), side**2))
        channels = 16
        for number, (features, stride) in enumerate(RESNET20, start=1):
            side //= stride
            block, places = f"residual{number}", side**2
            layers.append((f"{block}/chain/conv1", (3, 3, channels, features), places))
            layers.append((f"{block}/chain/conv2", (3, 3, features, features), places))
            if stride > 1:
                layers.append((f"{block}/shortcut/conv1", (1, 1, channels, features), places))
            channels = features
        side, names = 1, []  # The mean over all places.
    else:
        names = [f"hidden{number}" for number, _ in enumerate(network.hidden, start=1)]
    inputs = side * side * channels
    for name, units in zip([*names, "logits"], [*network.hidden, network.num_classes], strict=True):
        layers.append((name, (inputs, units), 1))
        inputs = units
    return layers


def flops_per_image(network: Network, training: bool) -> int:
    """Of an image's products: forward; in training also each kernel's and each input's gradient.

    The first layer's input needs no gradient.

    >>> flops_per_image(network_of("softmax"), training=True)  # 2 * 784 * 10, twice
    31360
    """
    forward = [2 * math.prod(shape) * places for _, shape, places in layers_of(network)]
    return 3 * sum(forward) - forward[0] if training else sum(forward)


def draw_params(network: Network, seed: int = 0) -> Params:
    """He et al.'s initial weights, biases 0; every peer starts from the same.

    A convolution of resnet20 has no bias but a batch norm, which changes nothing yet.
    """
    rng = np.random.default_rng(seed)
    params: Params = {}
    for name, shape, _ in layers_of(network):
        kernel = rng.standard_normal(shape, np.float32)
        kernel *= np.float32(math.sqrt(2 / math.prod(shape[:-1])))
        zeros, ones = np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32)
        params[name] = {"kernel": kernel, "bias": zeros}
        if network.model == "resnet20" and kernel.ndim == 4:
            params[name] = {"kernel": kernel}
            norm = {"scale": ones, "bias": zeros, "mean": zeros.copy(), "var": ones.copy()}
            params[name.replace("conv", "norm")] = norm
    return params


def load_images(network: Network, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images [N, H, W, C] float32 in [0, 1] and labels [N] int32: MNIST's, else random.

    N is the largest multiple of the batch size up to count, so that no peer meets a ragged batch.
    """
    count -= count % network.batch_size
    if network.image_shape == (28, 28, 1):
        from jaxnets.data.load import load_dataset

        train = load_dataset("mnist", validation_size=0).train
        return train.images[:count], train.labels[:count]
    rng = np.random.default_rng(0)
    images = rng.random((count, *network.image_shape), dtype=np.float32)
    return images, rng.integers(0, network.num_classes, count).astype(np.int32)
