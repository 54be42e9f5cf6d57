"""The networks: their sizes, how they begin, and their forward pass against NumPy and PyTorch."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_normal, num_params, quick_jit, random_images, random_params, shapes_of

from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import relative_error
from jaxnets.models import MODELS
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, Enlarge, LocalResponseNorm
from jaxnets.models.chain import Chain
from jaxnets.models.layers import MaxPool, flatten
from jaxnets.models.precision import with_precision


@functools.cache
def initial_params(name):
    """The parameters with which a network of the lecture begins."""
    return quick_jit(MODELS[name]().init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]


def outputs_of(model, params, x) -> Any:
    """What a network computes; Flax's type allows for variables beside it."""
    return model.apply({"params": params}, x)


def as_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


# Sizes


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("softmax", {}, 7_850),  # 784 * 10 + 10
        ("mlp_sequential", {}, 55_050),  # 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
        ("mlp_functional", {}, 55_050),  # the same
        ("mlp", {}, 407_050),  # 784 * 512 + 512 + 512 * 10 + 10
        ("mlp_handwritten", {"hidden": (100,)}, 79_500),  # 785 * 100 + 100 * 10
        ("mlp_handwritten", {}, 159_000),  # 785 * 200 + 200 * 10
        ("mlp_handwritten", {"hidden": (300,)}, 238_500),  # 785 * 300 + 300 * 10
        ("mlp", {"hidden": (5, 4, 3)}, 4_004),  # 784 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3 + 3 * 10 + 10
        # 3 * 3 * 1 * 32 + 32 + 3 * 3 * 32 * 64 + 64 + 5 * 5 * 64 * 256 + 256 + 256 * 10 + 10
        ("cnn", {}, 431_242),
        ("cnn_bn", {}, 169_258),
        ("cnn_tiny", {}, 9_362),
        ("resnet20", {}, 274_042),  # test_resnet.py counts PyTorch's.
    ],
)
def test_a_network_of_the_lecture_has_its_number_of_parameters(mnist, name, changes, count):
    assert MODELS.keys() == PRESETS.keys()
    model = Experiment.create(preset(name, **changes), mnist).model
    assert num_params(model, mnist.image_shape) == count


# How they begin


def test_dense_layers_begin_as_in_keras_uniform_within_glorot_bounds():
    params = initial_params("mlp")
    for layer, shape in ("hidden1", (784, 512)), ("logits", (512, 10)):
        kernel = np.asarray(params[layer]["kernel"], np.float64)
        bound = np.sqrt(6 / sum(shape))
        assert kernel.shape == shape
        assert 0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
        # Of a uniform distribution: every tenth of the range has a tenth of the draws.
        counts, _ = np.histogram(kernel, bins=10, range=(-bound, bound))
        expected = kernel.size / 10
        assert np.abs(counts - expected).max() < 5 * np.sqrt(0.9 * expected)
        assert not np.any(params[layer]["bias"])


@pytest.mark.parametrize(
    ("name", "layer", "fan_in"),
    [
        ("mlp_handwritten", "hidden1", 785),
        ("mlp_handwritten", "logits", 200),
        ("cnn", "conv2", 9 * 32),
        ("cnn", "hidden", 25 * 64),
    ],
)
def test_he_normal_weights_have_their_variance_and_are_not_truncated(name, layer, fan_in):
    params, sigma = initial_params(name)[layer], np.sqrt(2 / fan_in)
    assert_normal(params["kernel"], sigma)
    assert not np.any(params.get("bias", 0))
    last_row = np.asarray(params["kernel"], np.float64)[-1]  # With ones it is the bias: drawn too.
    assert np.std(last_row) / sigma == pytest.approx(1, abs=5 / np.sqrt(2 * last_row.size))


# The forward pass


NUMPY_ACTIVATIONS = {
    "relu": lambda z: np.where(z > 0, z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (512,), (7, 5, 6)], ids=["softmax", "one", "three"])
def test_the_dense_networks_compute_what_numpy_does(float64, hidden, activation, precision):
    model = with_precision(MODELS["mlp"](hidden=hidden, activation=activation), precision)
    params, images = random_params(model), random_images(9, 28, 28, 1)
    logits = outputs_of(model, params, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, logits))} == {np.dtype(precision)}

    weights, x = as_float64(params), images.astype(np.float64).reshape(9, 784)
    for number in range(1, len(hidden) + 1):
        layer = weights[f"hidden{number}"]
        x = NUMPY_ACTIVATIONS[activation](x @ layer["kernel"] + layer["bias"])
    x = x @ weights["logits"]["kernel"] + weights["logits"]["bias"]
    tolerance = 1e-5 if precision == "float32" else 1e-12
    np.testing.assert_allclose(logits, x, rtol=tolerance, atol=tolerance)


def test_the_handwritten_network_computes_what_the_slide_does():
    model = MODELS["mlp_handwritten"]()
    params, images = random_params(model), random_images(9, 28, 28, 1)
    logits = outputs_of(model, params, images)
    weights = as_float64(params)
    x = np.concatenate([images.astype(np.float64).reshape(9, 784), np.ones((9, 1))], axis=1)
    h = np.maximum(x @ weights["hidden1"]["kernel"], 0)
    np.testing.assert_allclose(logits, h @ weights["logits"]["kernel"], rtol=1e-5, atol=1e-5)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(28, 28, 1), (11, 16, 3)])
def test_the_cnn_computes_what_pytorch_does(torch, shape):
    model, F = MODELS["cnn"](hidden=(32,)), torch.nn.functional
    params, images = random_params(model, shape), random_images(5, *shape)
    tensors = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params)
    x = torch.tensor(images).permute(0, 3, 1, 2)  # PyTorch has the channels first.
    for name in ("conv1", "conv2"):
        kernel = tensors[name]["kernel"].permute(3, 2, 0, 1)
        x = F.max_pool2d(F.relu(F.conv2d(x, kernel, tensors[name]["bias"])), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    x = F.relu(x @ tensors["hidden"]["kernel"] + tensors["hidden"]["bias"])
    x = x @ tensors["logits"]["kernel"] + tensors["logits"]["bias"]
    logits = outputs_of(model, params, images)
    np.testing.assert_allclose(logits, x.numpy(), rtol=1e-4, atol=1e-5)


# The layers that Flax lacks


@pytest.mark.oracle
def test_enlarging_interpolates_as_pytorch_does_and_repeats_grey(torch):
    images = random_images(3, 28, 28, 1)
    grey = torch.tensor(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grey, size=(64, 64), mode="bilinear")
    enlarged = np.asarray(Enlarge(64)(jnp.asarray(images)))
    assert enlarged.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(Enlarge(64)(jnp.asarray(enlarged)), enlarged)
    for channel in range(3):
        np.testing.assert_allclose(enlarged[..., channel], expected[:, 0].numpy(), atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("height, width", [(13, 9), (1, 1), (6, 6), (7, 6), (3, 4), (12, 18)])
def test_the_adaptive_average_is_pytorchs(torch, height, width):
    images = random_images(2, height, width, 3)
    theirs = torch.nn.AdaptiveAvgPool2d(6)(torch.tensor(images).permute(0, 3, 1, 2))
    expected = theirs.permute(0, 2, 3, 1)
    np.testing.assert_allclose(AdaptiveAveragePool(6)(jnp.asarray(images)), expected, atol=1e-6)


@pytest.mark.parametrize("window, stride, size", [(2, 2, 8), (3, 2, 7), (3, 2, 8), (2, 2, 7)])
def test_max_pooling_takes_the_largest_of_each_window(window, stride, size):
    images = random_images(2, size, size, 3)
    windows = np.lib.stride_tricks.sliding_window_view(images, (window, window), (1, 2))
    pooled = MaxPool(window, stride)(jnp.asarray(images))
    np.testing.assert_array_equal(pooled, windows[:, ::stride, ::stride].max((-2, -1)))


def test_local_response_normalization_divides_by_the_five_channels_around():
    x = 10 * random_images(2, 3, 3, 7)
    expected = np.empty(x.shape)
    for i in range(7):
        around = x[..., max(i - 2, 0) : i + 3].astype(np.float64)
        expected[..., i] = x[..., i] / (2 + 1e-4 * (around**2).sum(axis=-1)) ** 0.75
    np.testing.assert_allclose(LocalResponseNorm()(jnp.asarray(x)), expected, rtol=1e-6)


# Dropout


def test_dropout_drops_only_when_told_to_train():
    model = MODELS["cnn"](hidden=(64,), dropout=0.5)
    params, images = random_params(model), random_images(4, 28, 28, 1)

    def logits(key=None, **arguments):
        rngs = {} if key is None else {"dropout": jax.random.key(key)}
        return np.asarray(model.apply({"params": params}, images, rngs=rngs, **arguments))

    evaluated, trained = logits(), logits(key=1, train=True)
    np.testing.assert_array_equal(evaluated, logits(key=1, train=False))
    np.testing.assert_array_equal(trained, logits(key=1, train=True))
    for other in evaluated, logits(key=2, train=True):
        assert np.abs(trained - other).max() > 0.01


def test_dropout_drops_its_share_and_scales_the_rest():
    one, two = Chain([nn.Dropout(0.4)]), Chain([nn.Dropout(0.4), nn.Dropout(0.4)])
    x = np.ones((100, 1000), np.float32)

    def dropped(model):
        return np.asarray(model.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))

    np.testing.assert_allclose(np.unique(dropped(one)), [0, 1 / 0.6], rtol=1e-6)
    assert np.mean(dropped(one) == 0) == pytest.approx(0.4, abs=0.008)  # Five standard errors.
    assert np.mean(dropped(two) == 0) == pytest.approx(1 - 0.6**2, abs=0.008)


# Precision


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_bfloat16_computes_in_16_bits_and_keeps_float32_parameters(tiny, tiny_preset):
    half, full = (
        Experiment.create(tiny_preset("mlp", precision=precision, epochs=1), tiny)
        for precision in ("bfloat16", "float32")
    )
    state, history = half.train()
    logits = outputs_of(half.model, state.params, tiny.test.images)
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    expected = outputs_of(full.model, state.params, tiny.test.images)
    assert 0 < relative_error(logits, expected)[0] < 0.05
    assert np.isfinite(history[-1]["train_loss"])


def test_mixed_has_all_but_the_logits_in_16_bits():
    """The logits against the layers before in bfloat16 and the last product in float64."""
    network = MODELS["cnn"](hidden=(20,), dropout=0.0)
    params, images = random_params(network), random_images(3, 28, 28, 1)
    mixed, half = (with_precision(network, name) for name in ("mixed", "bfloat16"))
    logits = outputs_of(mixed, params, images)
    h = outputs_of(Chain(half.layers[:-1]), params, images)
    assert (logits.dtype, h.dtype) == (jnp.float32, jnp.bfloat16)
    last = as_float64(params["logits"])
    expected = np.asarray(h, np.float64) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    leaves = jax.tree.leaves(shapes_of(mixed, (28, 28, 1)))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


@pytest.mark.parametrize("gradients", ["auto", "manual"])
def test_mixed_multiplies_in_32_bits_only_for_the_logits(tiny, tiny_preset, gradients):
    config = tiny_preset("mlp", hidden=(20, 30), precision="mixed", gradients=gradients)
    experiment = Experiment.create(config, tiny)
    batch = Batch(tiny.train.images[:4], tiny.train.labels[:4], np.ones(4, np.float32))
    params = random_params(experiment.model, tiny.image_shape)
    program = jax.make_jaxpr(experiment.loss_and_grad)(params, batch, jax.random.key(0))
    products = re.findall(r"(\w+)\[[\d,]*\] = dot_general", str(program))
    assert set(products) == {"bf16", "f32"}
    assert products.count("f32") == 3  # Of the last layer: forward, dW and dx.
    if gradients == "manual":
        assert len(products) == 8  # Of three layers, and no dx of the first.


def test_flattening_writes_rows_then_columns_then_channels():
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(flatten(jnp.asarray(x)), [np.arange(60), np.arange(60, 120)])
