"""The max pool: the maximum of each window of `windows.py`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.backprop.windows import Padding, Size, window_pads, window_slices
from jaxnets.models.layers import MaxPool

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w C"]
Winners = UInt8[Array, "B h w C"] | Int[Array, "B h w C"]
Cache = tuple[Winners, Float[Array, "0 H W C"]]  # The empty array remembers the images' shape.


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
    height, width, channels = empty.shape[1:]
    (kh, kw), (sh, sw), (_, h, w, _) = window, strides, d_out.shape
    (top, _), (left, _) = window_pads((height, width), window, strides, padding)
    # Cut the padded image into rows x columns cells of sh x sw pixels. The pixels of cell (i, j)
    # are seen by window (i, j), as its elements (0, 0) to (sh - 1, sw - 1), by window (i - 1, j),
    # as its elements (sh, 0) to (2 sh - 1, sw - 1), and so on.
    rows, columns = -(-(top + height) // sh), -(-(left + width) // sw)
    dx = jnp.zeros((), d_out.dtype)
    for down in range(-(-kh // sh)):
        for right in range(-(-kw // sw)):
            a, b = np.arange(sh) + down * sh, np.arange(sw) + right * sw
            inside = (a < kh)[:, None] & (b < kw)
            number = np.where(inside, a[:, None] * kw + b, kh * kw)  # which never wins
            number = jnp.asarray(number, winner.dtype)[:, None, :, None]
            beside = (down, rows - h - down, 0), (right, columns - w - right, 0)
            place = ((0, 0, 0), *beside, (0, 0, 0))
            won = lax.pad(winner, jnp.zeros((), winner.dtype), place)
            gradient = lax.pad(d_out, jnp.zeros((), d_out.dtype), place)
            dx += jnp.where(won[:, :, None, :, None] == number, gradient[:, :, None, :, None], 0)
    dx = dx.reshape(-1, rows * sh, columns * sw, channels)
    return dx[:, top : top + height, left : left + width]


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


MAX_POOL = LayerRule(
    forward=max_pool_forward,
    backward=max_pool_backward,
    plain=lambda x, window, strides, padding: nn.max_pool(x, window, strides, padding),
    settings=[
        _setting((40, 6, 6, 5), (2, 2), (2, 2)),
        _setting((1, 1, 1, 1), (1, 1), (1, 1)),
        _setting((2, 7, 7, 2), (3, 3), (2, 2)),
        _setting((2, 5, 6, 2), (3, 2), (1, 2), "SAME"),
        _setting((1, 8, 7, 2), (2, 2), (3, 3)),
        _setting((2, 4, 5, 1), (2, 3), (1, 1), ((1, 0), (1, 1))),
        _setting((1, 2, 2, 1), (2, 2), (2, 2), ((1, 0), (0, 1))),
        _setting((2, 6, 4, 3), (2, 2), (2, 2), numbers="integers"),
        _setting((2, 7, 7, 2), (3, 3), (2, 2), numbers="integers"),
        _setting((1, 5, 5, 2), (3, 3), (2, 2), "SAME", numbers="equal"),
        _setting((1, 16, 16, 1), (16, 16), (16, 16)),  # The winners take more than a byte.
    ],
    static=_static,
    sides=lambda x, **static: max_pool_forward(x, **static)[1][0],
)
