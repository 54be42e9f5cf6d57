"""The max pool: the maximum of each window of `windows.py`."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxnets.backprop.rule import BATCHES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.backprop.windows import (
    BEYOND,
    STRIDES,
    WINDOWS,
    Padding,
    Size,
    window_pads,
    window_slices,
)
from jaxnets.models.layers import MaxPool

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w C"]
Winners = UInt8[Array, "B h w C"] | Int[Array, "B h w C"]
Shape = Float[Array, "0 H W C"]  # An empty array remembers the images' shape.
Cache = tuple[Winners, Shape]


def max_pool_forward(
    x: Images, *, window: Size, strides: Size, padding: Padding = "VALID"
) -> tuple[Outputs, Cache]:
    """Takes the maximum of each window: y_bijc = max_a,a' X_b,(sh i + a),(sw j + a'),c.

    The cache says which of the kh kw elements won.

    Args:
      x: X.
      window: (kh, kw).
      strides: (sh, sw); smaller than the window, the windows overlap.
      padding: "SAME", "VALID" or ((top, bottom), (left, right)), filled with -infinity.

    Source: Krizhevsky et al. 2012, section 3.4, for overlapping windows.
    """
    pads = window_pads(x.shape[1:3], window, strides, padding)
    first, *others = window_slices(x, window, strides, pads, fill=-jnp.inf)
    index = jnp.uint8 if len(others) < 255 else jnp.int32
    y, winner = first, jnp.zeros(first.shape, index)
    for number, candidate in enumerate(others, start=1):
        winner = jnp.where(candidate > y, jnp.asarray(number, index), winner)
        y = jnp.maximum(y, candidate)  # unlike a choice by `>`, it lets a NaN through
    return y, (winner, x[:0])


def max_pool_backward(
    cache: Cache, d_out: Outputs, *, window: Size, strides: Size, padding: Padding
) -> Images:
    """Gives each window's gradient to the element that won.

        ∂y_bijc/∂X_buvc = 1 where (u, v) is the winner of window (i, j), else 0
        dX_buvc = sum of d_out_bijc over the windows (i, j) that (u, v) has won

    In a tie the first in row-major order of the window wins, as in XLA.
    """
    winner, empty = cache
    height, width = empty.shape[1:3]
    (top, _), (left, _) = window_pads((height, width), window, strides, padding)
    dx = jnp.zeros((), d_out.dtype)
    for number, place in cells((top + height, left + width), d_out.shape[1:3], window, strides):
        won = lax.pad(winner, jnp.zeros((), winner.dtype), place)[:, :, None, :, None]
        gradient = lax.pad(d_out, jnp.zeros((), d_out.dtype), place)[:, :, None, :, None]
        dx += jnp.where(won == jnp.asarray(number, winner.dtype), gradient, 0)
    return joined(dx)[:, top : top + height, left : left + width]


PaddingConfig = Sequence[tuple[int, int, int]]  # As lax.pad takes it.


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


def _setting(
    x: tuple[int, ...],
    window: Size,
    strides: Size,
    padding: Padding = "VALID",
    numbers: str = "normal",
) -> Setting:
    static = {"window": window, "strides": strides, "padding": padding}
    return Setting(x, numbers=numbers, static=static)


def _static(layer: MaxPool) -> dict[str, Any]:
    return {"window": (layer.window,) * 2, "strides": (layer.stride,) * 2, "padding": "VALID"}


def _drawn(
    batch: int,
    window: Size,
    strides: Size,
    beyond: Size,
    padding: str,
    channels: int,
    numbers: str,
) -> Setting:
    """Images that are larger than the window by so many rows and columns.

    "lopsided" is not one of Flax's paddings: it is as uneven as it can be while every window
    reaches the image.
    """
    image = (k + more for k, more in zip(window, beyond, strict=True))
    pads = ((window[0] - 1, 0), (0, window[1] - 1)) if padding == "lopsided" else padding
    channels = min(channels, 1 + 100 // math.prod(window))  # A large window has large programs.
    return _setting((batch, *image, channels), window, strides, pads, numbers)


MAX_POOL = LayerRule(
    name="max_pool",
    layer=MaxPool,
    fields=("window", "stride"),
    forward=max_pool_forward,
    backward=max_pool_backward,
    plain=lambda x, window, strides, padding: nn.max_pool(x, window, strides, padding),
    settings=[
        _setting((3, 3, 3, 5), (3, 3), (3, 3)),  # The whole image, as the last pool of a network.
        _setting((2, 7, 7, 2), (3, 3), (2, 2), numbers="integers"),
        _setting((1, 5, 5, 2), (3, 3), (2, 2), "SAME", numbers="equal"),
        _setting((1, 16, 16, 1), (16, 16), (16, 16)),  # The winners take more than a byte.
    ],
    static=_static,
    sides=lambda x, **static: max_pool_forward(x, **static)[1][0],
    domain=Domain(
        _drawn,
        {
            "batch": BATCHES,
            "window": (*WINDOWS, (12, 12)),  # Its winners take a byte's last bit.
            "strides": STRIDES,
            "beyond": BEYOND,
            "padding": ("VALID", "VALID", "SAME", "SAME", "lopsided"),
            "channels": WIDTHS,
            "numbers": ("normal", "integers"),
        },
        draws=24,
    ),
)
