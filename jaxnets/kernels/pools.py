"""Max pools with small winners, whose backward pass writes every pixel once.

The pair goes through the elements of a window, and adds each element's gradients to the whole
image. Here each pixel is asked about the few windows that see it. XLA's own gradient
(select-and-scatter) takes 6 to 9 times as long on a CPU.
"""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxnets.backprop.pooling import MAX_POOL, Images, Outputs, Shape
from jaxnets.backprop.rules import register_rule
from jaxnets.backprop.windows import Padding, Size, window_pads, window_slices
from jaxnets.kernels.by_rule import by_rule
from jaxnets.kernels.kernel import Kernel, stored
from jaxnets.models.chain import Layer
from jaxnets.models.layers import MaxPool

PaddingConfig = Sequence[tuple[int, int, int]]  # As lax.pad takes it.
Winners = UInt8[Array, "B h w C"] | Int[Array, "B h w C"]
Cache = tuple[Winners, Shape]


def largest(elements: Sequence[Outputs]) -> tuple[Outputs, Winners]:
    """The largest of the arrays, number by number, and which of them it is: the first in a tie.

    A winner takes one byte where that is enough.
    """
    first, *others = elements
    index = jnp.uint8 if len(others) < 255 else jnp.int32
    y, winner = first, jnp.zeros(first.shape, index)
    for number, candidate in enumerate(others, start=1):
        winner = jnp.where(candidate > y, jnp.asarray(number, index), winner)
        y = jnp.maximum(y, candidate)  # unlike a choice by `>`, it lets a NaN through
    return y, winner


def cells(
    image: Size, places: Size, window: Size, strides: Size
) -> Iterator[tuple[np.ndarray, PaddingConfig]]:
    """Yields one entry for each of the windows that see a pixel.

    Cut the image into rows x columns cells of sh x sw pixels. The pixels of cell (i, j) are seen by
    window (i, j), as its elements (0, 0) to (sh - 1, sw - 1), by window (i - 1, j), as its elements
    (sh, 0) to (2 sh - 1, sw - 1), and so on.

    Args:
      image: (top + H, left + W), the rows and columns of the image and of the padding before it.
      places: (h, w).
      window: (kh, kw).
      strides: (sh, sw).

    Yields:
      (number, place): number [sh, 1, sw, 1] says which of the window's kh kw elements a pixel is,
      or kh kw if it is none of them; place pads the windows' numbers [B, h, w, C] to those of the
      cells, [B, rows, columns, C].
    """
    (h, w), (kh, kw), (sh, sw) = places, window, strides
    rows, columns = -(-image[0] // sh), -(-image[1] // sw)
    for down in range(-(-kh // sh)):
        for right in range(-(-kw // sw)):
            a, b = np.arange(sh) + down * sh, np.arange(sw) + right * sw
            inside = (a < kh)[:, None] & (b < kw)
            number = np.where(inside, a[:, None] * kw + b, kh * kw)
            beside = (down, rows - h - down, 0), (right, columns - w - right, 0)
            yield number[:, None, :, None], ((0, 0, 0), *beside, (0, 0, 0))


def joined(pixels: Float[Array, "B rows sh columns sw C"]) -> Images:
    """The image that has these cells."""
    batch, rows, sh, columns, sw, channels = pixels.shape
    return pixels.reshape(batch, rows * sh, columns * sw, channels)


class FastMaxPool(MaxPool):
    """A max pool whose winners take one byte each."""

    def __call__(self, x: Images) -> Outputs:
        return by_rule(self, x)


def fast_max_pool_forward(
    x: Images, *, window: Size, strides: Size, padding: Padding
) -> tuple[Outputs, Cache]:
    """Returns what `max_pool_forward` returns, with smaller winners."""
    pads = window_pads(x.shape[1:3], window, strides, padding)
    y, winner = largest(window_slices(x, window, strides, pads, fill=-jnp.inf))
    return y, (winner, x[:0])


def fast_max_pool_backward(
    cache: Cache, d_out: Outputs, *, window: Size, strides: Size, padding: Padding
) -> Images:
    """Returns what `max_pool_backward` returns, cell by cell."""
    winner, empty = cache
    height, width = empty.shape[1:3]
    (top, _), (left, _) = window_pads((height, width), window, strides, padding)
    dx = jnp.zeros((), d_out.dtype)
    for number, place in cells((top + height, left + width), d_out.shape[1:3], window, strides):
        won = lax.pad(winner, jnp.zeros((), winner.dtype), place)[:, :, None, :, None]
        gradient = lax.pad(d_out, jnp.zeros((), d_out.dtype), place)[:, :, None, :, None]
        dx += jnp.where(won == jnp.asarray(number, winner.dtype), gradient, 0)
    return joined(dx)[:, top : top + height, left : left + width]


FAST_MAX_POOL = MAX_POOL._replace(
    name="fast_max_pool",
    layer=FastMaxPool,
    forward=fast_max_pool_forward,
    backward=fast_max_pool_backward,
)
register_rule(FAST_MAX_POOL)


class OverlappingMaxPool(MaxPool):
    """A max pool with overlapping windows, whose winners XLA on a CPU must store."""

    def __call__(self, x: Images) -> Outputs:
        return by_rule(self, x)


def overlapping_max_pool_forward(
    x: Images, *, window: Size, strides: Size, padding: Padding
) -> tuple[Outputs, Cache]:
    """Returns what `fast_max_pool_forward` returns, with its winners stored.

    The backward pass reads them in several places, where XLA would compute them again: the pools of
    AlexNet's step took twice the time (benchmarks/step.py).
    """

    def pool(x: Images) -> tuple[Outputs, Cache]:
        return fast_max_pool_forward(x, window=window, strides=strides, padding=padding)

    y, (_, empty) = pool(x)
    return y, (stored(lambda x: pool(x)[1][0], x), empty)


OVERLAPPING_MAX_POOL = FAST_MAX_POOL._replace(
    name="overlapping_max_pool",
    layer=OverlappingMaxPool,
    forward=overlapping_max_pool_forward,
)
register_rule(OVERLAPPING_MAX_POOL)


def _overlapping(layer: Layer) -> list[Layer] | None:
    if type(layer) is not MaxPool or layer.window == layer.stride:
        return None
    return [OverlappingMaxPool(layer.window, layer.stride)]


def _max_pool(layer: Layer) -> list[Layer] | None:
    return [FastMaxPool(layer.window, layer.stride)] if type(layer) is MaxPool else None


OVERLAPPING_MAX_POOL_KERNEL = Kernel(
    run=1,
    replace=_overlapping,
    rule=OVERLAPPING_MAX_POOL,
    pair=MAX_POOL,
    benchmark="python benchmarks/kernels.py overlapping_max_pool",
)
MAX_POOL_KERNEL = Kernel(
    run=1,
    replace=_max_pool,
    rule=FAST_MAX_POOL,
    pair=MAX_POOL,
    benchmark="python benchmarks/kernels.py fast_max_pool",
    everywhere=True,
)
