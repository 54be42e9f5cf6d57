"""A published recipe for 94 % of CIFAR-10 in eight epochs, every gradient derived by hand.

    M=--model=examples/cifar94.py
    python train.py $M --validation_size=0     on all 50,000 training images
    jaxnets evaluate RUN --views=mirror,shift  six views of each test image
    jaxnets gradcheck $M                       every gradient compared with autodiff's

The recipe is that of airbench94 (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
arXiv:2404.00498) with Muon on the filters (Jordan 2024, "Muon: An optimizer for hidden layers in
neural networks"). The published 94 % is a mean over six views of each test image.

                  32 pixels
    image         [B, 32, 32,   3]
    whiten        [B, 31, 31,  24]   2x2, not trained but for its bias, GELU
    conv2         [B, 15, 15,  64]   3x3, max pool 2x2, batch norm, GELU
    conv3         [B, 15, 15,  64]   3x3, batch norm, GELU
    conv4, conv5  [B,  7,  7, 256]   as conv2 and conv3
    conv6, conv7  [B,  3,  3, 256]   as conv2 and conv3
    pool          [B,  1,  1, 256]   3x3, max
    logits        [B, 10]
"""

from collections.abc import Hashable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from jaxnets import BatchNorm, Chain, MaxPool, flatten

Rules = dict[Hashable, optax.GradientTransformation]  # As optax writes its type.
BATCH, EPOCHS = 1250, 8
recipe = dict(
    dataset="cifar10",
    batch_size=BATCH,
    epochs=EPOCHS,
    learning_rate=0.19,  # The filters'. It falls to 0 along a line.
    schedule="linear",
    label_smoothing=0.2,
    gradients="manual",
)

# The rates of the others, and their weight decay, for a loss that is summed over the batch.
BIAS_RATE, HEAD_RATE, DECAY = 0.053, 0.67, 2e-6
WHITEN_EPOCHS = 3  # The whitening's bias is trained in the first of the epochs alone.
HEAD_SCALE = 1 / 256  # The logits are so many times a head whose weights begin with deviation 1.

# The pixels' means and deviations over all training images.
MEANS, DEVIATIONS = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
# The principal components of patches of 2x2 pixels are these four patterns of these three colours.
PATTERNS = np.array([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]])
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])  # Grey, red to blue, green to the others.
# A row for each pattern: the deviations of its components, over patches of 5,000 training images.
COMPONENTS = np.array(
    [[3.184, 0.910, 0.429], [0.630, 0.130, 0.071], [0.576, 0.120, 0.068], [0.237, 0.045, 0.033]]
)


def whitening(key, shape, dtype=jnp.float32):
    """Filters whose outputs have no correlation and deviation 1, and the same with minus.

    They take pixels from 0 to 1: w / DEVIATIONS here and `whitening_bias` are the pixels' scaling.
    """
    norms = np.sqrt((PATTERNS**2).sum((1, 2))[:, None] * (COLOURS**2).sum(1))
    filters = np.einsum("pij,cd->ijdpc", PATTERNS, COLOURS) / (norms * COMPONENTS)
    filters = filters.reshape(2, 2, 3, 12) / DEVIATIONS[:, None]
    return jnp.asarray(np.concatenate([filters, -filters], axis=-1), dtype).reshape(shape)


def whitening_bias(key, shape, dtype=jnp.float32):
    """The bias that takes the mean pixel to 0."""
    filters = whitening(key, (2, 2, 3, 24), float)
    return -jnp.einsum("ijcf,c->f", filters, MEANS).astype(dtype).reshape(shape)


def identity(key, shape, dtype=jnp.float32):
    """The first filters hand on a channel each; the others are drawn, as PyTorch draws them."""
    channels, filters = shape[2:]
    drawn = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    handed_on = jnp.zeros(shape, dtype).at[1, 1].set(jnp.eye(channels, filters, dtype=dtype))
    return jnp.where(jnp.arange(filters) < channels, handed_on, drawn)


def convolution(filters, *pool):
    """A convolution, perhaps its pool, its norm and GELU."""
    conv = nn.Conv(filters, (3, 3), use_bias=False, kernel_init=identity)
    return [conv, *pool, BatchNorm(), nn.gelu]


def model(num_classes):
    """The layers."""
    return Chain(
        [
            nn.Conv(
                24,
                (2, 2),
                padding="VALID",
                kernel_init=whitening,
                bias_init=whitening_bias,
                name="whiten",
            ),
            nn.gelu,
            *convolution(64, MaxPool(2)),
            *convolution(64),
            *convolution(256, MaxPool(2)),
            *convolution(256),
            *convolution(256, MaxPool(2)),
            *convolution(256),
            MaxPool(3),
            flatten,
            nn.Dense(
                num_classes,
                use_bias=False,
                kernel_init=nn.initializers.normal(HEAD_SCALE),
                name="logits",
            ),
        ]
    )


def augment(key, image, epoch):
    """Mirrors each image in every other epoch, and moves it by up to two pixels.

    Which epochs are an image's depends on its pixels: half of the images begin with the mirror. So
    two epochs show each image both ways, where drawing shows a quarter of them the same way twice.
    """
    bytes_ = jnp.round(255 * image).astype(jnp.uint32)
    image = jnp.where((bytes_.sum() + epoch) % 2 == 0, image, image[:, ::-1])
    padded = jnp.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    down, right = jax.random.randint(key, (2,), 0, 5)
    return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


def optimizer(learning_rate):
    """Muon for the filters, SGD for the biases and the head; norms have no scale of their own."""

    def falls_to_0_in(epochs):
        """The share of the first rate, of a rate that reaches 0 after so many epochs."""

        def share(step):
            done = 1 - learning_rate(step) / learning_rate(0)
            return jnp.maximum(1 - done * EPOCHS / epochs, 0)

        return share

    def sgd(rate, epochs=EPOCHS):
        share = falls_to_0_in(epochs)
        return optax.chain(
            optax.add_decayed_weights(DECAY / rate),
            optax.sgd(lambda step: BATCH * rate * share(step), momentum=0.85, nesterov=True),
        )

    filters = optax.chain(
        contrib.scale_by_muon(ns_steps=3, beta=0.65, weight_dimension_numbers=filter_axes),
        optax.scale_by_learning_rate(learning_rate),
        with_constant_norm(),
    )
    rules: Rules = {
        "filters": filters,
        "biases": sgd(BIAS_RATE),
        "whitening's bias": sgd(BIAS_RATE, WHITEN_EPOCHS),
        "head": sgd(HEAD_RATE * HEAD_SCALE**2),
        "nothing": optax.set_to_zero(),
    }
    return optax.multi_transform(rules, rule_names)


def rule_names(params):
    """The rule of each parameter."""

    def name(path, leaf):
        layer, kind = path[-2].key, path[-1].key
        if layer == "whiten":
            return "whitening's bias" if kind == "bias" else "nothing"
        if kind == "kernel":
            return "head" if layer == "logits" else "filters"
        return "biases" if kind == "bias" else "nothing"  # Scales stay 1; statistics follow.

    return jax.tree_util.tree_map_with_path(name, params)


def filter_axes(filters):
    """A kernel [3, 3, C, K] is a matrix with a row for each weight, a column for each filter."""
    axes = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda _: axes, filters)


def with_constant_norm():
    """Brings each kernel to the norm √K before its update."""

    def update(updates, state, params=None):
        def resized(update, kernel):
            norm = jnp.linalg.norm(kernel.ravel())
            return update + kernel * (kernel.shape[-1] ** 0.5 / norm - 1)

        return jax.tree.map(resized, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
