"""Wide convolutions with Winograd's algorithm: 25 products for nine 3x3 windows instead of 81.

In one dimension, with a window of 3, five pixels d give three outputs z_i = d_i w_0 + d_(i+1) w_1 +
d_(i+2) w_2. This operation is the transpose of another one: the product of two polynomials with
three coefficients each. The product has degree 4, so its values at five points determine it, and
each value takes one multiplication: five instead of nine. The points are 0, 1, -1, 2 and infinity,
where the value is the leading coefficient. Three matrices say all this, * number by number:

    z = Aᵀ [(G w) * (Bᵀ d)]

A and G evaluate polynomials at the points; B interpolates, without its denominators, which G has.
In two dimensions

    z = Aᵀ M A,   M = U * V,   U = G w Gᵀ,   V = Bᵀ d B         d, U, V, M: 5 x 5; z: 3 x 3

With channels, each of the 25 places of M is a matrix product over all tiles: M [N, K] = V [N, C]
U [C, K]. With many channels this is most of the work.

Larger tiles take more points, and fewer products per output: 64 for 6x6 outputs, which take 100 in
tiles of 3x3. Each layer uses the tiles with the fewest products: nine of 5x5 for 13x13 outputs.

Every other step is also linear, and written as one matrix for all numbers of a tile, V = (Bᵀ ⊗ Bᵀ)
d; its gradient is the transposed matrix. `conv_pool.py` has the smaller tiles that fit a pool.
Source: Lavin and Gray 2016, section 4, whose matrices are those of Cook and Toom.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnets.backprop.windows import Pads, Size
from jaxnets.base.trees import Tree

STEPS = 3, 4, 5, 6  # The outputs of a tile, in each direction.
# And infinity. The numbers are small, because large powers would round. There are eight in all, for
# tiles of at most 8x8 pixels: a ninth would cost a digit. With -2 in place of -0.5, the error of
# 4x4 tiles is three times as large.
POINTS = (0, 1, -1, 2, -0.5, -2, 0.5)

Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w K"]
Filters = Float[Array, "r r C K"]


class Limits(NamedTuple):
    """The sizes between which the products of a layer's tiles are fast."""

    fewest_tiles: int = 128  # The rows of V and M. Smaller matrices multiply slowly.
    block: int = 2**25  # The most numbers in V or M at a time: 128 MB in float32.
    fewest_channels: int | None = None  # None: those of `convolution.FEWEST_CHANNELS`.


LIMITS = Limits()
# For checks: few channels are computed in tiles, and few images in several blocks, as many are in
# training. So the exact check sees every tile, which takes small arrays.
SMALL = Limits(fewest_tiles=4, block=2**12, fewest_channels=4)


class Tiling(NamedTuple):
    """The tiles that cover a layer's outputs; the last ones may reach beyond them."""

    step: int  # The outputs of a tile, in each direction.
    outputs: list[int]  # Rows and columns.
    tiles: list[int]  # Rows and columns.
    products: int  # For an image and a pair of channels.


def is_faster(x: Images, window: Size, strides: Size, pads: Pads, limits: Limits = LIMITS) -> bool:
    """Whether a convolution of many channels is faster in tiles than as XLA computes it.

    It must have many tiles, most of them whole. bfloat16 has too few digits for the sums.
    """
    if tuple(strides) != (1, 1) or x.dtype not in (jnp.float32, jnp.float64):
        return False
    _, outputs, tiles, products = tiling_of(x, window, pads, limits)
    saves_half = products <= math.prod(outputs) * math.prod(window) / 2
    return saves_half and len(x) * math.prod(tiles) >= limits.fewest_tiles


def tiling_of(x: Images, window: Size, pads: Pads, limits: Limits) -> Tiling:
    """The tiles with the fewest products; if possible, not too few tiles."""
    padded = [size + low + high for size, (low, high) in zip(x.shape[1:3], pads, strict=True)]
    outputs = [size - k + 1 for size, k in zip(padded, window, strict=True)]

    def covering(step: int) -> Tiling:
        tiles = [-(-size // step) for size in outputs]
        return Tiling(step, outputs, tiles, math.prod(tiles) * (window[0] + step - 1) ** 2)

    def cost(tiling: Tiling) -> tuple[bool, int]:
        return len(x) * math.prod(tiling.tiles) < limits.fewest_tiles, tiling.products

    steps = [step for step in STEPS if window[0] + step - 2 <= len(POINTS)]
    return min(map(covering, steps), key=cost)


def convolve(x: Images, kernel: Filters, pads: Pads, limits: Limits = LIMITS) -> Outputs:
    """Computes a convolution with stride 1 tile by tile: z = Aᵀ (U * V) A.

    Args:
      x: X.
      kernel: W.
      pads: ((top, bottom), (left, right)).
      limits: Of the tiles' number, and of the numbers computed at a time.
    """
    window, features = kernel.shape[:2], kernel.shape[3]
    tiling = tiling_of(x, window, pads, limits)
    step, (rows, columns), (h, w), _ = tiling
    at, bt, g = matrices(window[0], step)
    u = _times(g, kernel.reshape(-1, *kernel.shape[2:]))

    def outputs(x: jax.Array) -> jax.Array:
        z = _times(at, _times(bt, _tiles(x, tiling, len(bt), pads)) @ u)
        z = z.reshape(step, step, -1, h, w, features).transpose(2, 3, 0, 4, 1, 5)
        return z.reshape(-1, step * h, step * w, features)[:, :rows, :columns]

    return in_blocks(limits.block, outputs, h * w * len(u) * max(u.shape[1:]), x)


def kernel_gradient(
    x: Images, dz: Outputs, window: Size, pads: Pads, limits: Limits = LIMITS
) -> Filters:
    """Applies the chain rule to z = Aᵀ (U * V) A: transposed matrices in reverse order.

        dM = A dz Aᵀ
        dU = V * dM     summed over the tiles: dU [C, K] = Vᵀ [C, N] dM [N, K]
        dW = Gᵀ dU G

    X's gradient needs no function: it is the convolution of dz with the flipped W.
    """
    tiling = tiling_of(x, window, pads, limits)
    step, (rows, columns), (h, w), _ = tiling
    at, bt, g = matrices(window[0], step)

    def gradient(x: jax.Array, dz: jax.Array) -> jax.Array:
        dz = jnp.pad(dz, [(0, 0), (0, step * h - rows), (0, step * w - columns), (0, 0)])
        dz = dz.reshape(-1, h, step, w, step, dz.shape[-1]).transpose(2, 4, 0, 1, 3, 5)
        d_m = _times(at.T, dz.reshape(step**2, -1, dz.shape[-1]))
        return jnp.einsum("tnc,tnk->tck", _times(bt, _tiles(x, tiling, len(bt), pads)), d_m)

    d_u = sum_in_blocks(
        limits.block, gradient, h * w * len(g) ** 2 * max(x.shape[-1], dz.shape[-1]), x, dz
    )
    return _times(g.T, d_u).reshape(*window, *d_u.shape[1:])


def matrices(window: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns Aᵀ [step, T], Bᵀ [T, T] and G [T, window] for T = window + step - 1 pixels.

    >>> at, bt, g = matrices(window=3, step=3)
    >>> at.astype(int).tolist()
    [[1, 1, 1, 1, 0], [0, 1, -1, 2, 0], [0, 1, 1, 4, 1]]
    """
    points = np.array(POINTS[: window + step - 2])
    others = [np.delete(points, i) for i in range(len(points))]
    # The polynomials that are 0 at all points but one, the lowest coefficient first; infinity last.
    bt = np.array([[*np.poly(roots)[::-1], 0] for roots in others] + [np.poly(points)[::-1]])
    denominators = [np.prod(point - roots) for point, roots in zip(points, others, strict=True)]

    def values(size: int) -> np.ndarray:
        return np.vstack([np.vander(points, size, increasing=True), np.eye(size)[-1]])

    return values(step).T, bt, values(window) / [[d] for d in (*denominators, 1)]


def in_blocks(block: int, function: Callable[..., Tree], numbers: int, *arrays: jax.Array) -> Tree:
    """Calls a function of images block by block, one after the other, and joins what it returns.

    Args:
      block: The most numbers in a block, if one image has no more.
      function: (arrays ...) -> arrays of as many images.
      numbers: The numbers that it stores for one image.
      arrays: Arrays with the same number of images.
    """
    images = len(arrays[0])
    count = _count(block, numbers, images)
    if count == 1:
        return function(*arrays)
    outputs = lax.map(lambda images: function(*images), _blocks(count, arrays))
    return jax.tree.map(lambda out: out.reshape(-1, *out.shape[2:])[:images], outputs)


def sum_in_blocks(
    block: int, function: Callable[..., jax.Array], numbers: int, *arrays: jax.Array
) -> jax.Array:
    """The same for a function that returns a sum over the images, to which zeros add nothing."""
    count = _count(block, numbers, len(arrays[0]))
    if count == 1:
        return function(*arrays)
    blocks = _blocks(count, arrays)
    zeros = jnp.zeros_like(jax.eval_shape(function, *(images[0] for images in blocks)))
    return lax.scan(lambda total, images: (total + function(*images), None), zeros, blocks)[0]


def _count(block: int, numbers: int, images: int) -> int:
    """The number of blocks, of at most so many numbers each, or of one image."""
    return -(-images // max(block // numbers, 1))


def _blocks(count: int, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Each array as [blocks, images of a block, ...]; zeros fill the last block up."""
    images = len(arrays[0])
    size = -(-images // count)
    filled = [jnp.pad(a, [(0, count * size - images), *[(0, 0)] * (a.ndim - 1)]) for a in arrays]
    return [array.reshape(count, size, *array.shape[1:]) for array in filled]


def _tiles(x: jax.Array, tiling: Tiling, side: int, pads: Pads) -> jax.Array:
    """The d of all tiles, side x side pixels each: [T T, N, C]."""
    step, outputs, tiles, _ = tiling
    over = [step * count - size for count, size in zip(tiles, outputs, strict=True)]
    edges = [(low, high + more, 0) for (low, high), more in zip(pads, over, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    h, w = (step * count - step + 1 for count in tiles)
    d = [x[:, a : a + h : step, b : b + w : step] for a, b in np.ndindex(side, side)]
    return jnp.stack([pixels.reshape(-1, x.shape[-1]) for pixels in d])


def _times(matrix: np.ndarray, d: jax.Array) -> jax.Array:
    """Computes matrix d matrixᵀ of many small matrices d, whose numbers are the first axis."""
    product = jnp.asarray(np.kron(matrix, matrix), d.dtype) @ d.reshape(len(d), -1)
    return product.reshape(-1, *d.shape[1:])
