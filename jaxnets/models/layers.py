"""The layers that Flax lacks or has only as functions; most have no parameters and are hashable.

In the shapes: B examples, H rows, W columns, C channels, D features.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, Float, Shaped


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
        multiply = self.dot_general or jax.lax.dot_general
        return multiply(inputs, kernel[:-1], (((1,), (0,)), ((), ()))) + kernel[-1]


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """The largest of each window of `window` × `window`, `stride` apart; no padding.

    h = (H - window) // stride + 1. Where several are largest the gradient goes to the first of
    them, row by row.
    """

    window: int = 2
    stride: int = 2

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The window and the strides in both directions."""
        return {
            "window": (self.window, self.window),
            "strides": (self.stride, self.stride),
        }

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        window, strides = self.sizes.values()
        return nn.max_pool(x, window_shape=window, strides=strides, padding="VALID")


@dataclasses.dataclass(frozen=True)
class AdaptiveAveragePool:
    """The means of size × size shares of the image.

    Cell i takes rows floor(i H / size) to ceil((i + 1) H / size) - 1; for H = size it is the
    identity. Source: torch.nn.AdaptiveAvgPool2d, with which the 2014 AlexNet takes any size.
    """

    size: int

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B {self.size} {self.size} C"]:
        rows = averaging_matrix(self.size, x.shape[1], x.dtype)
        columns = averaging_matrix(self.size, x.shape[2], x.dtype)
        return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)


def averaging_matrix(cells: int, size: int, dtype) -> Float[Array, "{cells} {size}"]:
    """Row i holds 1/n at the n positions that cell i averages, else 0."""
    cell, position = np.arange(cells)[:, None], np.arange(size)
    inside = (position >= cell * size // cells) & (position < -(-(cell + 1) * size // cells))
    return jnp.asarray(inside / inside.sum(axis=1, keepdims=True), dtype)


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """y_i = x_i / (k + alpha Σⱼ x_j²)^beta, j the n channels around i.

    Source: Krizhevsky et al. 2012, section 3.3. (PyTorch divides its alpha by n.)
    """

    k: float = 2.0
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75

    def __call__(self, x: Float[Array, "*sizes C"]) -> Float[Array, "*sizes C"]:
        window = (1,) * (x.ndim - 1) + (self.n,)
        pads = ((0, 0),) * (x.ndim - 1) + ((self.n // 2, (self.n - 1) // 2),)
        zero = np.zeros((), x.dtype)  # a constant, by which JAX sees that this is a sum
        squares = lax.reduce_window(x * x, zero, lax.add, window, (1,) * x.ndim, pads)
        return x * (self.k + self.alpha * squares) ** -self.beta


@dataclasses.dataclass(frozen=True)
class Enlarge:
    """Enlarges by bilinear interpolation and repeats grey to three channels.

    How AlexNet, made for 224 × 224 × 3, takes MNIST. An image that has the shape passes unchanged.
    """

    size: int

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B {self.size} {self.size} 3"]:
        shape = (len(x), self.size, self.size)
        if x.shape[1:3] != shape[1:3]:
            x = jax.image.resize(x, (*shape, x.shape[3]), "bilinear")
        return jnp.broadcast_to(x, (*shape, 3))


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x - mean) / std of each channel; grey is repeated.

    Attributes:
      mean: The means of red, green and blue, for pixels in [0, 1].
      std: The numbers by which each is divided.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
        return (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
