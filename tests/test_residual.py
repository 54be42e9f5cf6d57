"""Residual blocks, one in another, through everything that walks through a network's layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, random_params, slow
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rule import LayerRule
from jaxnets.backprop.rules import KINDS
from jaxnets.base.errors import UserError
from jaxnets.base.trees import by_layer
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.gradcheck.compare import TOLERANCES, disagreement
from jaxnets.gradcheck.oracle import both_loss_and_grads
from jaxnets.gradcheck.quick import precision
from jaxnets.kernels import accelerate
from jaxnets.losses import LOSSES
from jaxnets.models.batch_norm import BatchNorm, fold, over_devices
from jaxnets.models.chain import Chain, walk
from jaxnets.models.layers import flatten
from jaxnets.models.precision import with_precision
from jaxnets.models.residual import Residual
from jaxnets.models.weights import describe_weights, head_of, load_weights
from jaxnets.networks.rows import from_rows, to_rows
from jaxnets.predict.portable import branch_rows, check_kinds, portable_network
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.report.passes import passes_of
from jaxnets.report.summary import describe_layer, summary
from jaxnets.runs.diagnosis import first_bad_output
from jaxnets.training.step import autodiff_loss_and_grad

RNG = np.random.default_rng(0)
SHAPE, KEY = (6, 6, 3), jax.random.key(3)
IMAGES, LABELS = RNG.random((5, *SHAPE)), np.array([0, 1, 2, 0, 1], np.int32)


def batch(dtype):
    """Five images, the last of which is padding."""
    return Batch(IMAGES.astype(dtype), LABELS, np.array([1, 1, 1, 1, 0], dtype))


def conv(features, window=3, strides=1):
    return nn.Conv(features, (window, window), strides=strides, use_bias=False)


def network():
    """A block, and one with a projection, in which a third has its batch norm first."""
    inner = Residual([BatchNorm(), nn.relu, nn.Dropout(0.5), conv(6)])
    first = Residual([conv(4), BatchNorm(), nn.relu, nn.Dropout(0.3), conv(4), BatchNorm()])
    second = Residual([conv(6, strides=2), BatchNorm(), nn.relu, inner], [conv(6, 1, 2)])
    head = [nn.relu, flatten, nn.Dropout(0.2), nn.Dense(3, name="logits")]
    return Chain([conv(4), BatchNorm(), nn.relu, first, nn.relu, second, *head])


@pytest.fixture(scope="module")
def params():
    drawn = random_params(network(), SHAPE)
    return jax.tree.map(lambda leaf: leaf + 0.3 * RNG.random(leaf.shape), drawn)


def in_float32(tree):
    return jax.tree.map(np.float32, tree)


def test_parameters_lie_by_block_chain_and_layer(params):
    assert [name for name in by_layer(params) if "conv" in name] == [
        "conv1",
        "residual1.chain.conv1",
        "residual1.chain.conv2",
        "residual2.chain.conv1",
        "residual2.chain.residual1.chain.conv1",
        "residual2.shortcut.conv1",
    ]
    paths = [".".join(path) for path, _ in walk(network())]
    assert sorted(by_layer(params)) == sorted(name for name in paths if name in by_layer(params))


@pytest.mark.slow
def test_gradients_agree_with_dropout_padding_and_kernels(params):
    """Inner dropout layers draw the same masks by hand, and padding counts in no batch norm."""
    with precision("float64"):
        model = with_precision(network(), "float64")
        fast, loss = accelerate(model, "cpu"), LOSSES["cross_entropy"]
        ways = [
            autodiff_loss_and_grad(model.apply, loss),
            manual_loss_and_grad(model, "cross_entropy"),
            manual_loss_and_grad(fast, "cross_entropy"),
            autodiff_loss_and_grad(fast.apply, loss),
        ]
        given = params, batch("float64"), KEY
        expected, *found = quick_jit(lambda *given: [way(*given) for way in ways])(*given)
    kinds = [type(layer).__name__ for _, layer in walk(fast)]
    assert kinds.count("FastConv") == 6 and "relu" not in {
        getattr(layer, "__name__", "") for _, layer in walk(fast)
    }
    for one in found:
        assert disagreement(one, expected).value <= TOLERANCES["float64"]


@pytest.mark.parametrize("dtype", [slow("float32"), slow("bfloat16"), slow("mixed")])
def test_both_gradients_agree_in_fewer_digits(params, dtype):
    model = with_precision(network(), dtype)
    both = both_loss_and_grads(model, accelerate(model, "cpu"), "cross_entropy", "float32")
    _, (found, expected, _) = quick_jit(both)(in_float32(params), batch("float32"), KEY)
    assert disagreement(found, expected).value <= (1e-4 if dtype == "float32" else 0.05)


def test_mixed_precision_ends_in_float32_wherever_the_end_is():
    def dtypes(*layers):
        model = with_precision(Chain(layers), "mixed")
        return {".".join(path): getattr(layer, "dtype", None) for path, layer in walk(model)}

    found = dtypes(conv(4), nn.LayerNorm(), Residual([conv(4), BatchNorm()], [conv(4)]), nn.relu)
    assert {name: jnp.dtype(dtype).name for name, dtype in found.items() if dtype} == {
        "conv1": "bfloat16",
        "norm1": "bfloat16",
        "residual1.chain.conv1": "float32",
        "residual1.shortcut.conv1": "float32",
    }
    assert dtypes(nn.relu, flatten) == {"": None}


def test_folding_reaches_blocks_and_leaves_what_no_layer_can_take(params):
    with precision("float64"):
        model = with_precision(network(), "float64")
        folded, arrays = fold(model, params)
        left = [".".join(path) for path, layer in walk(folded) if isinstance(layer, nn.BatchNorm)]
        assert left == ["residual2.chain.residual1.chain.norm1"]
        assert by_layer(arrays).keys() >= set(left)
        expected, found = (
            quick_jit(one.apply)({"params": own}, IMAGES)
            for one, own in ((model, params), (folded, arrays))
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    alone = Chain([Residual([BatchNorm(), nn.relu])])
    assert fold(alone, {})[0] is alone


@pytest.mark.slow
def test_the_passes_of_an_image_hold_autodiffs_gradients(params):
    found = passes_of(network(), params, IMAGES[0].astype(np.float32), 1, "cross_entropy")
    model, arrays = fold(network(), params)

    def loss(arrays):
        logits: Any = model.apply({"params": arrays}, IMAGES[:1].astype(np.float32))
        return LOSSES["cross_entropy"](logits, jnp.array([1]))[0]

    gradient = by_layer(quick_jit(jax.grad(loss))(in_float32(arrays)))
    paths = [".".join(path) for path, layer in walk(model) if not isinstance(layer, nn.Dropout)]
    assert [step.label for step in found.steps][4:7] == [
        "residual1.chain: conv2 (Conv 3x3)",
        "residual1 (chain + x)",
        "relu",
    ]
    for path, step in zip(paths, found.steps, strict=True):
        assert step.output.gradient is not None
        for name, array in step.params.items():
            if array.gradient is None:
                assert name in ("mean", "var")
                continue
            np.testing.assert_allclose(array.gradient, gradient[path][name], rtol=0, atol=2e-5)


def test_a_summary_counts_a_block_once():
    found = summary(network(), SHAPE)
    count = sum(leaf.size for leaf in jax.tree.leaves(random_params(network(), SHAPE)))
    assert found.totals[0] == count
    assert [row.layer for row in found.rows if row.depth == 2] == [
        "norm1 (BatchNorm)",
        "relu",
        "Dropout 0.5",
        "conv1 (Conv 3x3)",
    ]


@pytest.mark.slow
def test_the_first_bad_layer_is_found_within_blocks(params):
    broken = jax.tree.map(jnp.asarray, params)
    inner = broken["residual2"]["chain"]["residual1"]["chain"]
    assert first_bad_output(network(), broken, jnp.asarray(IMAGES), KEY) is None
    inner["norm1"]["scale"] = jnp.full(6, jnp.nan)
    named = first_bad_output(network(), broken, jnp.asarray(IMAGES), KEY)
    assert str(named) == "the output of residual2.chain.residual1.chain.norm1"


def test_devices_reach_the_norms_of_blocks():
    found = [layer for _, layer in walk(over_devices(network(), "devices"))]
    assert [layer.axis_name for layer in found if isinstance(layer, BatchNorm)] == ["devices"] * 5


def test_a_block_is_recorded_as_data():
    model = network()
    assert to_rows(from_rows(to_rows(model))) == to_rows(model)


def test_branches_of_other_shapes_or_without_a_rule_are_refused():
    x = jnp.ones((2, 4, 4, 1))
    with pytest.raises(UserError, match="its chain gives 4 x 4 x 3 and its shortcut 4 x 4 x 1"):
        Chain([Residual([conv(3)])]).init(KEY, x)
    with pytest.raises(UserError, match="gradients: silu has no rule and so no gradient by hand"):
        manual_loss_and_grad(Chain([Residual([nn.silu]), nn.Dense(2)]), "cross_entropy")


def test_weights_of_blocks_are_loaded_under_a_head_of_any_name(tmp_path):
    def drawn(classes):
        chain = Chain([Residual([nn.Dense(4)]), nn.Dense(classes)])
        return chain, chain.init(KEY, jnp.ones((1, 4)))["params"]

    (chain, theirs), (_, ours) = drawn(3), drawn(2)
    path = str(tmp_path / "weights.safetensors")
    save_file(
        {f"params/{n}": np.asarray(x) for n, x in flatten_dict(theirs, sep="/").items()}, path
    )
    found = load_weights(path, ours, head_of(chain, ours))
    block = found["residual1"]["chain"]["dense1"]["kernel"]
    np.testing.assert_array_equal(block, theirs["residual1"]["chain"]["dense1"]["kernel"])
    np.testing.assert_array_equal(found["dense1"]["kernel"], ours["dense1"]["kernel"])
    assert "it has 3 classes there and 2 here" in describe_weights(path, ours, "dense1")


class Gated(nn.Module):
    """y = left(x) * right(x); without a right branch left(x) * x."""

    left: Chain
    right: Chain | None = None

    def __call__(self, x, *, train=False, mask=None):
        left: Any = self.left(x, train=train, mask=mask)
        return left * (x if self.right is None else self.right(x, train=train, mask=mask))


def gated_forward(params, x, keys, mask, *, left, right):
    a, left_cache = left.forward(params.get("left", {}), x, keys.get("left", {}), mask)
    b, right_cache = right.forward(params.get("right", {}), x, keys.get("right", {}), mask)
    return a * b, (a, b, left_cache, right_cache)


def gated_backward(cache, dy, *, left, right, input_gradient=True):
    a, b, left_cache, right_cache = cache
    d_left, dx = left.backward(left_cache, dy * b, input_gradient)
    d_right, more = right.backward(right_cache, dy * a, input_gradient)
    both = {"left": d_left, "right": d_right}
    return {n: d for n, d in both.items() if d}, dx + more if input_gradient else None


def gated_branches(layer):
    return {"left": layer.left, "right": layer.right or Chain([])}


GATED = LayerRule(
    name="gated",
    layer=Gated,
    forward=gated_forward,
    backward=gated_backward,
    inputs=("params", "x", "keys", "mask"),
    static=gated_branches,
    branches=gated_branches,
)


@pytest.mark.parametrize("right", [None, slow([nn.Dense(4), nn.tanh])])
def test_a_layer_of_chains_of_ones_own_goes_where_a_residual_block_goes(monkeypatch, right):
    """Its rule says its branches; the oracle, an export's rows and the summary read them."""
    monkeypatch.setitem(KINDS, Gated, GATED)
    gated = Gated(Chain([nn.Dense(4), nn.relu]), right and Chain(right))
    model = Chain([nn.Dense(4), nn.relu, gated, nn.relu, nn.Dense(3)])
    params, x = random_params(model, (4,)), RNG.random((5, 4)).astype(np.float32)
    both = both_loss_and_grads(model, accelerate(model, "cpu"), "cross_entropy", "float32")
    rows = Batch(x, LABELS, np.ones(5, np.float32))
    _, (found, expected, _) = quick_jit(both)(in_float32(params), rows, KEY)
    assert disagreement(found, expected).value <= 1e-4
    trained = TrainedNetwork(preset("mlp"), model, params, (4,), ("0", "1", "2"), 0, True)
    network = portable_network(trained)
    row = network.layers[2]
    kinds = {name: [one["kind"] for one in rows] for name, rows in branch_rows(row).items()}
    assert kinds == {"left": ["dense", "relu"]} | ({"right": ["dense", "tanh"]} if right else {})
    assert network.arrays["gated1.left.dense1.kernel"].shape == (4, 4)
    with pytest.raises(UserError, match="cannot hold relu: it has no layer relu"):
        check_kinds([row], "a tool", {"gated", "dense", "tanh"}.__contains__)
    assert describe_layer(gated.clone(name="gated1"), {}) == (
        "gated1 (left + right)" if right else "gated1 (left + x)"
    )
