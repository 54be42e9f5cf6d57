"""The layers that Flax lacks or has only as functions, the activations, He's initialisation.

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
    """Each example in one row; D is the product of the other sizes."""
    return x.reshape(x.shape[0], -1)  # An export's batch has no number yet.


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """The largest of each window of `window` × `window`, `stride` apart; no padding.

    h = (H - window) // stride + 1. Where several are largest the gradient goes to the first of
    them, row by row.
    """

    window: int = 2
    stride: int = 2

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        return nn.max_pool(x, (self.window, self.window), (self.stride, self.stride))
