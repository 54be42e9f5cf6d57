"""Pools: the maximum or the average of each window.

The window's places and its padding are those of `windows.py`.
"""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.backprop.windows import (
    Padding,
    Size,
    add_window_slices,
    window_pads,
    window_slices,
)


def max_pool_forward(
    x: jax.Array, *, window: Size, strides: Size, padding: Padding = "VALID"
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Takes the maximum of each window: y_bijc = max_a,a' X_b,(sh i + a),(sw j + a'),c.

    Args:
      x: X [B, H, W, C].
      window: (kh, kw).
      strides: (sh, sw); smaller than the window, the windows overlap.
      padding: "SAME", "VALID" or ((top, bottom), (left, right)), filled with -infinity.

    Returns:
      y [B, h, w, C] and the cache for `max_pool_backward`: which of the kh kw elements won, and
      an empty array [0, H, W, C] that remembers the shape.

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
    cache: tuple[jax.Array, jax.Array],
    d_out: jax.Array,
    *,
    window: Size,
    strides: Size,
    padding: Padding,
) -> jax.Array:
    """Gives each window's gradient to the element that won.

        ∂y_bijc/∂X_buvc = 1 where (u, v) is the winner of window (i, j), else 0
        dX_buvc = sum of d_out_bijc over the windows (i, j) that (u, v) has won

    In a tie the first in row-major order of the window wins, as in XLA.

    Args:
      cache: from `max_pool_forward`.
      d_out: [B, h, w, C].
      window: as in `max_pool_forward`.
      strides: as in `max_pool_forward`.
      padding: as in `max_pool_forward`.

    Returns:
      dX [B, H, W, C].
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


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: Size, strides: Size, padding: Padding = "VALID") -> jax.Array:
    """Pools by the maximum, and differentiates by the rule derived here.

    XLA's own gradient (select-and-scatter) is six to nine times slower on the CPU.

    Args:
      x: X [B, H, W, C].
      window: (kh, kw).
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    Returns:
      y [B, h, w, C].
    """
    return _max_pool_forward(x, window, strides, padding)[0]


def _max_pool_forward(x, window, strides, padding):
    return max_pool_forward(x, window=window, strides=strides, padding=padding)


def _max_pool_backward(window, strides, padding, cache, d_out):
    return (max_pool_backward(cache, d_out, window=window, strides=strides, padding=padding),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool_forward(
    x: jax.Array, *, window: Size, strides: Size, padding: Padding = "VALID"
) -> tuple[jax.Array, jax.Array]:
    """Averages each window: y_bijc = 1/(kh kw) sum_a,a' X_b,(sh i + a),(sw j + a'),c.

    The padding counts as zeros, as in flax.linen.avg_pool.

    Args:
      x: X [B, H, W, C].
      window: (kh, kw).
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    Returns:
      y [B, h, w, C] and the cache for `average_pool_backward`: an empty array [0, H, W, C] that
      remembers the shape.
    """
    pads = window_pads(x.shape[1:3], window, strides, padding)
    total = reduce(jnp.add, window_slices(x, window, strides, pads, fill=0))
    return total / (window[0] * window[1]), x[:0]


def average_pool_backward(
    cache: jax.Array, d_out: jax.Array, *, window: Size, strides: Size, padding: Padding
) -> jax.Array:
    """Shares each window's gradient equally among its elements.

        ∂y_bijc/∂X_buvc = 1/(kh kw) where window (i, j) covers (u, v), else 0
        dX_buvc = 1/(kh kw) sum of d_out_bijc over the windows (i, j) that cover (u, v)

    Args:
      cache: from `average_pool_forward`.
      d_out: [B, h, w, C].
      window: as in `average_pool_forward`.
      strides: as in `average_pool_forward`.
      padding: as in `average_pool_forward`.

    Returns:
      dX [B, H, W, C].
    """
    image = cache.shape[1:3]
    pads = window_pads(image, window, strides, padding)
    elements = window[0] * window[1]
    return add_window_slices([d_out / elements] * elements, image, window, strides, pads)


def adaptive_average_pool_forward(
    x: jax.Array, *, output_size: Size
) -> tuple[jax.Array, jax.Array]:
    """Averages over windows that are chosen so that h x w of them cover the image.

    Row i of the output averages the rows floor(i H / h) up to, not including, ceil((i + 1) H / h).
    As a matrix R [h, H] with 1/(number of rows) in those places, and likewise S [w, W] for columns:

        y_bijc = sum_u,v R_iu S_jv X_buvc

    Args:
      x: X [B, H, W, C].
      output_size: (h, w).

    Returns:
      y [B, h, w, C] and the cache for `adaptive_average_pool_backward`: an empty array
      [0, H, W, C] that remembers the shape.

    Source: torch.nn.AdaptiveAvgPool2d, which torchvision's AlexNet puts before its dense layers.
    """
    rows, columns = _averaging_matrices(x, output_size)
    return jnp.einsum("iu,jv,buvc->bijc", rows, columns, x), x[:0]


def adaptive_average_pool_backward(
    cache: jax.Array, d_out: jax.Array, *, output_size: Size
) -> jax.Array:
    """Applies the chain rule to y_bijc = sum_u,v R_iu S_jv X_buvc.

        dX_buvc = sum_i,j R_iu S_jv d_out_bijc       the same matrices, transposed

    Args:
      cache: from `adaptive_average_pool_forward`.
      d_out: [B, h, w, C].
      output_size: as in `adaptive_average_pool_forward`.

    Returns:
      dX [B, H, W, C].
    """
    rows, columns = _averaging_matrices(cache, output_size)
    return jnp.einsum("iu,jv,bijc->buvc", rows, columns, d_out)


def _averaging_matrices(x: jax.Array, output_size: Size) -> list[jax.Array]:
    """R [h, H] and S [w, W] of `adaptive_average_pool_forward` for an x [.., H, W, C]."""
    matrices = []
    for size, places in zip(x.shape[1:3], output_size, strict=True):
        place, row = np.arange(places)[:, None], np.arange(size)
        start, stop = place * size // places, -(-(place + 1) * size // places)
        inside = (start <= row) & (row < stop)
        matrices.append(jnp.asarray(inside / inside.sum(axis=1, keepdims=True), x.dtype))
    return matrices
