"""Layers that Flax lacks or has only as functions, the activations, and He's initialization.

In the shapes: B examples, H rows, W columns, C channels, D features.
"""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float, Shaped

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "softmax": nn.softmax}

# N(0, 1) / sqrt(D / 2), He et al. 2015, section 2.2: the slide's, not JAX's he_normal, which is
# a truncated normal distribution.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def flatten(x: Shaped[Array, "B *sizes"]) -> Shaped[Array, "B D"]:
    """Writes each example in one row.

    Args:
      x: Examples of any shape.

    Returns:
      Rows of D numbers; D is the product of the other sizes.
    """
    return x.reshape(x.shape[0], -1)  # An export's batch has no number yet.


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """The largest number of each window of `window` × `window`, `stride` apart; no padding.

    h = (H - window) // stride + 1. If several are largest, the gradient goes to the first of
    them, row by row.
    """

    window: int = 2
    stride: int = 2

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return nn.max_pool(x, (self.window, self.window), (self.stride, self.stride))


@dataclasses.dataclass(frozen=True)
class AveragePool:
    """The mean of each window of `window` × `window`, `stride` apart; no padding.

    h = (H - window) // stride + 1.
    """

    window: int = 2
    stride: int = 2

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return nn.avg_pool(x, (self.window, self.window), (self.stride, self.stride))


def global_average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B C"]:
    """The mean of each channel over all places.

    Args:
      x: Activations [B, H, W, C].

    Returns:
      Means [B, C].
    """
    return x.mean((1, 2))


@dataclasses.dataclass(frozen=True)
class LeakyReLU:
    """x where x >= 0, else slope x. nn.leaky_relu is LeakyReLU(0.01)."""

    slope: float = 0.01

    def __call__(self, x: Float[Array, "*sizes"]) -> Float[Array, "*sizes"]:
        return nn.leaky_relu(x, self.slope)
