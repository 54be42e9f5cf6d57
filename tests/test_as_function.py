"""A derivation as a function: in plain JAX, Flax NNX and Equinox, and what it refuses."""

import runpy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, assert_close, quick_jit, random_images, random_params, slow
from flax import nnx
from flax.traverse_util import flatten_dict

from jaxnets import as_function
from jaxnets.backprop.rules import RULES
from jaxnets.base.errors import UserError
from jaxnets.gradcheck.compare import disagreement
from jaxnets.gradcheck.layer_check import call_layer, drawn_settings, whole_problem_of
from jaxnets.gradcheck.quick import precision
from jaxnets.losses import LOSSES
from jaxnets.models import MODELS

DENSE, CONV = as_function("dense"), as_function("conv")


def both_gradients(rule, setting):
    """The output and the gradient of a layer's function, and those of its plain formulation."""
    with precision("float64"):
        passes = whole_problem_of(rule, setting).at("float64")
        labels, d_out = passes.constants

        def of(function):
            def program(inputs):
                call = lambda inputs: call_layer(rule, setting, function, inputs, labels)  # noqa: E731
                out, pull_back = jax.vjp(call, inputs)
                return out, pull_back(d_out)[0]

            return program

        ours, plain = of(as_function(rule)), of(rule.plain)
        return quick_jit(lambda inputs: (ours(inputs), plain(inputs)))(passes.inputs)


@pytest.mark.parametrize("every", [100, slow(1)])
@pytest.mark.parametrize("name", RULES)
def test_the_gradient_of_a_rule_s_function_is_autodiffs(name, every):
    for setting in RULES[name].settings[::every]:
        assert disagreement(*both_gradients(RULES[name], setting)).value < 1e-10


@pytest.fixture
def layer():
    params = {"kernel": random_images(5, 3) - 0.5, "bias": random_images(3)}
    return params, random_images(4, 5) - 0.5


def test_it_is_batched(layer, float64):
    params, x = jax.tree.map(np.float64, layer)

    def loss(params, row):
        return (DENSE(params, row[None]) ** 2).sum()

    found = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, x)
    expected = [jax.grad(loss)(params, row) for row in x]
    assert_close(found, jax.tree.map(lambda *rows: jnp.stack(rows), *expected), 1e-14)
    assert_close(jax.vmap(DENSE, (None, 0))(params, x[:, None]), DENSE(params, x)[:, None], 1e-14)


def second_derivatives(loss, x):
    """A Hessian, and the gradient of the squared length of a gradient."""
    return jax.hessian(loss)(x), jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())(x)


LABELS = np.array([0, 3, 1])
TWICE = {
    "softmax_cross_entropy": (
        lambda x: as_function("softmax_cross_entropy")(x, LABELS).sum(),
        lambda x: LOSSES["cross_entropy"](x, jnp.asarray(LABELS)).sum(),
    ),
    "gelu": (
        lambda x: (as_function("gelu")(x) ** 2).sum(),
        lambda x: (jax.nn.gelu(x) ** 2).sum(),
    ),
    "layer_norm": (
        lambda x: (as_function("layer_norm")({}, x, epsilon=1e-6) ** 3).sum(),
        lambda x: (jax.nn.standardize(x, epsilon=1e-6) ** 3).sum(),
    ),
}


@pytest.mark.parametrize(
    "name", [name if name == "softmax_cross_entropy" else slow(name) for name in TWICE]
)
def test_second_derivatives_are_those_of_stock_jax(name, float64):
    x = random_images(3, 4).astype(np.float64)
    ours, stock = (quick_jit(lambda x, f=f: second_derivatives(f, x))(x) for f in TWICE[name])
    assert_close(ours, stock, 1e-10)


def test_the_gradient_of_a_convolutions_gradient_is_that_of_stock_jax(float64):
    kernel = random_images(3, 3, 2, 4).astype(np.float64)
    x = jnp.asarray(random_images(2, 5, 5, 2), np.float64)
    letters = ("NHWC", "HWIO", "NHWC")

    def stock(kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=letters)
        return jnp.tanh(y).sum()

    def ours(kernel):
        return jnp.tanh(CONV({"kernel": kernel}, x, strides=(2, 1))).sum()

    def length(loss):
        return jax.grad(lambda kernel: (jax.grad(loss)(kernel) ** 2).sum())(kernel)

    assert_close(length(ours), length(stock), 1e-12)


def test_in_scan_and_under_checkpoint_it_is_the_same(layer):
    params, x = layer
    expected = jax.grad(lambda x: DENSE(params, x).sum())(x)
    rows = lambda x: jax.lax.scan(  # noqa: E731
        lambda total, row: (total + DENSE(params, row[None]).sum(), None), 0.0, x
    )[0]
    assert_close(jax.grad(rows)(x), expected, 1e-6)
    again = jax.checkpoint(lambda x: DENSE(params, x))
    assert_close(jax.grad(lambda x: again(x).sum())(x), expected, 1e-6)


def test_forward_mode_is_refused(layer):
    params, x = layer
    with pytest.raises(TypeError, match=r"forward-mode autodiff .* to a custom_vjp function"):
        jax.jvp(lambda x: DENSE(params, x), (x,), (x,))


def test_no_gradient_is_taken_that_is_not_derived(layer):
    _, logits = layer
    loss, shares = as_function("softmax_cross_entropy"), np.full((4, 5), 0.2, np.float32)
    jax.grad(lambda logits: loss(logits, shares).sum())(logits)
    with pytest.raises(UserError, match="softmax_cross_entropy: expected no gradient of labels"):
        jax.jit(jax.grad(lambda shares: loss(logits, shares).sum()))(shares)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_function("convolution"), "expected .*, got convolution"),
        (lambda: DENSE({}), r"dense: expected \(params, x, ...\), missing .*: 'x'"),
        (lambda: as_function("max_pool")(0), "max_pool: expected .*, missing .*: 'window'"),
        (lambda: CONV({}, 0, stride=2), "conv: expected .*, got an unexpected keyword .*stride"),
    ],
)
def test_a_wrong_request_is_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


# The lecture's CNN in three libraries


def example(name):
    return runpy.run_path(str(ROOT / "examples" / f"anywhere_{name}.py"))


def in_plain_jax(params, images, labels):
    return jax.grad(example("jax")["loss_of"])(params, images, labels)


def in_nnx(params, images, labels):
    made = example("nnx")
    model = made["CNN"](nnx.Rngs(0))
    for name, arrays in params.items():
        for kind, array in arrays.items():
            setattr(getattr(model, name), kind, nnx.Param(array))
    return nnx.to_pure_dict(nnx.grad(made["loss_of"])(model, images, labels))


def in_equinox(params, images, labels):
    eqx = pytest.importorskip("equinox", reason="an oracle")
    made = example("equinox")
    names = [(name, kind) for name, arrays in params.items() for kind in arrays]
    where = lambda model: [getattr(getattr(model, name), kind) for name, kind in names]  # noqa: E731
    arrays = [params[name][kind] for name, kind in names]
    model = eqx.tree_at(where, made["CNN"](jax.random.key(0)), arrays)
    gradient = eqx.filter_grad(made["loss_of"])(model, images, labels)
    return {name: vars(getattr(gradient, name)) for name in params}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [in_plain_jax, in_nnx, pytest.param(in_equinox, marks=pytest.mark.oracle)]
)
def test_the_lectures_cnn_has_the_gradient_of_stock_flax(way, float64):
    model, images, labels = MODELS["cnn"](dropout=0.0), random_images(6, 28, 28, 1), np.arange(6)
    images = images.astype(np.float64)
    params = jax.tree.map(np.float64, random_params(model))

    def loss(params):
        logits: Any = model.apply({"params": params}, images)
        return LOSSES["cross_entropy"](logits, jnp.asarray(labels)).mean()

    found = flatten_dict(way(params, images, labels))
    expected = flatten_dict(quick_jit(jax.grad(loss))(params))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert_close(found[name], array, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "nnx", pytest.param("equinox", marks=pytest.mark.oracle)])
def test_an_example_trains(name):
    if name == "equinox":
        pytest.importorskip("equinox", reason="an oracle")
    assert example(name)["main"](10) > 0.4  # 0.1 without learning.


def of_nnx(function, params, x, d_out):
    class Layer(nnx.Module):
        def __init__(self):
            self.params = nnx.data(jax.tree.map(nnx.Param, params))
            self.x = nnx.Param(x)

    def loss(layer):
        arrays = jax.tree.map(lambda leaf: leaf[...], nnx.to_pure_dict(nnx.state(layer)))
        return (function(arrays.get("params", {}), arrays["x"]) * d_out).sum()

    found = nnx.to_pure_dict(nnx.jit(nnx.grad(loss))(Layer()))
    return found.get("params", {}), found["x"]


def of_equinox(function, params, x, d_out):
    eqx = pytest.importorskip("equinox", reason="an oracle")

    class Layer(eqx.Module):
        params: dict
        x: jax.Array

    def loss(layer):
        return (function(layer.params, layer.x) * d_out).sum()

    found = eqx.filter_jit(eqx.filter_grad(loss))(Layer(params, x))
    return found.params, found.x


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("way", [of_nnx, of_equinox])
@pytest.mark.parametrize("name", ["dense", "conv", "max_pool", "relu"])
def test_a_layer_of_any_shape_has_autodiffs_gradient_in_other_libraries(name, way):
    rule = RULES[name]
    function = as_function(rule)
    for setting in drawn_settings(rule, draws=12, seed=56):
        with precision("float64"):
            passes = whole_problem_of(rule, setting).at("float64")
            params = passes.inputs.get("params", {})

            def call(params, x, static=setting.static):
                given = [{"params": params, "x": x}[name] for name in rule.inputs]
                return function(*given, **static)

            found = way(call, params, jnp.asarray(passes.inputs["x"]), passes.constants[1])
            expected = quick_jit(passes.automatic)(passes.inputs, passes.constants)["gradient"]
            assert_close(found, (expected.get("params", {}), expected["x"]), 1e-12)
