"""Wrong backward passes of layers that take images."""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from jaxnets.backprop.convolution import conv_backward
from jaxnets.backprop.pooling import max_pool_forward
from jaxnets.backprop.windows import Pads, Size, window_pads, window_slices
from jaxnets.gradcheck.mutants.mutant import breaks


@breaks("conv")
def conv_unflipped_kernel(cache, dz, **sliding):
    """The kernel slides over dz just as it slid over x."""
    x, params = cache
    d_params, _ = conv_backward(cache, dz, **sliding)
    flipped = {**params, "kernel": lax.rev(params["kernel"], (0, 1))}
    _, dx = conv_backward((x, flipped), dz, **sliding)  # which flips it once more
    return d_params, dx


@breaks("conv")
def conv_padding_off_by_one(cache, dz, *, strides, padding, groups):
    """Of an odd number of rows of padding, the odd one is at the top."""
    x, params = cache
    pads = window_pads(x.shape[1:3], params["kernel"].shape[:2], strides, padding)
    pads = [(high, low) for low, high in pads]
    return conv_backward(cache, dz, strides=strides, padding=pads, groups=groups)


@breaks("conv")
def conv_ignores_stride(cache, dz, *, strides, padding, groups):
    """Element (a, b) of the window visits the rows from a on and the columns from b on."""
    x, params = cache
    kernel = params["kernel"]
    pads = window_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    d_params, dx = conv_backward(cache, dz, strides=strides, padding=padding, groups=groups)

    def split(v):
        return v.reshape(*v.shape[:3], groups, -1)

    visited = [
        jnp.einsum("bijgc,bijgk->cgk", split(part[:, : dz.shape[1], : dz.shape[2]]), split(dz))
        for part in window_slices(x, kernel.shape[:2], (1, 1), pads, fill=0)
    ]
    return {**d_params, "kernel": jnp.stack(visited).reshape(kernel.shape)}, dx


@breaks("conv")
def conv_forgets_groups(cache, dz, *, groups, **sliding):
    """A filter sees C / groups channels of x: the first ones."""
    x, params = cache
    seen = jnp.concatenate([x[..., : x.shape[-1] // groups]] * groups, axis=-1)
    d_params, _ = conv_backward((seen, params), dz, groups=groups, **sliding)
    _, dx = conv_backward(cache, dz, groups=groups, **sliding)
    return d_params, dx


@breaks("conv")
def conv_bias_as_mean(cache, dz, **sliding):
    """The bias stands at every place, so it gets the places' average, summed over the batch."""
    d_params, dx = conv_backward(cache, dz, **sliding)
    if "bias" in d_params:
        d_params["bias"] = dz.mean(axis=(1, 2)).sum(axis=0)
    return d_params, dx


def add_window_slices(
    slices: Sequence[jax.Array], image: Size, window: Size, strides: Size, pads: Pads
) -> jax.Array:
    """Adds slices up where they came from: the transpose of `window_slices`.

    Element (a, b) of window (i, j) stood on pixel (sh i + a - top, sw j + b - left), so its slice
    is spread out by the strides and shifted there. What falls on the padding is dropped.

    Args:
      slices: kh kw arrays [B, h, w, C].
      image: (H, W).
      window: (kh, kw).
      strides: (sh, sw).
      pads: from `window_pads`.

    Returns:
      [B, H, W, C].
    """
    (height, width), (kh, kw), (sh, sw) = image, window, strides
    (top, _), (left, _) = pads
    _, h, w, _ = slices[0].shape

    def spread(part: jax.Array, a: int, b: int) -> jax.Array:
        low_row, low_column = a - top, b - left
        high_row = height - (sh * (h - 1) + 1) - low_row
        high_column = width - (sw * (w - 1) + 1) - low_column
        padding = ((low_row, high_row, sh - 1), (low_column, high_column, sw - 1))
        return lax.pad(part, jnp.zeros((), part.dtype), ((0, 0, 0), *padding, (0, 0, 0)))

    offsets = [(a, b) for a in range(kh) for b in range(kw)]
    return reduce(jnp.add, (spread(part, *at) for part, at in zip(slices, offsets, strict=True)))


def max_pool_keeping_x(x, **sliding):
    """Max pooling whose cache is x and y instead of the winners."""
    y, _ = max_pool_forward(x, **sliding)
    return y, (x, y)


@breaks("max_pool", forward=max_pool_keeping_x)
def max_pool_counts_ties(cache, d_out, *, window, strides, padding):
    """Whoever equals the maximum has won."""
    x, y = cache
    pads = window_pads(x.shape[1:3], window, strides, padding)
    slices = window_slices(x, window, strides, pads, fill=-jnp.inf)
    parts = [jnp.where(part == y, d_out, 0) for part in slices]
    return add_window_slices(parts, x.shape[1:3], window, strides, pads)


@breaks("max_pool", forward=max_pool_keeping_x)
def max_pool_tie_to_last(cache, d_out, *, window, strides, padding):
    """Go through the window and remember the place of the maximum."""
    x, y = cache
    pads = window_pads(x.shape[1:3], window, strides, padding)
    slices = window_slices(x, window, strides, pads, fill=-jnp.inf)
    winner = jnp.zeros(y.shape, int)
    for number, part in enumerate(slices):
        winner = jnp.where(part == y, number, winner)
    parts = [jnp.where(winner == number, d_out, 0) for number in range(len(slices))]
    return add_window_slices(parts, x.shape[1:3], window, strides, pads)


@breaks("max_pool")
def max_pool_averages_overlaps(cache, d_out, *, window, strides, padding):
    """An element has one gradient: where several windows chose it, their average."""
    winner, shape = cache
    image = shape.shape[1:3]
    pads = window_pads(image, window, strides, padding)
    wins = [(winner == number).astype(d_out.dtype) for number in range(window[0] * window[1])]
    total = add_window_slices([win * d_out for win in wins], image, window, strides, pads)
    count = add_window_slices(wins, image, window, strides, pads)
    return total / jnp.maximum(count, 1)


@breaks("max_pool")
def max_pool_pays_everyone(cache, d_out, *, window, strides, padding):
    """Each element of the window took part in the comparison."""
    _, shape = cache
    image = shape.shape[1:3]
    pads = window_pads(image, window, strides, padding)
    return add_window_slices([d_out] * (window[0] * window[1]), image, window, strides, pads)


def near(channels, n):
    """The matrix [C, C] whose row i is 1 at the channels of N(i)."""
    i, j = jnp.arange(channels)[:, None], jnp.arange(channels)
    return ((i - n // 2 <= j) & (j <= i + (n - 1) // 2)).astype(float)


@breaks("local_response_norm")
def local_response_norm_forgets_neighbours(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """s_i is a number by which x_i is divided."""
    x, squares = cache
    return dy * (k + alpha * squares) ** -beta


@breaks("local_response_norm")
def local_response_norm_keeps_exponent(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """A power's derivative brings its exponent down."""
    x, squares = cache
    s = k + alpha * squares
    shared = (dy * x * s**-beta) @ near(x.shape[-1], n).astype(x.dtype)
    return dy * s**-beta - 2 * alpha * beta * x * shared


@breaks("local_response_norm")
def local_response_norm_looks_the_same_way(cache, dy, *, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """Channel j sums over the channels of N(j), as in the forward pass."""
    x, squares = cache
    s = k + alpha * squares
    shared = (dy * x * s ** (-beta - 1)) @ near(x.shape[-1], n).T.astype(x.dtype)
    return dy * s**-beta - 2 * alpha * beta * x * shared
