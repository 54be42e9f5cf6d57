"""Wide convolutions by Winograd's algorithm, against XLA's convolution and autodiff."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit, slow
from jax import lax

from jaxnets.kernels import winograd
from jaxnets.kernels.convolution import FAST_CONV

GEOMETRIES = {
    "one tile": (3, (5, 5), ((0, 0), (0, 0))),
    "ragged": (3, (7, 8), ((1, 1), (0, 2))),
    "padding cut off": (3, (9, 8), ((-1, 2), (2, -1))),
    "5x5": (5, (9, 10), ((2, 2), (2, 2))),
    "5x5, ragged": (5, (8, 7), ((0, 4), (1, 0))),
}
STEPS = {3: (3, 4, 5, 6), 5: (3, 4)}  # By window: the outputs of a tile.
ONE_BLOCK, BLOCKS = 2**25, 3_000
CASES = [
    (name, step, block)
    for name in GEOMETRIES
    for step in STEPS[GEOMETRIES[name][0]]
    for block in (ONE_BLOCK, BLOCKS)
]
# Each geometry, each step and both sizes of a block; the whole suite tries all combinations.
FAST = [
    ("one tile", 5, ONE_BLOCK),
    ("ragged", 6, BLOCKS),
    ("padding cut off", 4, ONE_BLOCK),
    ("padding cut off", 3, BLOCKS),
    ("5x5", 3, ONE_BLOCK),
    ("5x5, ragged", 4, BLOCKS),
]


def plain(x, kernel, pads):
    letters = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=letters)


def equations(jaxpr):
    """Those of a program and of its loops."""
    for equation in jaxpr.eqns:
        yield equation
        if "jaxpr" in equation.params:
            yield from equations(equation.params["jaxpr"])


def products(traced):
    return [e for e in equations(traced.jaxpr) if e.primitive.name == "dot_general"]


def tiled(traced):
    """The places of each product M, the one with three axes: [places, N, K]."""
    shapes = [product.outvars[0].aval.shape for product in products(traced)]
    return [shape[0] for shape in shapes if len(shape) == 3]


@pytest.mark.parametrize(
    "name, step, block", [case if case in FAST else slow(*case) for case in CASES]
)
def test_values_and_gradients_are_xlas_in_float64(float64, monkeypatch, name, step, block):
    monkeypatch.setattr(winograd, "STEPS", (step,))
    size, image, pads = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((3, *image, 4)), rng.standard_normal((size, size, 4, 5))
    z = plain(x, kernel, pads)
    dz = rng.standard_normal(z.shape)

    def theirs(x, kernel, dz):
        return jax.vjp(lambda kernel: plain(x, kernel, pads), kernel)[1](dz)[0]

    def ours(x, kernel, dz):
        limits = winograd.Limits(block=block)
        gradient = winograd.kernel_gradient(x, dz, (size, size), pads, limits)
        return winograd.convolve(x, kernel, pads, limits), gradient

    wanted = z, quick_jit(theirs)(x, kernel, dz)
    assert_close(quick_jit(ours)(x, kernel, dz), wanted, 1e-13)


@pytest.mark.parametrize("channels, features", [(4, 5), (5, 4)])
@pytest.mark.parametrize("room, images", [(7, 7), (4, 4), (2.5, 2), (0.5, 1)])
def test_blocks_of_images_fill_their_room(monkeypatch, channels, features, room, images):
    """V and M [places, tiles, channels] have at most `block` numbers, or those of one image."""
    rows, columns, places = 2, 3, 5**2  # Tiles of 3x3 outputs.
    monkeypatch.setattr(winograd, "STEPS", (3,))
    limits = winograd.Limits(block=int(room * rows * columns * places * 5))
    shapes = (7, 8, 11, channels), (3, 3, channels, features), (7, 6, 9, features)
    x, kernel, dz = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    pads = ((0, 0), (0, 0))
    for traced in (
        jax.make_jaxpr(lambda x, kernel: winograd.convolve(x, kernel, pads, limits))(x, kernel),
        jax.make_jaxpr(lambda x, dz: winograd.kernel_gradient(x, dz, (3, 3), pads, limits))(x, dz),
    ):
        factors = [e.invars[0].aval.shape for e in products(traced)]
        tiles = [shape[1] for shape in factors if shape[0] == places and len(shape) == 3]
        assert tiles == [images * rows * columns]


@pytest.mark.parametrize(
    "size, step", [(3, 2), *((size, step) for size in STEPS for step in STEPS[size])]
)
def test_the_matrices_are_exact(size, step):
    """Aᵀ [(G w) * (Bᵀ d)] of unit vectors w and d is 1 where d's pixel stands under w's, else 0."""
    at, bt, g = winograd.matrices(size, step)
    z = np.einsum("it,tw,td->iwd", at, g, bt)
    i, w, d = np.indices(z.shape)
    np.testing.assert_allclose(z, d == i + w, atol=1e-14)


@pytest.mark.parametrize("size, step", [(3, 4), (3, 6), (5, 4)])
def test_with_another_point_the_sums_would_round_more(monkeypatch, size, step):
    """The largest sum |Aᵀ| [(|G| 1) * (|Bᵀ| 1)], by which rounding errors grow."""

    def growth(points):
        monkeypatch.setattr(winograd, "POINTS", points)
        at, bt, g = map(np.abs, winograd.matrices(size, step))
        return (at @ (g.sum(1) * bt.sum(1))).max()

    ours = winograd.POINTS
    least, count = growth(ours), size + step - 2
    small = {
        sign * number for number in (1 / 4, 1 / 3, 1 / 2, 1, 3 / 2, 2, 3, 4) for sign in (1, -1)
    }
    for place in range(count):
        for other in small - set(ours[:count]):
            assert growth((*ours[:place], other, *ours[place + 1 :])) > least


@pytest.mark.parametrize(
    "batch, image, size, places",
    [
        (128, 6, 3, 8**2),
        (127, 6, 3, 5**2),  # Tiles of 6x6 would be too few.
        (128, 7, 3, 6**2),
        (128, 8, 3, 6**2),
        (128, 13, 3, 7**2),
        (128, 9, 5, 7**2),
        (128, 27, 5, 8**2),
        (1, 3, 3, 5**2),
    ],
)
def test_a_layer_has_the_tiles_that_take_fewest_products(batch, image, size, places):
    shapes = (batch, image, image, 2), (size, size, 2, 3)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    pads = ((size // 2, size // 2),) * 2
    traced = jax.make_jaxpr(lambda x, kernel: winograd.convolve(x, kernel, pads))(*inputs)
    assert tiled(traced) == [places]


def layer(channels=128, features=128, *, size=3, image=6, batch=32, dtype=np.float32, **static):
    """The arguments of a layer's rule on square images, and its static ones."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((size, size, channels, features)) / (size * channels**0.5)
    params = {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.ones(features, dtype)}
    x = jnp.asarray(rng.standard_normal((batch, image, image, channels)), dtype)
    return (params, x), {"strides": (1, 1), "padding": "SAME", "groups": 1} | static


def both_passes(inputs, static):
    z, cache = FAST_CONV.forward(*inputs, **static)
    return z, FAST_CONV.backward(cache, jnp.cos(z), **static)


def num_xla_convolutions(inputs, static):
    traced = jax.make_jaxpr(lambda *inputs: both_passes(inputs, static))(*inputs)
    return str(traced).count("conv_general_dilated[")


@pytest.mark.parametrize("image, batch", [(6, 32), slow(8, 32), (10, 32), slow(6, 128)])
def test_a_wide_layer_takes_it_and_agrees_with_flax(image, batch):
    inputs, static = layer(image=image, batch=batch)
    assert num_xla_convolutions(inputs, static) == 0

    def theirs(*inputs):
        z, pull_back = jax.vjp(lambda *inputs: FAST_CONV.plain(*inputs, **static), *inputs)
        return z, pull_back(jnp.cos(z))

    ours = quick_jit(lambda *inputs: both_passes(inputs, static))(*inputs)
    assert_close(ours, quick_jit(theirs)(*inputs), 2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 64},
        {"features": 64},
        {"batch": 8},
        {"dtype": jnp.bfloat16},
        {"strides": (2, 2)},
        {"size": 4},
        {"channels": 256, "features": 128, "groups": 2, "padding": "VALID"},  # 16 outputs: 4 tiles.
    ],
    ids=str,
)
def test_other_layers_do_not(change):
    (params, x), static = layer(**change)
    params = params | {"kernel": params["kernel"][:, :, : x.shape[-1] // static["groups"]]}
    assert num_xla_convolutions((params, x), static) == 3 * static["groups"]


XLA, ROWS, TILES = "XLA", "rows of windows", "tiles of {0}x{0} pixels".format


def form_of(x, window, features, strides=(1, 1), padding="SAME", groups=1):
    """How a CPU computes each group of a convolution, by the program that is traced."""
    params = {"kernel": jax.ShapeDtypeStruct((*window, x[-1] // groups, features), jnp.float32)}
    static = {"strides": strides, "padding": padding, "groups": groups}
    forward = functools.partial(FAST_CONV.forward, **static)
    traced = jax.make_jaxpr(forward)(params, jax.ShapeDtypeStruct(x, jnp.float32))
    if "conv_general_dilated[" in str(traced):
        return XLA
    places = tiled(traced)
    return TILES(math.isqrt(places[0])) if places else ROWS


@pytest.mark.parametrize(
    "form, x, window, features, static",
    [
        # The networks' layers, 128 images at a time.
        (ROWS, (128, 28, 28, 1), (3, 3), 32, {"padding": "VALID"}),  # cnn, conv1
        (XLA, (128, 13, 13, 32), (3, 3), 64, {"padding": "VALID"}),  # cnn, conv2
        (XLA, (128, 224, 224, 3), (11, 11), 64, {"strides": (4, 4)}),  # alexnet, conv1
        (TILES(8), (128, 27, 27, 64), (5, 5), 192, {}),  # conv2
        (TILES(7), (128, 13, 13, 192), (3, 3), 384, {}),  # conv3
        (XLA, (128, 27, 27, 96), (5, 5), 256, {"groups": 2}),  # alexnet_paper, conv2
        (TILES(7), (128, 13, 13, 384), (3, 3), 384, {"groups": 2}),  # conv4
        # A window of 32 numbers and one of 33.
        (ROWS, (1, 9, 12, 1), (4, 8), 4, {}),
        (ROWS, (1, 9, 12, 2), (8, 2), 4, {}),
        (XLA, (1, 9, 12, 1), (3, 11), 4, {}),
        (XLA, (1, 9, 12, 3), (11, 1), 4, {}),
        # Too few channels on either side; a window without a threshold.
        (TILES(5), (128, 5, 5, 128), (3, 3), 128, {"padding": "VALID"}),
        (XLA, (128, 5, 5, 127), (3, 3), 128, {"padding": "VALID"}),
        (XLA, (128, 5, 5, 128), (3, 3), 127, {"padding": "VALID"}),
        (XLA, (128, 5, 5, 63), (5, 5), 64, {}),
        (XLA, (128, 6, 6, 512), (4, 4), 512, {}),
        # One tile too few.
        (XLA, (127, 5, 5, 128), (3, 3), 128, {"padding": "VALID"}),
        # 2x4 outputs take 72 products by windows, and half of that in a tile; 2x2 take 36 and 25.
        (TILES(6), (128, 4, 6, 128), (3, 3), 128, {"padding": "VALID"}),
        (XLA, (128, 4, 4, 128), (3, 3), 128, {"padding": "VALID"}),
    ],
)
def test_a_convolutions_form_depends_on_channels_window_and_tiles(
    form, x, window, features, static
):
    assert form_of(x, window, features, **static) == form
