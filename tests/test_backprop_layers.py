"""Every hand-derived pair against autodiff of the same layer in stock JAX or Flax.

Every pair is held against both oracles of the gradient check in the settings that it names, and
against autodiff in others that are drawn from its domain.
"""

import dataclasses
import functools
import inspect
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit, random_images, random_params, slow
from jaxtyping import TypeCheckError

from jaxnets.backprop import (
    activations,
    average_pool,
    convolution,
    dense,
    dropout,
    losses,
    pooling,
    relu,
    windows,
)
from jaxnets.backprop.function import as_function
from jaxnets.backprop.network import pair_of
from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.backprop.rules import KINDS, RULES, rule_of
from jaxnets.base.errors import UserError
from jaxnets.course.exercises.derived import DERIVED
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.compare import (
    TOLERANCES,
    check_problems,
    disagreement,
)
from jaxnets.gradcheck.layer_check import drawn_settings, problem_of, with_backward
from jaxnets.gradcheck.oracle import both_loss_and_grads
from jaxnets.gradcheck.quick import precision
from jaxnets.kernels import KERNELS, accelerate
from jaxnets.kernels.convolution import FAST_CONV
from jaxnets.kernels.pools import fast_max_pool_forward
from jaxnets.kernels.wide_dense import WIDE_DENSE
from jaxnets.losses import LOSSES
from jaxnets.models import MODELS
from jaxnets.models.chain import Chain, map_layers, walk
from jaxnets.models.layers import AveragePool, LeakyReLU, MaxPool, flatten, global_average_pool
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.models.precision import with_precision
from jaxnets.models.residual import Residual
from jaxnets.networks.create import create_model
from jaxnets.networks.rows import to_rows


def assert_agrees(rule: LayerRule, setting: Setting, dtype: str = "float64"):
    """Demands that a pair gives autodiff's output and gradients in one setting."""
    with precision(dtype):
        passes = problem_of(rule, setting).at(dtype)
        both = quick_jit(lambda *arrays: (passes.manual(*arrays), passes.automatic(*arrays)))
        error = disagreement(*both(passes.inputs, passes.constants))
    assert error.value <= TOLERANCES[dtype], error


@pytest.mark.parametrize("name", DERIVED)
def test_every_pair_agrees_with_both_oracles(name):
    """In all settings with autodiff, in the first one with differences too."""
    rule = DERIVED[name]
    for setting in rule.settings[1:]:
        assert_agrees(rule, setting)
    row = check_problems(name, [problem_of(rule, rule.settings[0])], TOLERANCES)
    assert row.ok and row.compared, row


LAYERS = DERIVED | {kernel.name: kernel.rule for kernel in KERNELS}


def test_every_rule_and_kernel_has_a_domain():
    assert all(rule.domain for rule in LAYERS.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", DERIVED)
def test_a_pair_agrees_in_drawn_settings(name):
    """A kernel is compared with its pair in test_kernels.py."""
    for setting in drawn_settings(DERIVED[name], draws=8, seed=2):
        assert_agrees(DERIVED[name], setting)


# A narrower result in float64 is found above: its error is larger than the tolerance.
@pytest.mark.parametrize("dtype", [slow("float64"), slow("float32"), "bfloat16"])
@pytest.mark.parametrize("name", RULES)
def test_every_pair_keeps_shapes_and_dtypes(name, dtype):
    with precision(dtype):
        for setting in RULES[name].settings:
            passes = problem_of(RULES[name], setting).at(dtype)
            found = jax.eval_shape(passes.manual, passes.inputs, passes.constants)
            assert jax.tree.leaves(found["output"])[0].dtype == dtype
            chex.assert_trees_all_equal_shapes_and_dtypes(found["gradient"], passes.inputs)


def test_every_layer_and_loss_has_a_rule_in_use():
    layers = [layer for model in MODELS.values() for layer in model().layers]
    assert all(map(pair_of, layers))
    reached = [rule_of(layer) for layer in [*layers, *LOSSES.values()]]
    # The other activations are for --activation; no network has the slides' steps.
    others = {"sigmoid", "softmax", "cross_entropy", "softmax_then_cross_entropy"}
    others |= {"half_squared_error", "squared_error"}
    # These are for networks of one's own.
    others |= {"tanh", "leaky_relu", "gelu", "average_pool", "global_average_pool", "layer_norm"}
    assert {name for name, rule in RULES.items() if rule not in reached} <= others
    assert {id(rule) for rule in KINDS.values()} >= {id(rule) for rule in reached if rule}
    assert rule_of(type("MaxPool", (), {"__module__": "mine"})()) is None
    assert rule_of(type("Mine", (nn.Dense,), {})(3)) is None
    with pytest.raises(UserError, match="gradients: silu has no rule and so no gradient by hand"):
        pair_of(nn.silu)


# The derived rules inside autodiff


@pytest.mark.parametrize("every", [4, slow(2)])
@pytest.mark.parametrize("name", ["dense", "conv", "max_pool"])
def test_autodiff_through_a_rule_takes_its_backward_pass(name, every):
    rule = RULES[name]

    def forward(*inputs, **static):
        return jax.vjp(functools.partial(as_function(rule), **static), *inputs)

    def backward(pull_back, d_out, **static):
        return pull_back(d_out) if "params" in rule.inputs else pull_back(d_out)[0]

    for setting in rule.settings[::every]:
        assert_agrees(with_backward(rule._replace(forward=forward), backward), setting, "float32")


GROUPED = nn.Conv(4, (3, 3), padding=1, feature_group_count=2, name="conv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (MODELS["cnn"](hidden=(8,), dropout=0.0), (28, 28, 1)),
        slow(MODELS["alexnet_small"](dropout=0.0), (16, 16, 3)),
        (Chain([GROUPED, nn.relu, MaxPool(3, 2), flatten, nn.Dense(3, name="logits")]), (9, 9, 2)),
    ],
    ids=["cnn", "alexnet_small", "groups"],
)
def test_a_network_with_derived_rules_never_reaches_xlas_slow_gradient(model, shape):
    params, images = random_params(model, shape), random_images(2, *shape)

    def gradient(model):
        return jax.grad(lambda params: (model.apply({"params": params}, images) ** 2).sum())

    derived, stock = gradient(accelerate(model, "cpu")), gradient(model)
    ours, theirs = (str(jax.make_jaxpr(function)(params)) for function in (derived, stock))
    assert "select_and" in theirs and "select_and" not in ours and "reduce_window" not in ours
    assert disagreement(quick_jit(derived)(params), quick_jit(stock)(params)).value < 1e-5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv(3, (2, 2), padding="VALID", name="layer"), (64, 29, 15, 2)),
        (nn.Dense(3, name="layer"), (25088, 2)),
        (DenseWithOnes(3, name="layer"), (25088, 2)),
    ],
    ids=["conv", "dense", "ones"],
)
@pytest.mark.parametrize("platform", ["cpu", slow("gpu")])
def test_autodiff_with_kernels_adds_bias_gradients_in_float32(layer, shape, platform):
    """Against NumPy in float64; stock JAX stays at 256 or 8,192 of these 25,088 ones."""
    model = accelerate(Chain([layer.clone(dtype=jnp.bfloat16)]), platform)
    x = random_images(*shape)
    params = random_params(model, shape[1:])

    def output(params) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x))

    z, pull_back = jax.vjp(output, params)
    for dz in (np.ones(z.shape), np.random.default_rng(0).normal(1, 1, z.shape)):
        dz = jnp.asarray(dz, z.dtype)
        gradient = pull_back(dz)[0]["layer"]
        bias = gradient["bias"] if "bias" in gradient else gradient["kernel"][-1]
        expected = np.asarray(dz, np.float64).reshape(-1, 3).sum(axis=0)
        np.testing.assert_allclose(bias, expected, rtol=2**-8)


# Single facts


@pytest.mark.parametrize("name", ["dense", "dense_with_ones", "conv", "fast_conv", "wide_dense"])
def test_a_gradient_is_one_product_of_the_first_layer(name):
    rule = dict(RULES, fast_conv=FAST_CONV, wide_dense=WIDE_DENSE)[name]
    setting = rule.settings[0]
    params = {name: jnp.ones(shape) for name, shape in setting.params.items()}
    z, cache = rule.forward(params, jnp.ones(setting.x), **setting.static)

    def backward(cache, dz, *, first):
        return rule.backward(cache, dz, **setting.static, input_gradient=not first)

    d_params, dx = backward(cache, z, first=True)
    assert dx is None and d_params.keys() == params.keys()
    for first in (True, False):
        program = str(jax.make_jaxpr(functools.partial(backward, first=first))(cache, z))
        products = program.count("dot_general[") + program.count("conv_general_dilated[")
        assert products == (1 if first else 2)


def test_a_convolution_without_further_arguments_is_flaxs():
    x, kernel = (jnp.asarray(random_images(*shape)) for shape in ((2, 5, 6, 4), (3, 2, 4, 3)))
    params, layer = {"kernel": kernel}, nn.Conv(3, (3, 2), use_bias=False)
    z, _ = convolution.conv_forward(params, x)
    assert_close(z, layer.apply({"params": params}, x), 1e-6)


CUT = [  # Images, window, strides, padding: XLA's own pass in float32 on a CPU is wrong.
    ((8, 3, 1, 2), (3, 2), (1, 1), ((3, 1), (3, 0))),
    ((1, 3, 4, 2), (3, 3), (1, 1), ((3, 1), (4, 0))),
    ((2, 1, 1, 2), (2, 2), (5, 4), ((4, 0), (0, 3))),  # No window sees the image.
    ((8, 6, 5, 2), (3, 3), (1, 1), ((-1, 1), (0, -2))),
    ((8, 6, 5, 2), (3, 3), (2, 1), ((-1, 1), (-2, 2))),
]


def passes_of(conv, params, x):
    """The output, and the gradients of the sum of its squares."""
    total = lambda params, x: (conv(params, x) ** 2).sum() / 2  # noqa: E731
    return conv(params, x), *jax.grad(total, (0, 1))(params, x)


@pytest.mark.parametrize(("x", "window", "strides", "padding"), CUT)
def test_padding_that_only_some_windows_see_is_right_in_float32(x, window, strides, padding):
    """The pair, the kernel, and the layer of a network, against stock JAX in float64."""
    params, x = {"kernel": random_images(*window, x[-1], 3)}, random_images(*x)
    layer = nn.Conv(3, window, strides, padding, use_bias=False, name="conv")
    flax = lambda params, x: layer.clone().apply({"params": params}, x)  # noqa: E731
    with precision("float64"):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, x))
        expected = quick_jit(functools.partial(passes_of, flax))(*wide)
    static = {"strides": strides, "padding": padding, "groups": 1}
    network = map_layers(Chain([layer]), convolution.with_padding_first)
    for conv in (
        functools.partial(as_function("conv"), **static),
        functools.partial(as_function(FAST_CONV), **static),
        lambda params, x: network.apply({"params": {"conv": params}}, x),
    ):
        found = quick_jit(functools.partial(passes_of, conv))(params, x)
        assert_close(found, expected, 1e-5)


def test_only_such_a_convolution_pads_its_images_first(tiny_preset):
    plain: list[Any] = [nn.Conv(3, (3, 3)), nn.Conv(3, (3, 2), padding=((2, 5), 1)), nn.relu]
    assert [convolution.with_padding_first(layer) for layer in plain] == plain
    chain = Chain([nn.Conv(3, (3, 2), padding=(1, (2, 0))), Residual([nn.Conv(3, 1, padding=-1)])])
    made = create_model(
        dataclasses.replace(tiny_preset("softmax"), model="mine", layers=to_rows(chain)), 3
    )
    assert all(
        layer.conv_general_dilated is convolution.padded_first
        for _, layer in walk(made)
        if isinstance(layer, nn.Conv)
    )


def test_sigmoid_neither_overflows_nor_loses_small_values():
    with jax.debug_infs(True):
        y, _ = activations.sigmoid_forward(jnp.array([-1e4, -80.0, 0.0, 80.0, 1e4]))
    np.testing.assert_allclose(y, [0, np.exp(-80.0), 0.5, 1, 1], rtol=1e-6)


def test_activations_and_max_pool_let_a_nan_through():
    for name in ("relu", "leaky_relu", "tanh", "gelu"):
        static = {"slope": 0.1} if name == "leaky_relu" else {}
        y, _ = RULES[name].forward(jnp.array([-1.0, 0.0, 1.0, jnp.nan]), **static)
        assert jnp.isnan(y).tolist() == [False, False, False, True]
    for position in range(4):
        x = jnp.ones(4).at[position].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(pooling.max_pool_forward(x, window=(2, 2), strides=(2, 2))[0]).all()


def test_a_max_pool_kernel_counts_elements_in_few_bytes():
    for window, dtype in (((15, 17), jnp.uint8), ((17, 16), jnp.int32)):
        static = {"window": window, "strides": (1, 1), "padding": "VALID"}
        pool = functools.partial(fast_max_pool_forward, **static)
        _, (winner, rest) = jax.eval_shape(pool, jax.ShapeDtypeStruct((1, 17, 17, 1), jnp.float32))
        assert winner.dtype == dtype and rest.size == 0


def test_wrong_arguments_are_errors():
    x, params = jnp.ones((1, 2, 2, 1)), {"kernel": jnp.ones((1, 1, 1, 1))}
    with pytest.raises(ValueError, match=r"window of \(3, 3\) does not fit .* \(2, 2\)"):
        pooling.max_pool_forward(x, window=(3, 3), strides=(1, 1))
    with pytest.raises(ValueError, match="'SAME', 'VALID' or pairs of ints, got 'CIRCULAR'"):
        convolution.conv_forward(params, x, padding="CIRCULAR")
    for window, pads in (((1, 1), [(0, 0)] * 3), ((1, 1, 1), [(0, 0)] * 2)):  # Three directions.
        with pytest.raises(ValueError, match="argument 2 is (longer|shorter) than argument 1"):
            windows.window_pads((2, 2), window, (1, 1), pads)
    with pytest.raises(ValueError, match=r"window of \(3, 3\) does not fit .* \(2, 2\)"):
        average_pool.average_pool_forward(x, window=(3, 3), strides=(1, 1))
    with pytest.raises(ValueError, match="between 0 and 1, got 40"):
        dropout.dropout_forward(jax.random.key(0), jnp.ones(2), rate=40.0)


def test_the_static_arguments_are_those_of_the_flax_layer():
    conv = nn.Conv(8, (5, 5), strides=2, padding=(1, (0, 2)), feature_group_count=2)
    wanted = {"strides": (2, 2), "padding": [(1, 1), (0, 2)], "groups": 2}
    assert RULES["conv"].static(conv) == wanted
    wanted = {"strides": (1, 1), "padding": "SAME", "groups": 1}
    assert RULES["conv"].static(nn.Conv(8, (5, 5))) == wanted
    unsaid: Any = {"strides": None, "kernel_dilation": None, "input_dilation": None}
    assert RULES["conv"].static(nn.Conv(8, (5, 5), **unsaid)) == wanted
    for dilated in (nn.Conv(8, (3, 3), kernel_dilation=2), nn.Conv(8, 3, input_dilation=(1, 2))):
        with pytest.raises(ValueError, match="expected a convolution without dilation"):
            RULES["conv"].static(dilated)
    wanted = {"window": (3, 3), "strides": (2, 2)}
    assert RULES["average_pool"].static(AveragePool(3, 2)) == wanted
    assert RULES["max_pool"].static(MaxPool(3, 2)) == {**wanted, "padding": "VALID"}
    for layer, slope in ((LeakyReLU(0.2), 0.2), (LeakyReLU(), 0.01), (nn.leaky_relu, 0.01)):
        assert RULES["leaky_relu"].static(layer) == {"slope": slope}
    assert RULES["layer_norm"].static(nn.LayerNorm(1e-3)) == {"epsilon": 1e-3}
    others: dict[str, Any] = {"reduction_axes": (1, 2), "feature_axes": 1, "axis_name": "devices"}
    for name, value in others.items():
        layer = nn.LayerNorm(name="norm1", **{name: value})
        with pytest.raises(UserError, match=f"^LayerNorm norm1: expected {name}=[^\\n]*$"):
            pair_of(layer)
    with pytest.raises(
        UserError, match=r"^Dropout: expected no broadcast_dims for .*, got \(1,\)$"
    ):
        pair_of(nn.Dropout(0.5, (1,)))


NEWER = Chain(
    [
        nn.Conv(6, (3, 3), name="conv1"),
        nn.LayerNorm(name="norm1", use_bias=False),
        nn.gelu,
        AveragePool(3, 2),
        nn.Conv(8, (3, 3), name="conv2"),
        nn.LayerNorm(name="norm2", use_bias=False, use_scale=False),
        LeakyReLU(0.1),
        global_average_pool,
        nn.Dense(7, name="hidden1"),
        nn.LayerNorm(name="norm3", use_scale=False),
        nn.tanh,
        nn.Dense(3, name="logits"),
    ]
)


@pytest.mark.parametrize("kernels", [slow(True), False])
@pytest.mark.parametrize("dtype", ["float64", slow("float32"), "bfloat16"])
def test_a_network_of_the_newer_layers_agrees_with_autodiff(dtype, kernels):
    """A layer norm may have a scale, a bias, both or none."""
    with precision(dtype):
        plain = with_precision(NEWER, dtype)
        params = random_params(plain, (9, 9, 2))
        assert sorted(params["norm3"]) == ["bias"] and "norm2" not in params
        mask = np.array([1, 1, 1, 0], np.float32)
        batch = Batch(random_images(4, 9, 9, 2), np.array([0, 1, 2, 0], np.int32), mask)
        model = accelerate(plain, "cpu") if kernels else plain
        both = both_loss_and_grads(plain, model, "cross_entropy", dtype)
        if dtype == "bfloat16":  # Each pair is compared above; here the dtypes are.
            _, (ours, theirs, _) = jax.eval_shape(both, params, batch, jax.random.key(0))
        else:
            _, (ours, theirs, _) = quick_jit(both)(params, batch, jax.random.key(0))
            assert disagreement(ours, theirs).value <= TOLERANCES[dtype]
        chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs, params)


# Shapes in the signatures


def test_a_wrong_shape_is_caught_where_it_enters():
    """By the check that tests/conftest.py switches on: jaxtyping's annotations by beartype."""
    x = jnp.ones((2, 3))
    _, cache = dense.dense_forward({"kernel": jnp.ones((3, 4))}, x)
    with pytest.raises(TypeCheckError, match="'dz'"):
        dense.dense_backward(cache, jnp.ones((3, 4)))  # Three rows for a batch of two.
    images, three = jnp.ones((2, 6, 6, 1)), jnp.ones((3, 6, 6, 1))
    same: Any = dict(strides=(1, 1), padding="SAME")
    _, cache = convolution.conv_forward({"kernel": jnp.ones((3, 3, 1, 1))}, images)
    with pytest.raises(TypeCheckError, match="'dz'"):
        convolution.conv_backward(cache, three, groups=1, **same)
    _, cache = pooling.max_pool_forward(images, window=(2, 2), **same)
    with pytest.raises(TypeCheckError, match="'d_out'"):
        pooling.max_pool_backward(cache, three, window=(2, 2), **same)
    with pytest.raises(TypeCheckError, match="'labels'"):
        losses.softmax_cross_entropy_forward(x, jnp.zeros(3, int))
    with pytest.raises(TypeCheckError, match="'x'"):
        MaxPool(2)(x)
    with pytest.raises(TypeCheckError, match="'x'"):
        relu.relu_forward(jnp.ones(3, int))


def test_a_step_by_hand_is_compiled_once(tiny, tiny_preset):
    experiment = Experiment.create(tiny_preset("mlp", hidden=(4,), gradients="manual"), tiny)
    chex.clear_trace_counter()
    step = quick_jit(chex.assert_max_traces(experiment.train_step(), n=1))
    batch = Batch(tiny.train.images[:8], tiny.train.labels[:8], np.ones(8, np.float32))
    state = experiment.init_state()
    for _ in range(3):
        state, _ = step(state, batch)


def test_a_dense_layer_of_images_says_what_to_write_instead():
    unchecked = inspect.unwrap(dense.dense_forward)  # Users run it without the tests' type checker.
    with pytest.raises(UserError, match=r"takes rows, got 4 x 4 x 2: put flatten before it"):
        unchecked({"kernel": jnp.ones((2, 3))}, jnp.ones((1, 4, 4, 2)))
    with pytest.raises(UserError, match=r"at each place of a picture"):
        dense.DENSE.row(nn.Dense(3), (4, 4, 2))
