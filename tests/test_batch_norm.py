"""Batch normalization: Flax's and PyTorch's numbers, the statistics' way through a whole run."""

from typing import Any, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import quick_jit, random_params, shapes_of, slow

import jaxnets
from jaxnets.backprop.batch_norm import batch_norm_backward, batch_norm_forward
from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.backprop.rules import RULES
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.kernels import accelerate
from jaxnets.losses import LOSSES
from jaxnets.machine.platform import set_up_jax
from jaxnets.models import MODELS
from jaxnets.models.batch_norm import STATISTICS, BatchNorm, fold, over_devices, statistics_of
from jaxnets.models.chain import Chain
from jaxnets.models.layers import HE, flatten
from jaxnets.networks.create import create_model
from jaxnets.training.optimizer import optimizer_of, with_statistics
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import TrainState, autodiff_loss_and_grad, make_train_step

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 8, 8, 1), np.float32)
LABELS = RNG.integers(0, 3, 6).astype(np.int32)
KEY = jax.random.key(0)


def small() -> Chain:
    """A convolution with batch norm, and the logits."""
    return Chain(
        [
            nn.Conv(4, (3, 3), padding="VALID", use_bias=False, kernel_init=HE, name="conv1"),
            BatchNorm(name="norm1"),
            nn.relu,
            flatten,
            nn.Dense(3, kernel_init=HE, name="logits"),
        ]
    )


class InFlax(nn.Module):
    """The same network with Flax's own batch norm."""

    @nn.compact
    def __call__(self, x, mask=None, train=True):
        x = nn.Conv(4, (3, 3), padding="VALID", use_bias=False, name="conv1")(x)
        x = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False, name="norm1")(
            x, mask=mask
        )
        return nn.Dense(3, name="logits")(nn.relu(x).reshape(len(x), -1))


def to_flax(params):
    """The variables of Flax's network."""
    stats = {name: params["norm1"][name] for name in STATISTICS}
    norm = {name: params["norm1"][name] for name in ("scale", "bias")}
    return {"params": {**params, "norm1": norm}, "batch_stats": {"norm1": stats}}


GRADIENTS = {
    "plain": lambda model: autodiff_loss_and_grad(model.apply, LOSSES["cross_entropy"]),
    "auto": lambda model: autodiff_loss_and_grad(
        accelerate(model, "cpu").apply, LOSSES["cross_entropy"]
    ),
    "manual": lambda model: manual_loss_and_grad(model, "cross_entropy"),
}


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("gradients", GRADIENTS)
def test_steps_are_those_of_flax_with_its_own_layer(gradients, padding):
    """Parameters and statistics after three steps, rows of padding left out."""
    model, rule = small(), optax.sgd(0.1, momentum=0.9)
    params, mask = (
        random_params(model, IMAGES.shape[1:]),
        (np.arange(6) < 6 - padding).astype(np.float32),
    )
    ours = with_statistics(rule, STATISTICS, "mean")
    step = jax.jit(make_train_step(GRADIENTS[gradients](model), ours))
    state = TrainState(jnp.zeros((), jnp.int32), params, ours.init(params), KEY)
    theirs, variables = InFlax(), to_flax(params)
    opt_state = rule.init(variables["params"])

    @jax.jit
    def flax_step(variables, opt_state):
        def loss(params):
            rows = mask.reshape(-1, 1, 1, 1) > 0
            given = {**variables, "params": params}
            logits, after = theirs.apply(given, IMAGES, rows, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
            return (losses * mask).sum() / mask.sum(), after["batch_stats"]

        gradient, stats = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = rule.update(gradient, opt_state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": stats}, opt_state

    for _ in range(3):
        state, _ = step(state, Batch(IMAGES, LABELS, mask))
        variables, opt_state = flax_step(variables, opt_state)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    for (path, leaf), value in zip(leaves, jax.tree.leaves(to_flax(state.params)), strict=True):
        np.testing.assert_allclose(value, leaf, rtol=2e-5, atol=2e-6, err_msg=str(path))
    logits: Any = model.apply({"params": state.params}, IMAGES)
    expected: Any = theirs.apply(variables, IMAGES, train=False)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)


def test_padding_has_no_gradient_and_changes_none():
    params = {name: jnp.full(2, 1.5) for name in ("scale", "bias", *STATISTICS)}
    x, dy = (RNG.standard_normal((4, 3, 3, 2), np.float32) for _ in range(2))
    dy[3] = 0  # The loss leaves padding out.
    found = []
    for last in (1.0, 100.0):
        mask = jnp.array([1.0, 1.0, 1.0, 0.0])
        y, cache = batch_norm_forward(params, jnp.asarray(x).at[3].multiply(last), mask)
        d_params, dx = cast(Any, batch_norm_backward(cache, jnp.asarray(dy)))
        np.testing.assert_array_equal(dx[3], 0)
        found.append((y[:3], dx[:3], d_params["mean"], d_params["var"], d_params["bias"]))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_variance_of_numbers_far_from_zero_keeps_its_digits():
    """By hand and in the layer that autodiff differentiates; E[x²] - E[x]² would lose all."""
    x = np.float32(1000 + RNG.normal(size=(40, 3)))
    exact = np.float64(x) - np.float64(x).mean(axis=0)
    params = {"scale": jnp.ones(3), "bias": jnp.zeros(3), "mean": jnp.zeros(3), "var": jnp.ones(3)}
    given = params, jnp.asarray(x), jnp.ones(40)
    rule, static = RULES["batch_norm"], dict(epsilon=1e-5, axis_name=None)
    for y in (rule.forward(*given, **static)[0], rule.plain(*given, **static)):
        np.testing.assert_allclose(y, exact / np.sqrt(exact.var(axis=0) + 1e-5), atol=1e-3)


def test_folding_keeps_the_logits_and_leaves_no_batch_norm():
    for model in (small(), MODELS["cnn_bn"](), MODELS["cnn_tiny"]()):
        side = 8 if len(model.layers) == 5 else 28
        params = random_params(model, (side, side, 1))
        folded, arrays = fold(model, params)
        images = RNG.random((3, side, side, 1), np.float32)
        expected: Any = quick_jit(model.apply)({"params": params}, images)
        found: Any = quick_jit(folded.apply)({"params": arrays}, images)
        assert not any(isinstance(layer, nn.BatchNorm) for layer in folded.layers)
        assert shapes_of(folded, images.shape[1:]).keys() == arrays.keys()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    plain = MODELS["softmax"]()
    assert fold(plain, {})[0] is plain


@pytest.mark.parametrize(
    "behind",
    [nn.relu, nn.Conv(2, (3, 3)), nn.Conv(2, (3, 3), padding="VALID", feature_group_count=2)],
)
def test_a_batch_norm_that_no_neighbour_can_take_stays(behind):
    model = Chain([nn.Conv(2, (3, 3)), nn.relu, BatchNorm(), behind])
    assert fold(model, random_params(model, (8, 8, 1)))[0] is model


def test_no_update_rule_moves_the_statistics():
    rule = with_statistics(
        optax.chain(optax.add_decayed_weights(0.5), optax.sgd(9.0)), STATISTICS, "mean"
    )
    params = {"norm1": {name: jnp.ones(2) for name in ("scale", "bias", *STATISTICS)}}
    gradients = jax.tree.map(lambda leaf: 2 * leaf, params)
    updates: Any = rule.update(gradients, rule.init(params), params)[0]
    moved = {name: float(leaf[0]) for name, leaf in updates["norm1"].items()}
    assert moved == pytest.approx({"scale": -22.5, "bias": -22.5, "mean": -0.2, "var": -0.2})


def test_a_configs_own_rule_leaves_the_statistics_alone():
    """Whoever builds it: the run, the learning-rate range test, the report's next update."""
    model = small()
    params = random_params(model, IMAGES.shape[1:])
    rule = optimizer_of(preset("cnn_bn"), lambda count: 9.0, statistics_of(model))
    updates: Any = rule.update(params, rule.init(params), params)[0]
    for name in STATISTICS:
        np.testing.assert_allclose(updates["norm1"][name], -0.1 * params["norm1"][name], rtol=1e-6)


def test_the_network_knows_its_devices_and_evaluates_without_them():
    model = over_devices(small(), "devices")
    assert [layer.axis_name for layer in model.layers if isinstance(layer, BatchNorm)] == [
        "devices"
    ]
    params = random_params(model, IMAGES.shape[1:])
    np.testing.assert_array_equal(
        model.apply({"params": params}, IMAGES), small().apply({"params": params}, IMAGES)
    )
    norm = create_model(preset("cnn_tiny", precision="float64"), 10).layers[1]
    assert isinstance(norm, nn.BatchNorm) and norm.param_dtype == jnp.float64


@pytest.mark.oracle
@pytest.mark.slow
def test_the_pair_is_pytorchs():
    torch = pytest.importorskip("torch")
    params = {name: RNG.random(3, np.float32) + 0.5 for name in ("scale", "bias", *STATISTICS)}
    x, dy = (RNG.standard_normal((5, 4, 6, 3), np.float32) for _ in range(2))
    theirs = torch.nn.BatchNorm2d(3)
    for name, ours in [("weight", "scale"), ("bias", "bias"), ("running_mean", "mean")]:
        getattr(theirs, name).data = torch.tensor(params[ours])
    given = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    out = theirs(given)
    out.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    params = jax.tree.map(jnp.asarray, params)
    y, cache = batch_norm_forward(params, jnp.asarray(x), jnp.ones(5))
    d_params, dx = batch_norm_backward(cache, jnp.asarray(dy))
    pairs = [
        (y, out.detach().numpy().transpose(0, 2, 3, 1)),
        (dx, given.grad.numpy().transpose(0, 2, 3, 1)),
        (d_params["scale"], theirs.weight.grad.numpy()),
        (d_params["bias"], theirs.bias.grad.numpy()),
        (params["mean"] - 0.1 * d_params["mean"] / 5, theirs.running_mean.numpy()),
    ]
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("gradients", "kind"),
    [
        ("manual", "pmap"),
        slow("auto", "shard_map"),
        slow("auto", "pmap"),
        slow("plain", "pmap"),
        slow("auto", "jit"),
        slow("manual", "shard_map"),
        slow("plain", "shard_map"),
    ],
)
def test_a_ragged_batch_on_four_devices_is_that_of_one(gradients, kind):
    """The last of the devices hold padding alone."""
    images = RNG.random((16, 8, 8, 1), np.float32)
    labels, mask = RNG.integers(0, 3, 16).astype(np.int32), (np.arange(16) < 7).astype(np.float32)
    params, found = random_params(small(), (8, 8, 1)), []
    rule = with_statistics(optax.sgd(0.5), STATISTICS, "mean")
    for parallel in (Parallel(set_up_jax(1), "jit"), Parallel(set_up_jax(4), kind)):
        model = over_devices(small(), parallel.axis_name)
        step = make_train_step(GRADIENTS[gradients](model), rule, axis_name=parallel.axis_name)
        state = TrainState(jnp.zeros((), jnp.int32), params, rule.init(params), KEY)
        state, compiled = parallel.replicate(state), parallel.compile(step)
        for _ in range(3):
            state, _ = compiled(state, parallel.split(Batch(images, labels, mask)))
        found.append(jax.device_get(state.params))
    chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.slow
@pytest.mark.parametrize("gradients", ["auto", "manual"])
def test_a_saved_run_trains_on_to_the_same_bits(tmp_path, gradients):
    data = RNG.integers(0, 256, (60, 28, 28, 1), np.uint8), np.arange(60) % 3
    settings: dict[str, Any] = dict(schedule="constant", batch_size=16, gradients=gradients)
    whole = jaxnets.Network("cnn_bn", data, epochs=2, **settings)
    whole.fit(verbose=0)
    half = jaxnets.Network("cnn_bn", data, epochs=1, **settings)
    half.fit(verbose=0)
    half.save(tmp_path / "run")
    other = jaxnets.load(tmp_path / "run", data)
    other.fit(epochs=1, verbose=0)
    chex.assert_trees_all_equal(whole.state.params, other.state.params)
    assert not np.array_equal(other.state.params["norm1"]["mean"], np.zeros(32))
    chex.assert_trees_all_equal(other.evaluate(), whole.evaluate())
