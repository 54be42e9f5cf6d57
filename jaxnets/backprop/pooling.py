"""Pools: the maximum of each window, and the average of each share of an image.

The window's places and its padding are those of `windows.py`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxnets.backprop.rule import LayerRule, Setting, by_rule
from jaxnets.backprop.windows import Padding, Size, window_pads, window_slices
from jaxnets.models.layers import AdaptiveAveragePool, MaxPool, averaging_matrix

Winners = UInt8[Array, "B h w C"] | Int[Array, "B h w C"]


def max_pool_forward(
    x: Float[Array, "B H W C"], *, window: Size, strides: Size, padding: Padding = "VALID"
) -> tuple[Float[Array, "B h w C"], tuple[Winners, Float[Array, "0 H W C"]]]:
    """Takes the maximum of each window: y_bijc = max_a,a' X_b,(sh i + a),(sw j + a'),c.

    Args:
      x: X.
      window: (kh, kw).
      strides: (sh, sw); smaller than the window, the windows overlap.
      padding: "SAME", "VALID" or ((top, bottom), (left, right)), filled with -infinity.

    Returns:
      y, and the cache for `max_pool_backward`: which of the kh kw elements won, and an empty array
      that remembers the shape.

    Source: Krizhevsky et al. 2012, section 3.4, for overlapping windows.
    """
    pads = window_pads(x.shape[1:3], window, strides, padding)

    def pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, *others = window_slices(x, window, strides, pads, fill=-jnp.inf)
        index = jnp.uint8 if len(others) < 255 else jnp.int32
        y, winner = first, jnp.zeros(first.shape, index)
        for number, candidate in enumerate(others, start=1):
            winner = jnp.where(candidate > y, jnp.asarray(number, index), winner)
            y = jnp.maximum(y, candidate)  # unlike a choice by `>`, it lets a NaN through
        return y, winner

    y, winner = pool(x)
    if tuple(window) != tuple(strides) and jax.default_backend() == "cpu":
        # The backward pass reads it in several places, where XLA would compute it anew: the pools
        # of AlexNet's step took twice the time (benchmarks/step.py).
        winner = _stored(lambda x: pool(x)[1], x)
    return y, (winner, x[:0])


def _stored(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """function(x), which XLA must store: it does not fuse what a branch returns.

    lax.optimization_barrier alone is gone by the time XLA on the CPU fuses; it does keep the
    condition from being folded away.
    """
    result = jax.eval_shape(function, x)
    always = lax.optimization_barrier(jnp.array(True))
    return lax.cond(always, function, lambda _: jnp.zeros(result.shape, result.dtype), x)


def max_pool_backward(
    cache: tuple[Winners, Float[Array, "0 H W C"]],
    d_out: Float[Array, "B h w C"],
    *,
    window: Size,
    strides: Size,
    padding: Padding,
) -> Float[Array, "B H W C"]:
    """Gives each window's gradient to the element that won.

        ∂y_bijc/∂X_buvc = 1 where (u, v) is the winner of window (i, j), else 0
        dX_buvc = sum of d_out_bijc over the windows (i, j) that (u, v) has won

    In a tie the first in row-major order of the window wins, as in XLA.

    Args:
      cache: From `max_pool_forward`.
      d_out: The gradient of y.
      window: The window of the forward pass.
      strides: The strides of the forward pass.
      padding: The padding of the forward pass.

    Returns:
      dX.
    """
    winner, shape = cache
    height, width, channels = shape.shape[1:]
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
            place = (
                (0, 0, 0),
                (down, rows - h - down, 0),
                (right, columns - w - right, 0),
                (0, 0, 0),
            )
            won = lax.pad(winner, jnp.zeros((), winner.dtype), place)
            gradient = lax.pad(d_out, jnp.zeros((), d_out.dtype), place)
            dx += jnp.where(won[:, :, None, :, None] == number, gradient[:, :, None, :, None], 0)
    dx = dx.reshape(-1, rows * sh, columns * sw, channels)
    return dx[:, top : top + height, left : left + width]


def _pick_winners(x, sides, *, window, strides, padding):
    """The elements of each window that once won, whatever they are now."""
    pads = window_pads(x.shape[1:3], window, strides, padding)
    slices = window_slices(x, window, strides, pads, fill=0)
    return lax.select_n(sides.astype(jnp.int32), *slices)


def _pool(x, window, strides, padding: Padding = "VALID", **numbers: Any) -> Setting:
    static = {"window": window, "strides": strides, "padding": padding}
    return Setting(x, static=static, **numbers)


MAX_POOL = LayerRule(
    name="max_pool",
    layer=MaxPool,
    forward=max_pool_forward,
    backward=max_pool_backward,
    plain=lambda x, window, strides, padding: nn.max_pool(x, window, strides, padding),
    settings=[
        _pool((2, 6, 4, 3), (2, 2), (2, 2)),
        _pool((1, 1, 1, 1), (1, 1), (1, 1)),
        _pool((2, 7, 7, 2), (3, 3), (2, 2)),
        _pool((2, 5, 6, 2), (3, 2), (1, 2), "SAME"),
        _pool((1, 8, 7, 2), (2, 2), (3, 3)),
        _pool((2, 4, 5, 1), (2, 3), (1, 1), ((1, 0), (1, 1))),
        _pool((2, 6, 4, 3), (2, 2), (2, 2), numbers="integers"),
        _pool((2, 7, 7, 2), (3, 3), (2, 2), numbers="integers"),
        _pool((1, 5, 5, 2), (3, 3), (2, 2), "SAME", numbers="equal"),
    ],
    static=lambda layer: {**layer.sizes, "padding": "VALID"},
    faster=lambda layer: lambda x: by_rule(MAX_POOL, MAX_POOL.static(layer), x),
    sides=lambda x, **static: max_pool_forward(x, **static)[1][0],
    on_sides=_pick_winners,
)


def adaptive_average_pool_forward(
    x: Float[Array, "B H W C"], *, output_size: Size
) -> tuple[Float[Array, "B h w C"], Float[Array, "0 H W C"]]:
    """Averages over windows that are chosen so that h x w of them cover the image.

    Row i of the output averages the rows floor(i H / h) up to, not including, ceil((i + 1) H / h).
    As a matrix R [h, H] with 1/(number of rows) in those places, and likewise S [w, W] for columns:

        y_bijc = sum_u,v R_iu S_jv X_buvc

    Args:
      x: X.
      output_size: (h, w).

    Returns:
      y, and the cache for `adaptive_average_pool_backward`: an empty array that remembers the
      shape.

    Source: torch.nn.AdaptiveAvgPool2d, which torchvision's AlexNet puts before its dense layers.
    """
    rows, columns = _averaging_matrices(x.shape[1:3], output_size, x.dtype)
    return jnp.einsum("iu,jv,buvc->bijc", rows, columns, x), x[:0]


def adaptive_average_pool_backward(
    cache: Float[Array, "0 H W C"], d_out: Float[Array, "B h w C"], *, output_size: Size
) -> Float[Array, "B H W C"]:
    """Applies the chain rule to y_bijc = sum_u,v R_iu S_jv X_buvc.

        dX_buvc = sum_i,j R_iu S_jv d_out_bijc       the same matrices, transposed

    Args:
      cache: From `adaptive_average_pool_forward`.
      d_out: The gradient of y.
      output_size: (h, w) of the forward pass.

    Returns:
      dX.
    """
    rows, columns = _averaging_matrices(cache.shape[1:3], output_size, cache.dtype)
    return jnp.einsum("iu,jv,bijc->buvc", rows, columns, d_out)


def _averaging_matrices(image: Size, output_size: Size, dtype) -> list[jax.Array]:
    """R [h, H] and S [w, W] of `adaptive_average_pool_forward`."""
    return [
        averaging_matrix(places, size, dtype)
        for places, size in zip(output_size, image, strict=True)
    ]


def _plain_adaptive_average_pool(x, output_size):
    def parts(size, places):
        return [slice(i * size // places, -(-(i + 1) * size // places)) for i in range(places)]

    rows, columns = map(parts, x.shape[1:3], output_size)
    cells = [x[:, row, column].mean((1, 2)) for row in rows for column in columns]
    return jnp.stack(cells, axis=1).reshape(len(x), *output_size, x.shape[-1])


ADAPTIVE_AVERAGE_POOL = LayerRule(
    name="adaptive_average_pool",
    layer=AdaptiveAveragePool,
    forward=adaptive_average_pool_forward,
    backward=adaptive_average_pool_backward,
    plain=_plain_adaptive_average_pool,
    settings=[
        Setting((2, 7, 5, 3), static={"output_size": (3, 2)}),
        Setting((2, 4, 4, 3), static={"output_size": (4, 4)}),
        Setting((2, 1, 1, 3), static={"output_size": (3, 3)}),
        Setting((2, 3, 2, 3), static={"output_size": (4, 3)}),
    ],
    static=lambda layer: {"output_size": (layer.size, layer.size)},
)
