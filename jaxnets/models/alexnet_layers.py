"""The layers that only AlexNet uses; none has parameters.

In the shapes: B examples, H rows, W columns, C channels.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class AdaptiveAveragePool:
    """The means of size × size shares of the image.

    Cell i takes rows floor(i H / size) to ceil((i + 1) H / size) - 1; for H = size it is the
    identity. Source: torch.nn.AdaptiveAvgPool2d, with which the 2014 AlexNet takes any size.
    """

    size: int

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B {self.size} {self.size} C"]:
        rows, columns = averaging_matrices((self.size, self.size), x.shape[1:3], x.dtype)
        return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)


def averaging_matrices(
    cells: Sequence[int], image: Sequence[int], dtype: DTypeLike
) -> Iterator[jax.Array]:
    """For rows and columns, [cells, size]: line i is 1/n at the n positions of cell i, else 0."""
    for count, size in zip(cells, image, strict=True):
        cell, position = np.arange(count)[:, None], np.arange(size)
        inside = (position >= cell * size // count) & (position < -(-(cell + 1) * size // count))
        yield jnp.asarray(inside / inside.sum(axis=1, keepdims=True), dtype)


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

    With it AlexNet, made for 224 × 224 × 3, takes MNIST. An image of this shape passes unchanged.
    """

    size: int
    dtype: DTypeLike = dataclasses.field(default=jnp.float32, repr=False)  # At least.

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B {self.size} {self.size} 3"]:
        shape = (x.shape[0], self.size, self.size)
        x = x.astype(jnp.promote_types(x.dtype, self.dtype))
        if x.shape[1:3] != shape[1:3]:
            x = jax.image.resize(x, (*shape, x.shape[3]), "bilinear")
        return jnp.broadcast_to(x, (*shape, 3))


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(x - mean) / std of each channel: of red, green and blue, or of the columns of a table.

    Grey is repeated for the three colours.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: DTypeLike = dataclasses.field(default=jnp.float32, repr=False)  # At least.

    def __call__(self, x: Float[Array, "B *sizes C"]) -> Float[Array, "B *sizes K"]:
        x = x.astype(jnp.promote_types(x.dtype, self.dtype))
        return (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
