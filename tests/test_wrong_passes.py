"""Backward passes that are wrong for some shapes or arguments alone: gradcheck finds each.

The bugs of `course/exercises/bugs.toml` are wrong nearly everywhere. These are right wherever a
narrow check would look: for batches of up to eight, unequal sides, the usual rate.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from conftest import quick_jit, slow

from jaxnets.backprop.rules import RULES
from jaxnets.gradcheck import networks
from jaxnets.gradcheck.compare import TOLERANCES, compiled, disagreement, errors_of, precision
from jaxnets.gradcheck.layer_check import drawn_settings, problem_of, with_backward
from jaxnets.kernels import KERNELS, conv_pool, convolution, elementwise, pools, winograd

LAYERS = RULES | {kernel.name: kernel.rule for kernel in KERNELS}
NETWORKS = networks.networks()
WRONG: dict[str, tuple[str, Any]] = {}


def wrong_for(layer):
    """Enters f(right gradients, cache, upstream gradient, **static) -> wrong ones."""

    def enter(function):
        WRONG[function.__name__] = layer, function
        return function

    return enter


def of_x(layer, name, when, change):
    """Enters a pass whose dx is changed where when(dx, d_out, static) holds."""

    def function(right, cache, d_out, **static):
        dx = right[1] if isinstance(right, tuple) else right
        dx = change(dx, d_out) if when(dx, d_out, static) else dx
        return (right[0], dx) if isinstance(right, tuple) else dx

    WRONG[f"{layer}: {name}"] = layer, function


def of_params(layer, name, when, leaf, change):
    """Enters a pass one of whose d_params is changed where when(cache, d_out, static) holds."""

    def function(right, cache, d_out, **static):
        d_params, dx = right
        if leaf in d_params and when(cache, d_out, static):
            d_params = {**d_params, leaf: change(d_params[leaf])}
        return d_params, dx

    WRONG[f"{layer}: {name}"] = layer, function


def is_square(array, *_):
    return array.ndim == 2 and array.shape[0] == array.shape[1]


def has_square_images(array, *_):
    return array.ndim == 4 and array.shape[1] == array.shape[2]


def has_large_batch(array, *_):
    return len(array) > 8


def has_wide_rows(array, *_):
    return array.shape[-1] > 5


def half(array, *_):
    return array / 2


def transposed(array, *_):
    return array.swapaxes(0, 1)


def transposed_images(array, *_):
    return array.swapaxes(1, 2)


def without_last_example(array, *_):
    return array.at[-1].set(0)


def without_last_channel(array, *_):
    return array.at[..., -1].set(0)


def at_one_place(array, *_):
    return array.at[9, ..., 0].multiply(2) if array.ndim == 2 else array.at[9, 3, 2, 0].multiply(2)


WIDER = (
    "sigmoid",
    "relu",
    "tanh",
    "gelu",
    "layer_norm",
    "softmax",
    "softmax_cross_entropy",
    "mse",
    "local_response_norm",
)
LARGER = "cross_entropy", "squared_error", "half_squared_error", "half_mse", "max_pool", "conv"
for layer in WIDER:
    of_x(layer, "more than five numbers in a row", has_wide_rows, without_last_channel)
for layer in (
    *LARGER,
    "leaky_relu",
    "average_pool",
    "global_average_pool",
    "dense_with_ones",
    "dropout",
    "adaptive_average_pool",
    "conv_pool",
):
    of_x(layer, "more than eight examples", has_large_batch, without_last_example)
for layer in ("softmax", "softmax_then_cross_entropy", "dense", "wide_dense"):
    of_x(layer, "square", is_square, transposed)
for layer in ("flatten", "conv", "max_pool", "local_response_norm"):
    of_x(layer, "square images", has_square_images, transposed_images)
of_x("dropout", "rate from 0.6", lambda dx, d, static: 0.6 <= static["rate"] < 1, half)
of_x("dropout", "rate above 0.9", lambda dx, d, static: 0.9 < static["rate"] < 1, half)
of_x("local_response_norm", "beta", lambda dx, d, static: static.get("beta", 0) > 0.75, half)
of_x("local_response_norm", "n", lambda dx, d, static: static.get("n", 0) > 5, half)
of_x(
    "adaptive_average_pool",
    "more than three columns of cells on wide images",
    lambda dx, d, static: static["output_size"][1] > 3 and dx.shape[2] > 4,
    half,
)
of_x(
    "adaptive_average_pool",
    "more cells than columns",
    lambda dx, d, static: static["output_size"][1] > dx.shape[2] > 1,
    half,
)
of_x("batch_norm", "one example at one place", has_large_batch, at_one_place)
of_x("layer_norm", "square", is_square, transposed)
of_x("average_pool", "overlaps", lambda dx, d, static: static["window"] > static["strides"], half)
of_x("average_pool", "gaps", lambda dx, d, static: static["window"] < static["strides"], half)
of_x("leaky_relu", "slope", lambda dx, d, static: static["slope"] > 0.2, half)
of_x("max_pool", "windows of 256", lambda dx, d, static: static["window"][0] > 15, half)
of_x("conv", "stride of three", lambda dx, d, static: 3 in static["strides"], half)

of_params("dense", "large", lambda cache, *_: len(cache[0]) > 8, "kernel", half)
of_params("dense", "square", lambda cache, *_: is_square(cache[0]), "kernel", transposed)
of_params("dense", "wide bias", lambda cache, d, _: d.shape[1] > 5, "bias", half)
of_params("conv", "four groups", lambda cache, d, s: s["groups"] > 3, "kernel", half)
of_params("conv", "no groups", lambda cache, d, s: s["groups"] == 1, "kernel", transposed)
of_params("conv", "large batch", lambda cache, d, _: len(d) > 8, "bias", half)
of_params(
    "conv_pool",
    "three channels reversed",
    lambda cache, *_: cache[0].shape[-1] == 3,
    "kernel",
    lambda kernel: kernel[:, :, ::-1],
)
of_params("layer_norm", "no bias", lambda cache, *_: "bias" not in cache[1], "scale", half)
of_params("layer_norm", "no scale", lambda cache, *_: "scale" not in cache[1], "bias", half)
of_params("layer_norm", "epsilon", lambda cache, d, s: s["epsilon"] > 1e-3, "scale", half)
of_params("batch_norm", "epsilon", lambda cache, d, s: s["epsilon"] > 1e-5, "scale", half)


@wrong_for("residual")
def residual_without_its_input(right, cache, d_out, *, chain, shortcut=None):
    d_params, dx = right
    return (d_params, dx - d_out) if shortcut is None else right


@wrong_for("residual")
def residual_with_half_a_shortcut(right, cache, d_out, *, chain, shortcut=None):
    d_params, dx = right
    halves = jax.tree.map(half, d_params.get("shortcut", {}))
    return ({**d_params, "shortcut": halves} if halves else d_params), dx


@wrong_for("softmax")
def softmax_over_the_examples_of_a_square(right, p, dp):
    return p * (dp - (dp * p).sum(axis=0)) if is_square(p) else right


@wrong_for("softmax_cross_entropy")
def upstream_gradient_as_its_mean(right, cache, d_losses):
    return right / d_losses[:, None] * d_losses.mean()


def settings_of(layer):
    """All settings in which gradcheck tries a layer by default."""
    return [*LAYERS[layer].settings, *drawn_settings(LAYERS[layer])]


@functools.cache
def autodiff_of(layer, index):
    """What the plain formulation gives in one of a layer's settings."""
    passes = problem_of(LAYERS[layer], settings_of(layer)[index]).at("float64")
    return quick_jit(passes.automatic)(passes.inputs, passes.constants)


def is_found(layer, rule):
    """Whether a layer's check finds it in float64 in one of the settings."""
    with precision("float64"):
        for index, setting in enumerate(settings_of(layer)):
            passes = problem_of(rule, setting).at("float64")
            ours = quick_jit(passes.manual)(passes.inputs, passes.constants)
            if disagreement(ours, autodiff_of(layer, index)).value > TOLERANCES["float64"]:
                return True
    return False


QUICK = ("dense", "sigmoid")


@pytest.mark.parametrize(
    "name", [name if WRONG[name][0] in QUICK else slow(name) for name in WRONG]
)
def test_a_pass_that_is_seldom_wrong_is_found(name):
    layer, change = WRONG[name]
    rule = LAYERS[layer]

    def backward(cache, d_out, **static):
        return change(rule.backward(cache, d_out, **static), cache, d_out, **static)

    assert is_found(layer, with_backward(rule, backward))


def to_last(right, grid):
    """The largest of the arrays, a tie to the last."""
    _, *others = arrays = [array for row in grid for array in row]
    y, winner = arrays[0], jnp.zeros(arrays[0].shape, jnp.uint8)
    for number, candidate in enumerate(others, start=1):
        winner = jnp.where(candidate >= y, jnp.uint8(number), winner)
        y = jnp.maximum(y, candidate)
    return y, winner


def of_result(change):
    return lambda right, *arrays, **options: change(right(*arrays, **options))


def transposed_channels(kernel):
    return kernel.swapaxes(2, 3)


# The layer, and what in it is wrong: a function of the right one and its arguments.
WRONG_KERNELS = {
    "conv_pool: tie to the last": ("conv_pool", conv_pool, "_largest", to_last),
    "conv_pool: columns": ("conv_pool", conv_pool, "_input_gradient", of_result(half)),
    "conv: winograd's dW": (
        "fast_conv",
        winograd,
        "kernel_gradient",
        of_result(transposed_channels),
    ),
    "conv: winograd's z": ("fast_conv", winograd, "convolve", of_result(transposed_images)),
    "conv: rows": ("fast_conv", convolution, "product_of_rows", of_result(half)),
    "conv_pool: rows": ("conv_pool", conv_pool, "product_of_rows", of_result(half)),
    "max_pool: stored": (
        "overlapping_max_pool",
        pools,
        "stored",
        of_result(lambda winner: winner * 0),
    ),
}


@pytest.mark.parametrize("name", [slow(name) for name in WRONG_KERNELS])
def test_a_wrong_kernel_is_found(name, monkeypatch):
    layer, module, attribute, wrong = WRONG_KERNELS[name]
    right = getattr(module, attribute)
    monkeypatch.setattr(module, attribute, functools.partial(wrong, right))
    assert is_found(layer, LAYERS[layer])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_tie_to_the_last_is_found_without_bfloat16s_rounding(dtype, monkeypatch):
    monkeypatch.setattr(conv_pool, "_largest", functools.partial(to_last, None))
    rule, errors = LAYERS["conv_pool"], []
    ties = [setting for setting in rule.settings if setting.numbers != "normal"]
    # One by sums, one in tiles; the third, the convolution and its pool, has another function.
    ties = [ties[0], ties[2]]
    for program in compiled([(problem_of(rule, setting), dtype) for setting in ties]):
        with precision(dtype):
            passes = program.problem.at(dtype)
            errors.append(disagreement(*program.both(passes.inputs, passes.constants)).value)
    assert min(errors) > 0.1


def error_of_network(name):
    """The error in float64 that the check of a network finds."""
    problem = networks.network_problem(NETWORKS[name], kernels=True)
    (program,) = compiled([(problem, "float64")])
    return errors_of(program)[0].value


@pytest.mark.slow
def test_a_transposed_winograd_gradient_is_found_in_alexnet_small(monkeypatch):
    right = winograd.kernel_gradient

    def wrong(x, dz, *sizes):  # Two of its convolutions have as many filters as channels.
        kernel = right(x, dz, *sizes)
        return kernel.swapaxes(2, 3) if x.shape[-1] == dz.shape[-1] else kernel

    monkeypatch.setattr(winograd, "kernel_gradient", wrong)
    assert error_of_network("alexnet_small") > 0.1


@pytest.mark.slow
def test_a_wrong_relu_of_a_training_network_is_found(break_rule):
    break_rule(elementwise.fast_relu, backward=lambda x, dy: jnp.where(x > -0.1, dy, 0))
    assert error_of_network("cnn_tiny") > 1e-3


@pytest.mark.parametrize("name", ["dense", slow("batch_norm"), slow("conv")])
def test_a_wrong_gradient_of_the_first_layer_alone_is_found(name):
    rule = LAYERS[name]

    def backward(cache, d_out, *, input_gradient=True, **static):
        d_params, dx = rule.backward(cache, d_out, **static)
        if input_gradient:
            return d_params, dx
        return jax.tree.map(jnp.zeros_like, d_params), None

    assert is_found(name, rule._replace(backward=backward))
