"""The layers that Flax lacks or has only as functions, the activations, He's initialisation.

In the shapes: B examples, H rows, W columns, C channels, D features.
"""

import dataclasses

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, Float, Shaped

ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "softmax": nn.softmax}

# N(0, 1) / sqrt(D / 2), He et al. 2015, section 2.2: the slide's, not JAX' he_normal, which is
# a truncated normal distribution.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def flatten(x: Shaped[Array, "B *sizes"]) -> Shaped[Array, "B D"]:
    """Each example in one row; D is the product of the other sizes."""
    return x.reshape(len(x), -1)


class DenseWithOnes(nn.Dense):
    """z = [x 1] W: a column of ones, for which W has a last row, is the bias.

    Computed as x W[:D] + W[D]: [x 1] itself would be a copy of the batch. The last row is drawn
    with the others. Source: slide "全连接神经网络的自定义编码实现", `forward`.
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "B D"]) -> Float[Array, "B K"]:
        shape = (inputs.shape[-1] + 1, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        inputs, kernel = promote_dtype(inputs, kernel, dtype=self.dtype)
        multiply = self.dot_general or lax.dot_general
        return multiply(inputs, kernel[:-1], (((1,), (0,)), ((), ()))) + kernel[-1]


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
