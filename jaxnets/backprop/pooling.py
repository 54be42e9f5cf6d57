"""The max pool: the maximum of each window of `windows.py`."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnets.backprop.rule import BATCHES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.backprop.windows import (
    BEYOND,
    STRIDES,
    WINDOWS,
    Padding,
    Size,
    sum_of_slices,
    window_pads,
    window_slices,
)
from jaxnets.models.layers import MaxPool

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w C"]
Winners = Int[Array, "B h w C"]  # a kw + a' for element (a, a')
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
    elements = jnp.stack(window_slices(x, window, strides, pads, fill=-jnp.inf))
    return elements.max(axis=0), (elements.argmax(axis=0), x[:0])


def max_pool_backward(
    cache: Cache, d_out: Outputs, *, window: Size, strides: Size, padding: Padding
) -> Images:
    """Gives each window's gradient to the element that won.

        ∂y_bijc/∂X_buvc = 1 where (u, v) is the winner of window (i, j), else 0
        dX_buvc = sum of d_out_bijc over the windows (i, j) that (u, v) has won

    In a tie the first in row-major order of the window wins, as in XLA.
    """
    winner, empty = cache
    image = empty.shape[1:3]
    pads = window_pads(image, window, strides, padding)
    gradients = [jnp.where(winner == number, d_out, 0) for number in range(math.prod(window))]
    return sum_of_slices(gradients, image, window, strides, pads)


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


def _drawn_setting(
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
        _setting((1, 16, 16, 1), (16, 16), (16, 16)),
        # 256 elements and, beside them, pixels that are none: a byte is too small (`pools.cells`).
        _setting((1, 18, 18, 1), (16, 16), (3, 3), numbers="equal"),
    ],
    static=_static,
    has_kinks=True,
    domain=Domain(
        _drawn_setting,
        {
            "batch": BATCHES,
            "window": (*WINDOWS, (12, 12)),
            "strides": STRIDES,
            "beyond": BEYOND,
            "padding": ("VALID", "VALID", "SAME", "SAME", "lopsided"),
            "channels": WIDTHS,
            "numbers": ("normal", "integers"),
        },
        draws=24,
    ),
)
