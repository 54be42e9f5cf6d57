"""Wide convolutions by Winograd's algorithm, against XLA's convolution and autodiff."""

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


@pytest.mark.parametrize(
    "name, step, block", [case if case in FAST else slow(*case) for case in CASES]
)
def test_values_and_gradients_are_xlas_in_float64(float64, monkeypatch, name, step, block):
    monkeypatch.setattr(winograd, "STEPS", (step,))
    monkeypatch.setattr(winograd, "BLOCK", block)
    size, image, pads = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((3, *image, 4)), rng.standard_normal((size, size, 4, 5))
    z = plain(x, kernel, pads)
    dz = rng.standard_normal(z.shape)

    def theirs(x, kernel, dz):
        return jax.vjp(lambda kernel: plain(x, kernel, pads), kernel)[1](dz)[0]

    def ours(x, kernel, dz):
        gradient = winograd.kernel_gradient(x, dz, (size, size), pads)
        return winograd.convolve(x, kernel, pads), gradient

    wanted = z, quick_jit(theirs)(x, kernel, dz)
    assert_close(quick_jit(ours)(x, kernel, dz), wanted, 1e-13)


@pytest.mark.parametrize("size, step", [(size, step) for size in STEPS for step in STEPS[size]])
def test_the_matrices_are_exact(size, step):
    """Aᵀ [(G w) * (Bᵀ d)] of unit vectors w and d is 1 where d's pixel stands under w's, else 0."""
    at, bt, g = winograd.matrices(size, step)
    z = np.einsum("it,tw,td->iwd", at, g, bt)
    i, w, d = np.indices(z.shape)
    np.testing.assert_allclose(z, d == i + w, atol=1e-14)


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
    """M [places, N, K] is the one product with three axes."""
    shapes = (batch, image, image, 2), (size, size, 2, 3)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    pads = ((size // 2, size // 2),) * 2
    traced = jax.make_jaxpr(lambda x, kernel: winograd.convolve(x, kernel, pads))(*inputs)
    products = [e.outvars[0].aval.shape for e in traced.eqns if e.primitive.name == "dot_general"]
    assert [shape[0] for shape in products if len(shape) == 3] == [places]


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
def test_a_wide_layer_takes_it_forward_and_backward_and_agrees_with_flax(image, batch):
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
