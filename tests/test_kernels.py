"""Kernels: which layers they replace and where; they equal the pairs; what plain leaves out."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit, random_images, random_params, slow, train_on

from jaxnets.backprop import convolution, pooling
from jaxnets.backprop.alexnet_layers import LOCAL_RESPONSE_NORM
from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.pooling import MAX_POOL
from jaxnets.backprop.relu import RELU
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.compare import TOLERANCES, compiled, errors_of
from jaxnets.gradcheck.errors import relative_error
from jaxnets.gradcheck.layer_check import check_kernel, problem_of, with_backward
from jaxnets.kernels import KERNELS, accelerate
from jaxnets.kernels.by_rule import ConvByRule, DenseByRule
from jaxnets.kernels.conv_pool import (
    CONV_POOL,
    ConvPool,
    conv_outputs,
    conv_pool_backward,
    unchanged,
)
from jaxnets.kernels.convolution import FastConv
from jaxnets.kernels.elementwise import fast_relu
from jaxnets.kernels.kernel import product_of_rows
from jaxnets.kernels.pools import FastMaxPool, OverlappingMaxPool
from jaxnets.kernels.wide_dense import WideDense
from jaxnets.kernels.winograd import LIMITS, Limits
from jaxnets.losses import LOSSES
from jaxnets.models import MODELS
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain
from jaxnets.models.cnn import cnn
from jaxnets.models.layers import MaxPool, flatten
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.models.precision import with_precision
from jaxnets.training.step import autodiff_loss_and_grad


def kinds(chain):
    return [layer if hasattr(layer, "__name__") else type(layer) for layer in chain.layers]


@pytest.mark.parametrize("count", [1, 8, 9])
def test_a_product_of_any_number_of_rows_is_numpys(count):
    rows, dz = random_images(count, 3), random_images(count, 2)
    assert_close(product_of_rows(jnp.asarray(rows), jnp.asarray(dz)), rows.T @ dz, 1e-6)


MANY_SETTINGS = (
    "conv_pool", "fast_conv", "fast_local_response_norm", "fast_max_pool", "overlapping_max_pool",
    "wide_dense",
)  # fmt: skip


@pytest.mark.parametrize(
    "kernel",
    [slow(k, id=k.name) if k.name in MANY_SETTINGS else k for k in KERNELS],
    ids=lambda kernel: kernel.name,
)
def test_a_kernel_equals_its_pair(kernel):
    row = check_kernel(kernel)
    assert row.ok, row
    assert row.errors["float64"].value <= 1e-10 and kernel.benchmark.startswith("python bench")


@pytest.mark.slow
def test_a_kernel_that_differs_from_its_pair_is_found():
    kernel = next(kernel for kernel in KERNELS if kernel.name == "wide_dense")
    forward = kernel.rule.forward

    def wrong(*inputs, **static):
        out, cache = forward(*inputs, **static)
        return 2 * out, cache

    row = check_kernel(kernel._replace(rule=kernel.rule._replace(forward=wrong)))
    assert not row.ok and min(error.value for error in row.errors.values()) > 0.5


def primitives(function, *arrays):
    return {equation.primitive.name for equation in jax.make_jaxpr(function)(*arrays).eqns}


def test_the_taught_pairs_are_in_the_words_of_their_derivations():
    """A choice for a maximum, exp and log for a power, cells for windows are kernels' tricks."""
    x, static = jnp.ones((1, 4, 4, 3)), {"window": (3, 3), "strides": (2, 2), "padding": "SAME"}
    assert primitives(lambda x: RELU.forward(x)[0], x) == {"max"}
    y, cache = LOCAL_RESPONSE_NORM.forward(x)
    powers = [
        primitives(LOCAL_RESPONSE_NORM.forward, x),
        primitives(LOCAL_RESPONSE_NORM.backward, cache, y),
    ]
    assert all("pow" in used and not {"exp", "log"} & used for used in powers)
    y, cache = MAX_POOL.forward(x, **static)
    used = primitives(functools.partial(MAX_POOL.backward, **static), cache, y)
    assert "pad" in used and "reshape" not in used


def test_a_layer_by_its_rule_leaves_flaxs_hooks_alone():
    for layer in (nn.Conv(4, (3, 3)), nn.Dense(4), DenseWithOnes(4), nn.Dense(200)):
        (fast,) = accelerate(Chain([layer]), "cpu").layers
        hooks = ("promote_dtype", "dot_general", "conv_general_dilated")
        given = {name: getattr(layer, name) for name in hooks if hasattr(layer, name)}
        assert type(fast) is not type(layer)
        assert {name: getattr(fast, name) for name in given} == given


def test_no_kernel_asks_for_a_version():
    folder = Path(convolution.__file__).parents[1] / "kernels"
    found = [
        path.name
        for path in folder.glob("*.py")
        if re.search("(?i)version|emitter", path.read_text())
    ]
    assert not found


@pytest.mark.parametrize("layer", [FastConv(128, (3, 3)), ConvPool(128, (3, 3))])
def test_a_layer_says_from_how_many_tiles_it_uses_them(layer):
    """As a check of a few images does, without a change of the module."""
    x = jnp.ones((2, 12, 12, 128))
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    programs = [
        str(jax.make_jaxpr(one.apply)(params, x))
        for one in (layer, layer.clone(limits=Limits(fewest_tiles=1)))
    ]
    assert ["dot_general" in program for program in programs] == [False, True]


def test_every_layer_keeps_its_place_and_its_parameters():
    plain = cnn()
    fast = accelerate(plain, "cpu")
    joined = [ConvPool, fast_relu, fast_relu]
    dense = [flatten, WideDense, fast_relu, nn.Dropout, DenseByRule]
    assert kinds(fast) == [*joined, *joined, *dense]
    shapes = [
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        for model in (plain, fast)
    ]
    assert shapes[0] == shapes[1]


def test_a_convolution_and_its_pool_are_joined_without_a_relu_too():
    plain = Chain([nn.Conv(4, (3, 3)), MaxPool(2), BatchNorm(), nn.gelu, flatten, nn.Dense(3)])
    fast = accelerate(plain, "cpu")
    assert kinds(fast)[:4] == [ConvPool, unchanged, BatchNorm, nn.gelu]
    x = jnp.asarray(random_images(6, 9, 7, 2))
    params = quick_jit(plain.init)(jax.random.key(0), x)
    outputs = [quick_jit(model.apply)(params, x) for model in (plain, fast)]
    assert_close(outputs[1], outputs[0], 1e-5)


def test_on_accelerators_and_for_split_batches_fewer_layers_change():
    paired = [ConvByRule, nn.relu, FastMaxPool] * 2
    assert kinds(accelerate(cnn(), "tpu"))[:7] == [*paired, flatten]
    assert kinds(accelerate(cnn(), "gpu"))[7] is DenseByRule
    sharded = accelerate(cnn(), "cpu", sharded=True)
    assert kinds(sharded)[:3] == [FastConv, fast_relu, FastMaxPool]
    small = accelerate(MODELS["alexnet_small_bn"](), "cpu")
    assert kinds(small)[:4] == [FastConv, BatchNorm, fast_relu, OverlappingMaxPool]


@pytest.mark.parametrize(
    "change",
    [
        lambda: with_precision(cnn(), "mixed"),
        lambda: cnn(activation="sigmoid"),
        lambda: Chain([nn.Conv(4, (3, 3)), nn.relu, MaxPool(3, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3)), nn.relu, MaxPool(2, 1)]),
        lambda: Chain([nn.Conv(4, (3, 3)), nn.tanh, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (5, 5)), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), strides=2), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), feature_group_count=2), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), kernel_dilation=2), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), padding="CIRCULAR"), nn.relu, MaxPool(2, 2)]),
    ],
    ids=[
        "mixed",
        "sigmoid",
        "a pool of 3",
        "a stride of 1",
        "tanh",
        "5 x 5",
        "strides",
        "groups",
        "dilation",
        "circular",
    ],
)
def test_other_convolutions_are_not_joined_with_their_pools(change):
    assert ConvPool not in kinds(accelerate(change(), "cpu"))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, 3),  # One direction; so is the next.
        nn.Conv(4, (3,)),
        nn.Conv(4, (3, 3), kernel_dilation=2),
        nn.Conv(4, (3, 3), input_dilation=(1, 2)),
        nn.Conv(4, (3, 3), mask=np.zeros((3, 3, 1, 4))),
        nn.Conv(4, (3, 3), padding="REFLECT"),
    ],
    ids=["number", "line", "kernel_dilation", "input_dilation", "mask", "padding"],
)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_convolution_of_another_form_stays_with_stock_autodiff(layer, platform):
    chain = Chain([layer])
    assert accelerate(chain, platform).layers[0] is chain.layers[0]


@pytest.mark.parametrize("one", [None, 1, (1, 1)])
def test_a_dilation_of_one_is_none(one: Any):
    layer = nn.Conv(4, (3, 3), kernel_dilation=one, input_dilation=one)
    assert kinds(accelerate(Chain([layer]), "cpu")) == [FastConv]


@pytest.fixture
def batch(tiny):
    images = np.asarray(tiny.train.images[:8])
    return Batch(images, tiny.train.labels[:8], np.ones(8, np.float32))


@pytest.mark.slow
def test_plain_manual_runs_the_taught_pairs_alone(tiny, tiny_preset, batch, break_rule):
    """On a CPU, where kernels would replace most layers of the network."""
    called = []

    def noting(pair):
        return lambda *inputs, **static: called.append(pair.__name__) or pair(*inputs, **static)

    break_rule(nn.Conv, backward=noting(convolution.conv_backward))
    break_rule(MaxPool, backward=noting(pooling.max_pool_backward))
    config = tiny_preset("cnn", hidden=(8,), gradients="manual", kernels="plain")
    experiment = Experiment.create(config, tiny)
    assert experiment.step_model is experiment.model
    traced = jax.make_jaxpr(experiment.train_step())(experiment.init_state(), batch)
    assert called == ["max_pool_backward", "conv_backward"] * 2
    program = str(traced)
    assert "optimization_barrier" not in program and " cond[" not in program


def test_plain_auto_is_stock_autodiff_of_stock_layers(tiny, tiny_preset, batch):
    config = tiny_preset("cnn", hidden=(8,), kernels="plain")
    experiment = Experiment.create(config, tiny)
    stock = autodiff_loss_and_grad(experiment.model.apply, LOSSES["cross_entropy"])
    params, key = experiment.init_state().params, jax.random.key(0)
    ours, theirs = (
        str(jax.make_jaxpr(way)(params, batch, key)) for way in (experiment.loss_and_grad, stock)
    )
    assert ours == theirs and "custom_vjp" not in ours and "select_and_scatter" in ours


@dataclasses.dataclass(frozen=True)
class AbsentDevice:
    """A device of a machine that is not there."""

    platform: str
    process_index: int


@pytest.mark.parametrize("gradients", ["auto", "manual"])
def test_a_step_for_absent_devices_has_their_layers(tiny, tiny_preset, batch, gradients):
    """Traced on a CPU machine for a TPU."""
    device = AbsentDevice("tpu", 0)
    config = tiny_preset("cnn", hidden=(8,), gradients=gradients)
    here = Experiment.create(config, tiny)
    there = Experiment.create(config, tiny, cast(Any, [device]))
    state = here.init_state()
    ours, theirs = (str(jax.make_jaxpr(e.train_step())(state, batch)) for e in (here, there))
    assert "optimization_barrier" in ours and "optimization_barrier" not in theirs
    assert "conv_general_dilated" in theirs and "conv_general_dilated" not in ours


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("kind", "joined"), [("jit", False), ("pmap", True), ("shard_map", True)])
def test_both_compares_the_pass_that_trains(tiny, tiny_preset, monkeypatch, kind, joined):
    """On two devices: jit splits the batch itself."""
    seen = []

    def recorded(model, *others):
        seen.append(ConvPool in kinds(model))
        return manual_loss_and_grad(model, *others)

    for name in ("jaxnets.parts", "jaxnets.gradcheck.oracle"):
        monkeypatch.setattr(f"{name}.manual_loss_and_grad", recorded)
    config = tiny_preset("cnn", hidden=(8,), gradients="both", devices=2, parallel=kind, epochs=1)
    train_on(tiny, config)
    assert len(seen) >= 2 and set(seen) == {joined}


@pytest.mark.parametrize(
    ("channels", "features", "primitive"),
    [
        (1, 3, None),
        (3, 3, None),
        (4, 3, "conv_general_dilated["),
        (31, 200, "conv_general_dilated["),
        (32, 3, "dot_general["),
        (200, 127, "dot_general["),
        (128, 128, "conv_general_dilated["),
    ],
)
def test_the_number_of_channels_decides_how_a_joined_pool_is_computed(
    channels, features, primitive
):
    """Colours in one loop of sums, tiles of 4x4 pixels by products, others by the convolution."""
    params = {"kernel": jnp.ones((3, 3, channels, features))}
    forward = functools.partial(CONV_POOL.forward, padding="VALID")
    program = str(jax.make_jaxpr(forward)(params, jnp.ones((2, 6, 6, channels))))
    products = {"dot_general[", "conv_general_dilated["}
    assert {p for p in products if p in program} == {primitive} & products


@pytest.mark.parametrize("channels, biased, padding", [(3, True, "SAME"), (4, False, "VALID")])
def test_the_outputs_behind_a_joined_pool_are_the_convolutions(channels, biased, padding):
    """`--gradients=both` compares at them; the pool drops the last of odd rows and columns."""
    x, kernel = (
        jnp.asarray(random_images(*shape)) for shape in ((2, 7, 9, channels), (3, 3, channels, 4))
    )
    params = {"kernel": kernel} | ({"bias": kernel[0, 0, 0]} if biased else {})
    z = conv_outputs(params, x, padding=padding)
    wanted, _ = convolution.conv_forward(params, x, padding=padding)
    assert_close(z, wanted[:, : z.shape[1], : z.shape[2]], 1e-6)
    assert z.shape[1:] == (*(size // 2 * 2 for size in wanted.shape[1:3]), 4)


def test_ties_go_to_the_first_as_in_xla():
    """Pictures have many: their background."""
    layers = [
        nn.Conv(6, (3, 3), padding="VALID", name="conv"), nn.relu, MaxPool(2, 2),
        flatten, nn.Dense(2, name="logits"),
    ]  # fmt: skip
    plain = Chain(layers)
    images = np.array(random_images(5, 9, 10, 4))
    images[0] = 0.75
    images[1] = images[1, :1]  # equal rows
    images[2] = images[2, :, :1]  # equal columns
    images[3, :6] = images[3, 0, 0]
    params = random_params(plain, images.shape[1:])

    def loss(model):
        return quick_jit(
            jax.grad(
                lambda params, x: (model.apply({"params": params}, x) ** 2).sum(), argnums=(0, 1)
            )
        )(params, images)

    assert relative_error(loss(accelerate(plain, "cpu")), loss(plain))[0] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 4])
def test_a_negative_padding_cuts_the_images_of_a_joined_pool(channels):
    """As stock JAX's on the part of the images that is left, whose own padding is not negative.

    With the negative one XLA's gradient in float32 reads memory that nobody has written: one of
    some thousand calls is not finite (jaxlib 0.10.2, a CPU). With up to three channels the outputs
    are summed in one loop.
    """

    def network(padding):
        conv = nn.Conv(6, (3, 3), padding=padding, name="conv")
        return Chain([conv, nn.relu, MaxPool(2, 2), flatten, nn.Dense(2, name="logits")])

    images = random_images(3, 9, 10, channels)
    cut, plain = network(((-1, 1), (0, -2))), network(((0, 1), (0, 0)))
    params = random_params(cut, images.shape[1:])

    def gradients(apply):
        total = lambda params, x: (apply({"params": params}, x) ** 2).sum()  # noqa: E731
        return quick_jit(jax.grad(total, argnums=(0, 1)))(params, images)

    fast = accelerate(cut, "cpu")
    assert any(isinstance(layer, ConvPool) for layer in fast.layers)
    expected = gradients(lambda params, x: plain.apply(params, x[:, 1:, :-2]))
    assert relative_error(gradients(fast.apply), expected)[0] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("images", [7, 8])
def test_blocks_of_images_give_what_all_at_once_gives(float64, images):
    """The last of several blocks may be filled up with zeros."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((images, 7, 9, 32)), rng.standard_normal((images, 3, 4, 5))
    params = {"kernel": rng.standard_normal((3, 3, 32, 5)), "bias": rng.standard_normal(5)}

    def passes(params, x, dy, limits=LIMITS):
        y, cache = CONV_POOL.forward(params, x, padding="SAME", limits=limits)
        return y, conv_pool_backward(cache, dy, padding="SAME", limits=limits)

    at_once = quick_jit(passes)(params, x, dy)
    of_an_image = 16 * 3 * 4 * 32
    again = functools.partial(passes, limits=Limits(block=2 * of_an_image))
    assert "scan" in str(jax.make_jaxpr(again)(params, x, dy))
    assert_close(quick_jit(again)(params, x, dy), at_once, 1e-13)


def without_overlaps(cache, d_out, **static):
    """Takes each window's tile for the window's own."""
    d_params, _ = conv_pool_backward(cache, d_out, **static)
    even, odd = (d_out.at[:, start::2].set(0) for start in (1, 0))
    images = [conv_pool_backward(cache, d, **static)[1] for d in (even, odd)]
    return d_params, jnp.where(images[1] != 0, *reversed(images))  # pyright: ignore


def bias_at_four_places(cache, d_out, **static):
    """Gives the bias the gradient of all four outputs."""
    d_params, dx = conv_pool_backward(cache, d_out, **static)
    return {**d_params, "bias": 4 * d_params["bias"]}, dx


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [without_overlaps, bias_at_four_places])
def test_a_wrong_backward_pass_is_found_by_both_oracles(wrong):
    rule = with_backward(CONV_POOL, wrong)
    (program,) = compiled([(problem_of(rule, rule.settings[0]), "float64")])
    error, differences = errors_of(program)
    assert differences and error.value > TOLERANCES["float64"]
    assert differences.error.value > TOLERANCES["differences"]
