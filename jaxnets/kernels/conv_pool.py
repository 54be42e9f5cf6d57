"""A 3x3 convolution and the 2x2 max pool after it as one layer, which skips what the pool drops.

A ReLU between the two may as well come after both. It never falls, so the largest of four numbers
stays the largest: max(relu(z)) = relu(max(z)), and the gradients also agree. The large array of all
z is then never written. Only the maxima are written: a quarter of it.

The four outputs of a pool's window see a tile of 4x4 pixels. Winograd's algorithm computes them
with 16 products for each pair of channels instead of 36. In one dimension, with filter w, tile d
and the outputs z_0 = d_0 w_0 + d_1 w_1 + d_2 w_2 and z_1 = d_1 w_0 + d_2 w_1 + d_3 w_2,

    m_0 = (d_2 - d_0) (-w_0)                   z_0 = m_0 + m_1 + m_2
    m_1 = (d_1 + d_2) (w_0 + w_1 + w_2) / 2    z_1 = m_1 - m_2 + m_3
    m_2 = (d_2 - d_1) (w_0 - w_1 + w_2) / 2
    m_3 = (d_3 - d_1) w_2

The three matrices of `winograd.py` say the same: z = Aᵀ [(G w) * (Bᵀ d)], * number by number. In
two dimensions

    z = Aᵀ M A,   M = U * V,   U = G w Gᵀ,   V = Bᵀ d B         U, V, M: 4 x 4

With channels, each of the 16 places of M is a matrix product over all tiles: M [N, K] = V [N, C]
U [C, K]. Source: Lavin and Gray 2016, section 4.1.

With fewer than 32 channels the sums V take longer than the products save, and with 128 larger tiles
save more. There `convolution.py` computes the z, and the pool follows. It computes only those that
a window of the pool reaches: 6x6 of 7x7 outputs.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.linear import canonicalize_padding
from jax import lax
from jaxtyping import Array, Float, UInt8

from jaxnets.backprop.convolution import conv_backward, conv_forward
from jaxnets.backprop.pooling import max_pool_backward, max_pool_forward
from jaxnets.backprop.rule import (
    ARRAYS,
    BATCHES,
    ELEMENTWISE,
    Domain,
    LayerRule,
    Params,
    Setting,
)
from jaxnets.backprop.rules import register_rule
from jaxnets.backprop.windows import BEYOND, Padding, Pads, Size, window_pads
from jaxnets.kernels.by_rule import ConvByRule, is_plain_conv, with_kind
from jaxnets.kernels.convolution import FEWEST_CHANNELS, fast_conv_backward, fast_conv_forward
from jaxnets.kernels.kernel import Kernel, product_of_rows, stacked, stored
from jaxnets.kernels.pools import fast_max_pool_backward, fast_max_pool_forward, largest
from jaxnets.kernels.winograd import (
    LIMITS,
    SMALL,
    Limits,
    in_blocks,
    matrices,
    sum_in_blocks,
)
from jaxnets.models.chain import Layer
from jaxnets.models.layers import MaxPool

WINDOW = (3, 3)
# For a grey or colour image, one loop sums the 9 C products of an output and takes the maximum.
FEW_CHANNELS = 3
# From this many channels up to `FEWEST_CHANNELS`, tiles of 4x4 pixels are faster than XLA's
# convolution (python benchmarks/winograd.py --pool).
FEWEST_IN_TILES = 32

AT, BT, G = matrices(window=3, step=2)  # Aᵀ, Bᵀ and G.

# The two layers that are one layer here.
CONVOLUTION: Any = {"strides": (1, 1), "groups": 1}
POOL: Any = {"window": (2, 2), "strides": (2, 2), "padding": "VALID"}

Grid = Sequence[Sequence[jax.Array]]  # A small matrix of arrays.
Images = Float[Array, "B H W C"]
Outputs = Float[Array, "B h w K"]
Numbers = Float[Array, "*sizes"]
Winners = UInt8[Array, "B h w K"]
Cache = tuple[Images, Params, Winners]


def conv_pool_forward(
    params: Params, x: Images, *, padding: Padding, limits: Limits = LIMITS
) -> tuple[Outputs, Cache]:
    """Takes the largest of every 2 x 2 outputs of a convolution: y = max z, z = X * W + b.

        y_bijk = max over p, q in {0, 1} of z_b,(2i + p),(2j + q),k

    The bias is added after the maximum, whose winner it does not change. The cache says which of
    the four won. Rows and columns that the pool does not reach are not computed.

    Args:
      params: {"kernel": W [3, 3, C, K], "bias": b [K]}; "bias" may be missing.
      x: X.
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      limits: Those of `fast_conv_forward`.
    """
    kernel, seen = params["kernel"], _padded(x, padding)
    if kernel.shape[2] <= FEW_CHANNELS:
        y, winner = stored(lambda *arrays: _largest(_sums(*arrays)), seen, kernel)
    elif _are_apart(kernel):
        apart: Any = {**CONVOLUTION, "padding": "VALID", "limits": limits}
        z, _ = fast_conv_forward({"kernel": kernel}, _reached(seen), **apart)
        y, (winner, _) = fast_max_pool_forward(z, **POOL)
    else:
        y, winner = in_blocks(
            limits.block,
            lambda x: stored(lambda m: _largest(_transform(AT, _grid(m))), _products(x, kernel)),
            _numbers_in_tiles(seen, kernel),
            seen,
        )
    if "bias" in params:
        y = y + params["bias"]
    return y, (x, params, winner)


def conv_pool_backward(
    cache: Cache,
    d_out: Outputs,
    *,
    padding: Padding,
    limits: Limits = LIMITS,
    input_gradient: bool = True,
) -> tuple[Params, Images | None]:
    """Applies the chain rule to y = max z + b, z = Aᵀ M A, M = U * V, U = G w Gᵀ, V = Bᵀ d B.

    Of the four z of a window only the winner has a gradient: dz_pq = d_out where (p, q) has won,
    else 0. Each of the other steps is linear, and its gradient uses the transposed matrices:

        dM = A dz Aᵀ
        dU = V * dM     summed over the tiles: dU [C, K] = Vᵀ [C, N] dM [N, K]
        dV = U * dM     summed over the filters: dV [N, C] = dM [N, K] Uᵀ [K, C]
        dW = Gᵀ dU G
        dd = B dV Bᵀ    a pixel of X is in up to four tiles, whose gradients add up

        db_k = sum_b,i,j d_out_bijk
    """
    x, params, winner = cache
    kernel, seen = params["kernel"], _padded(x, padding)
    if _are_apart(kernel):
        _, h, w, features = d_out.shape
        none_of_z = jnp.zeros((0, 2 * h, 2 * w, features), d_out.dtype)  # It has z's shape.
        dz = fast_max_pool_backward((winner, none_of_z), d_out, **POOL)
        d_params, dx = fast_conv_backward(
            (_reached(seen), {"kernel": kernel}),
            dz,
            padding="VALID",
            limits=limits,
            input_gradient=input_gradient,
            **CONVOLUTION,
        )
    else:
        d_out = stored(lambda d: d + 0, d_out)
        numbers = _numbers_in_tiles(seen, kernel)
        d_kernel = sum_in_blocks(limits.block, _kernel_gradient, numbers, seen, d_out, winner)
        d_params = {"kernel": d_kernel}
        dx = None
        if input_gradient:
            gradient = partial(_input_gradient, kernel=kernel)
            dx = in_blocks(limits.block, gradient, numbers, d_out, winner)
    if "bias" in params:
        d_params = {**d_params, "bias": d_out.sum((0, 1, 2))}
    if dx is None:
        return d_params, None
    # The rows and columns that no window reached, and the padding; their gradient is not needed.
    edges = [
        (-low, padded - reached - high, 0)
        for padded, reached, (low, high) in zip(
            seen.shape[1:3], dx.shape[1:3], _pads(x, padding), strict=True
        )
    ]
    return d_params, lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def conv_outputs(params: Params, x: Images, *, padding: Padding) -> Outputs:
    """The z [B, 2h, 2w, K] of which `conv_pool_forward` takes the largest."""
    kernel, seen = params["kernel"], _padded(x, padding)
    few = kernel.shape[2] <= FEW_CHANNELS
    grid = _sums(seen, kernel) if few else _transform(AT, _grid(_products(seen, kernel)))
    z = _interleave([_interleave(row, axis=2) for row in grid], axis=1)
    return z + params["bias"] if "bias" in params else z


def _pads(x: jax.Array, padding: Padding) -> Pads:
    return window_pads(x.shape[1:3], WINDOW, (1, 1), padding)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    edges = [(low, high, 0) for low, high in _pads(x, padding)]  # A negative one cuts off.
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _are_apart(kernel: jax.Array) -> bool:
    """Whether two separate layers are faster than tiles of 4x4 pixels."""
    channels, features = kernel.shape[2:]
    few = FEW_CHANNELS < channels < FEWEST_IN_TILES
    return few or min(channels, features) >= FEWEST_CHANNELS[WINDOW]


def _numbers_in_tiles(x: jax.Array, kernel: jax.Array) -> int:
    """The larger one's numbers of V and M, for an image; the loop over `_sums` stores neither."""
    if kernel.shape[2] <= FEW_CHANNELS:
        return 1
    rows, columns = (size // 2 - 1 for size in x.shape[1:3])
    return 16 * rows * columns * max(kernel.shape[2:])


def _reached(x: jax.Array) -> jax.Array:
    """The rows and columns that the pool's windows see."""
    rows, columns = (2 * (size // 2) for size in x.shape[1:3])
    return x[:, :rows, :columns]


def _tiles(x: jax.Array) -> Grid:
    """The 4 x 4 pixels of all tiles, which begin two apart: an array [B, h, w, C] for each."""
    h, w = (2 * (size // 2) - 2 for size in x.shape[1:3])
    return [[x[:, a : a + h : 2, b : b + w : 2] for b in range(4)] for a in range(4)]


def _sums(x: jax.Array, kernel: jax.Array) -> Grid:
    """The four outputs of every window, product by product: 2 x 2 arrays [B, h, w, K]."""
    tile = _tiles(x)
    taps = [(a, b, c) for a in range(3) for b in range(3) for c in range(kernel.shape[2])]

    def output(p: int, q: int) -> jax.Array:
        terms = (tile[p + a][q + b][..., c, None] * kernel[a, b, c] for a, b, c in taps)
        return reduce(jnp.add, terms)

    return [[output(p, q) for q in range(2)] for p in range(2)]


def _products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The M = U * V: [16, B, h, w, K]."""
    h, w = x.shape[1] // 2 - 1, x.shape[2] // 2 - 1
    m = _tile_numbers(x) @ _filter_numbers(kernel)
    return m.reshape(16, -1, h, w, kernel.shape[3])


def _tile_numbers(x: jax.Array) -> jax.Array:
    """The V = Bᵀ d B of all tiles: [16, N, C]."""
    v = [array for row in _transform(BT, _tiles(x)) for array in row]
    return stacked(v).reshape(16, -1, x.shape[-1])


def _filter_numbers(kernel: jax.Array) -> jax.Array:
    """The U = G w Gᵀ: [16, C, K]."""
    g = jnp.asarray(G, kernel.dtype)
    return jnp.einsum("ia,jb,abck->ijck", g, g, kernel).reshape(16, *kernel.shape[2:])


def _largest(grid: Grid) -> tuple[jax.Array, jax.Array]:
    """The largest of the arrays, number by number, and which of them it is."""
    return largest([array for row in grid for array in row])


def _products_gradient(d_out: jax.Array, winner: jax.Array) -> jax.Array:
    """The dM = A dz Aᵀ, [16, *sizes]: where (p, q) has won, dM_ij = A_ip A_jq d_out."""
    signs = np.einsum("pi,qj->pqij", AT, AT).reshape(4, 16, *[1] * d_out.ndim)
    first, *others = jnp.asarray(signs, d_out.dtype)
    chosen = first
    for number, sign in enumerate(others, start=1):
        chosen = jnp.where(winner == number, sign, chosen)
    return chosen * d_out


def _kernel_gradient(x: jax.Array, d_out: jax.Array, winner: jax.Array) -> jax.Array:
    """The dW: x padded [B, H, W, C] -> [3, 3, C, K]."""
    channels, features = x.shape[-1], d_out.shape[-1]
    if channels <= FEW_CHANNELS:
        # One product of all 16 pixels with all four dz, though a dz needs only nine of them: many
        # small arrays would take long to compile. A tile is four squares of 2x2 pixels.
        rows, columns = (size // 2 for size in x.shape[1:3])
        squares = x[:, : 2 * rows, : 2 * columns]
        squares = squares.reshape(len(x), rows, 2, columns, 2, channels).swapaxes(2, 3)
        corners = [(p, q) for p in range(2) for q in range(2)]
        tiles = [squares[:, p : p + rows - 1, q : q + columns - 1] for p, q in corners]
        dz = jnp.where(winner[..., None, :] == jnp.arange(4)[:, None], d_out[..., None, :], 0)
        outputs = d_out.shape[:3]
        pixels = jnp.stack(tiles, axis=3).reshape(*outputs, 16 * channels)
        products = product_of_rows(pixels, dz.reshape(*outputs, 4 * features))
        products = products.reshape(2, 2, 2, 2, channels, 4, features).swapaxes(1, 2)
        products = products.reshape(4, 4, channels, 4, features)  # By row and column of the tile.
        terms = (products[p : p + 3, q : q + 3, :, 2 * p + q] for p, q in corners)
        return reduce(jnp.add, terms)

    # With dM's filters in rows, the CPU takes half the time for the sum over the tiles. In two
    # dimensions the rows would only be a view of the columns.
    def by_filter(*arrays: jax.Array) -> list[jax.Array]:
        return [array.reshape(-1, features).T.ravel() for array in arrays]

    rows = [array.reshape(features, -1) for array in stored(by_filter, d_out, winner)]
    d_u = _products_gradient(*rows) @ _tile_numbers(x)
    g = jnp.asarray(G, x.dtype)
    return jnp.einsum("ia,jb,ijkc->abck", g, g, d_u.reshape(4, 4, features, channels))


def _input_gradient(d_out: jax.Array, winner: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of the pixels that the tiles see: [B, 2h + 2, 2w + 2, C]."""
    d_m = _products_gradient(d_out, winner).reshape(16, -1, d_out.shape[-1])
    d_v = jnp.einsum("tnk,tck->tnc", d_m, _filter_numbers(kernel))

    def add_tiles(d_v: jax.Array) -> jax.Array:
        rows = [_add_overlaps(_combine(BT.T, row), axis=2) for row in _grid(d_v)]
        return _add_overlaps(_combine(BT.T, rows), axis=1)

    return stored(add_tiles, d_v.reshape(16, *d_out.shape[:3], -1))


def _add_overlaps(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Adds tiles of four that begin two apart: n tiles give 2 n + 2 numbers along the axis."""

    def pad(part: jax.Array, low: int, high: int) -> jax.Array:
        return jnp.pad(part, [(low, high) if at == axis else (0, 0) for at in range(part.ndim)])

    return _interleave([pad(parts[p], 0, 1) + pad(parts[p + 2], 1, 0) for p in range(2)], axis)


def _interleave(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Takes from the arrays in turn along the axis."""
    size = len(parts) * parts[0].shape[axis]
    shape = (*parts[0].shape[:axis], size, *parts[0].shape[axis + 1 :])
    return jnp.stack(parts, axis=axis + 1).reshape(shape)


def _grid(stack: jax.Array) -> Grid:
    """The 16 arrays of a stack as 4 x 4."""
    return [[stack[4 * i + j] for j in range(4)] for i in range(4)]


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
    """Computes matrix grid matrixᵀ, the grid's elements being arrays."""
    columns = [_combine(matrix, column) for column in zip(*grid, strict=True)]
    return [_combine(matrix, row) for row in zip(*columns, strict=True)]


def _combine(matrix: np.ndarray, parts: Sequence[Any]) -> list[Any]:
    """Multiplies the matrix by the column of the parts."""
    return [
        sum(factor * part for factor, part in zip(row, parts, strict=True) if factor)
        for row in matrix.tolist()
    ]


class ConvPool(ConvByRule):
    """A Flax convolution that outputs the result of the max pool."""

    limits: Limits = LIMITS


def _setting(
    x: tuple[int, ...],
    filters: int,
    padding: Padding = "VALID",
    biased: bool = True,
    numbers: str = "normal",
) -> Setting:
    params = {"kernel": (*WINDOW, x[-1], filters)}
    params |= {"bias": (filters,)} if biased else {}
    return Setting(x, params, numbers=numbers, static={"padding": padding})


def _drawn_setting(
    batch: int,
    beyond: Size,
    padding: Padding,
    channels: int,
    filters: int,
    many: bool,
    biased: bool,
    numbers: str,
) -> Setting:
    """Images that, once padded, have so many rows and columns beyond one tile's four."""
    if many:
        fewest = FEWEST_CHANNELS[WINDOW]
        channels, filters = (fewest - 2 + min(size, 5) for size in (channels, filters))
    pads = ((0, 0), (0, 0)) if isinstance(padding, str) else padding
    if padding == "SAME":
        pads = ((1, 1), (1, 1))
    sizes = zip(beyond, pads, strict=True)
    image = [max(1, 4 + more - low - high) for more, (low, high) in sizes]
    return _setting((batch, *image, channels), filters, padding, biased, numbers)


def _plain(params: Params, x: Images, *, padding: Padding) -> Outputs:
    layer = nn.Conv(params["kernel"].shape[-1], WINDOW, padding=padding, use_bias="bias" in params)
    return nn.max_pool(layer.bind({"params": params})(x), (2, 2), (2, 2))


def unchanged(x: Numbers) -> Numbers:
    """A layer that keeps another layer's place in the chain."""
    return x


register_rule(
    LayerRule(
        name="unchanged",
        layer=unchanged,
        forward=lambda x: (x, ()),
        backward=lambda cache, dy: dy,
        plain=unchanged,
        settings=ELEMENTWISE,
        domain=ARRAYS,
    )
)


def _static(layer: ConvPool) -> dict[str, Any]:
    padding = canonicalize_padding(layer.padding, 2)
    return {"padding": padding, "limits": layer.limits}


CONV_POOL = LayerRule(
    name="conv_pool",
    layer=ConvPool,
    forward=conv_pool_forward,
    backward=conv_pool_backward,
    plain=_plain,
    settings=[
        _setting((2, 6, 6, 1), 3),
        _setting((2, 7, 9, 4), 3, biased=False),
        _setting((2, 7, 9, FEWEST_IN_TILES), 3),
        _setting((2, 6, 6, 2), 3, numbers="integers"),
        _setting((2, 6, 8, 4), 4, numbers="integers"),
        _setting((2, 5, 6, FEWEST_IN_TILES), 2, "SAME", numbers="equal"),
        # Many channels; the pool reaches 6x8 of their 7x9 outputs.
        _setting((2, 7, 9, FEWEST_CHANNELS[WINDOW]), FEWEST_CHANNELS[WINDOW], "SAME"),
    ],
    inputs=("params", "x"),
    static=_static,
    bfloat16=False,
    first_output=lambda params, x, padding, **_: conv_outputs(params, x, padding=padding),
    domain=Domain(
        _drawn_setting,
        {
            "batch": BATCHES,
            "beyond": BEYOND,
            "padding": (
                "SAME",
                "VALID",
                "VALID",
                ((2, 0), (1, 3)),
                ((0, 1), (2, 0)),
                ((-1, 0), (0, -1)),
            ),
            "channels": (1, 1, 1, 2, FEW_CHANNELS, FEW_CHANNELS + 1, 17, 31, 32, 32, 33, 40),
            "filters": (1, 2, 3, 4, 9, 20),
            "many": (*7 * (False,), True),  # Channels around FEWEST_CHANNELS.
            "biased": (True, True, False),
            "numbers": ("normal", "normal", "integers"),
        },
        draws=32,
    ),
)
register_rule(CONV_POOL)


def _pairs_forward(params: Params, x: Images, *, padding: Padding) -> tuple[Outputs, Any]:
    z, conv_cache = conv_forward(params, x, padding=padding, **CONVOLUTION)
    y, pool_cache = max_pool_forward(z, **POOL)
    return y, (conv_cache, pool_cache)


def _pairs_backward(
    cache: tuple[Any, Any], dy: Outputs, *, padding: Padding, input_gradient: bool = True
) -> tuple[Params, Images | None]:
    conv_cache, pool_cache = cache
    dz = max_pool_backward(pool_cache, dy, **POOL)
    return conv_backward(
        conv_cache, dz, padding=padding, input_gradient=input_gradient, **CONVOLUTION
    )


def _is_replaced(conv: Layer, pool: Layer) -> TypeGuard[nn.Conv]:
    """Whether the two are a 3x3 convolution and a 2x2 max pool.

    In bfloat16 the layers stay, because Winograd's sums would lose its 8 binary digits.
    """
    return (
        pool == MaxPool(2, 2)
        and is_plain_conv(conv)
        and conv.kernel_size == WINDOW
        and conv.strides in (None, 1, (1, 1))
        and conv.feature_group_count == 1
        and conv.dtype in (None, jnp.float32, jnp.float64)
    )


def _replace(conv: Layer, second: Layer, third: Layer) -> Sequence[Layer] | None:
    """[ConvPool, ReLU, ReLU] for a convolution, ReLU and pool; the ReLU may be missing.

    Every layer keeps its place, which gives dropout its key: the second ReLU changes nothing, and
    without a ReLU `unchanged` takes the pool's place.
    """
    if _is_replaced(conv, second):
        return [with_kind(ConvPool, conv), unchanged, third]
    if second is nn.relu and _is_replaced(conv, third):
        return [with_kind(ConvPool, conv), nn.relu, nn.relu]
    return None


KERNEL = Kernel(
    run=3,
    replace=_replace,
    rule=CONV_POOL,
    pair=CONV_POOL._replace(forward=_pairs_forward, backward=_pairs_backward),
    benchmark="python benchmarks/step.py",
    sharded=False,  # XLA would gather the rows that it transposes.
    in_checks={"limits": Limits(block=SMALL.block)},  # Larger tiles would round where numbers tie.
)
