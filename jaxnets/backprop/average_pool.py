"""The average pools: the mean of each window of `windows.py`, or of the whole image."""

import math
from functools import reduce

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnets.backprop.pooling import Images, Outputs, Shape
from jaxnets.backprop.rule import ARRAYS, BATCHES, IMAGES, WIDTHS, Domain, LayerRule, Setting
from jaxnets.backprop.windows import (
    BEYOND,
    STRIDES,
    WINDOWS,
    Size,
    sum_of_slices,
    window_pads,
    window_slices,
)
from jaxnets.models.layers import AveragePool, global_average_pool


def average_pool_forward(x: Images, *, window: Size, strides: Size) -> tuple[Outputs, Shape]:
    """Takes the mean of each window, without padding.

        y_bijc = 1/(kh kw) sum over a, a' of X_b,(sh i + a),(sw j + a'),c

    Args:
      x: X.
      window: (kh, kw).
      strides: (sh, sw); smaller than the window, the windows overlap.

    Source: LeCun et al. 1998, section II B, whose subsampling also has a weight and a bias.
    """
    pads = window_pads(x.shape[1:3], window, strides, "VALID")
    total = reduce(jnp.add, window_slices(x, window, strides, pads, fill=0))
    return total / math.prod(window), x[:0]


def average_pool_backward(cache: Shape, d_out: Outputs, *, window: Size, strides: Size) -> Images:
    """Gives each element of a window the same share of the window's gradient.

    ∂y_bijc/∂X_buvc = 1/(kh kw) where window (i, j) sees (u, v), else 0
    dX_buvc = 1/(kh kw) sum of d_out_bijc over the windows (i, j) that see (u, v)
    """
    image, elements = cache.shape[1:3], math.prod(window)
    pads = window_pads(image, window, strides, "VALID")
    return sum_of_slices([d_out / elements] * elements, image, window, strides, pads)


def _setting(batch: int, window: Size, strides: Size, beyond: Size, channels: int) -> Setting:
    """Images that the window can leave by so many rows and columns."""
    image = (k + more for k, more in zip(window, beyond, strict=True))
    return Setting((batch, *image, channels), static={"window": window, "strides": strides})


AVERAGE_POOL = LayerRule(
    name="average_pool",
    layer=AveragePool,
    fields=("window", "stride"),
    forward=average_pool_forward,
    backward=average_pool_backward,
    plain=lambda x, window, strides: nn.avg_pool(x, window, strides),
    settings=[
        _setting(3, (2, 2), (2, 2), (4, 4), 5),
        _setting(2, (3, 3), (2, 2), (4, 4), 2),  # The windows overlap.
    ],
    static=lambda layer: {"window": (layer.window,) * 2, "strides": (layer.stride,) * 2},
    domain=Domain(
        _setting,
        {
            "batch": BATCHES,
            "window": (*WINDOWS, (7, 7)),
            "strides": STRIDES,
            "beyond": BEYOND,
            "channels": WIDTHS,
        },
        draws=14,  # Each window once.
    ),
)


def global_average_pool_forward(x: Images) -> tuple[Float[Array, "B C"], Shape]:
    """Takes the mean of each channel over all places: y_bc = 1/(H W) sum over i, j of X_bijc.

    Source: Lin et al. 2013, "Network in network", section 3.2.
    """
    return x.mean((1, 2)), x[:0]


def global_average_pool_backward(cache: Shape, d_out: Float[Array, "B C"]) -> Images:
    """Gives every place the same share.

    ∂y_bc/∂X_bijc = 1/(H W), so dX_bijc = d_out_bc / (H W)
    """
    height, width = cache.shape[1:3]
    share = d_out[:, None, None] / (height * width)
    return jnp.broadcast_to(share, (len(d_out), *cache.shape[1:]))


GLOBAL_AVERAGE_POOL = LayerRule(
    name="global_average_pool",
    layer=global_average_pool,
    forward=global_average_pool_forward,
    backward=global_average_pool_backward,
    plain=lambda x: nn.avg_pool(x, x.shape[1:3])[:, 0, 0],
    settings=[Setting((2, 3, 4, 5))],
    domain=ARRAYS._replace(ranges={**ARRAYS.ranges, "places": IMAGES}),
)
