"""--gradients=both: what is an error and what is none, in every precision, to the end of a run."""

import contextlib
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, random_params, slow, train_on, watching

from jaxnets.backprop import dense
from jaxnets.backprop.rules import rule_of
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import recording_terms, relative_error
from jaxnets.gradcheck.oracle import (
    GRADIENT_TOLERANCE,
    Both,
    GradientCheck,
    both_loss_and_grads,
    with_gradient_check,
)
from jaxnets.kernels import accelerate
from jaxnets.kernels.elementwise import fast_relu
from jaxnets.losses import LOSSES
from jaxnets.models.chain import Chain
from jaxnets.models.layers import MaxPool, flatten
from jaxnets.models.precision import with_precision
from jaxnets.networks.create import create_model
from jaxnets.training.loop import NonFiniteLossError
from jaxnets.training.pixels import to_float
from jaxnets.training.step import Checkpoint, autodiff_loss_and_grad

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("ours", "theirs", "floor", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], 0.0, 0.0),  # A dead layer.
        ([0.0, 0.0], [0.0, 0.0], 0.5, 0.0),
        ([1e-9, 0.0], [0.0, 0.0], 0.5, 2e-9),  # Rounding beside a zero is no alarm,
        ([1e-9, 0.0], [1e-12, 0.0], 0.5, 2e-9),
        ([0.0, 1e-9], [1e-38, 0.0], 0.5, 2e-9),
        ([0.5, 0.0], [0.0, 0.0], 0.5, 1.0),  # but a zero that should be none is found,
        ([0.0, 0.0], [0.5, 0.0], 0.5, 1.0),  # and so is a number that should be zero,
        ([0.05, 0.0], [0.0, 0.0], 0.5, 0.1),  # also where it is small.
        ([0.0, 0.0], [0.05, 0.0], 0.5, 0.1),
        ([0.5, 0.0], [0.0, 0.0], 0.0, 0.5),  # Without a floor, beside nothing but zeros: absolute.
        ([1.0, 2.0], [1.0, 4.0], 0.5, 0.5),  # A floor below the array's size changes nothing.
        ([NAN, 1.0], [NAN, 1.0], 0.0, 0.0),
        ([INF, 1.0], [NAN, 2.0], 0.0, 0.5),
        ([NAN, 1.0], [1.0, 1.0], 9.0, INF),
        ([1.0, 1.0], [1.0, NAN], 9.0, INF),
        ([INF, 1.0], [1.0, 1.0], 9.0, INF),
    ],
)
def test_an_error_is_relative_to_array_or_floor(ours, theirs, floor, expected):
    ours, theirs = (
        {"a": np.zeros(2), "b": np.array(ours)},
        {"a": np.zeros(2), "b": np.array(theirs)},
    )
    error, leaf = relative_error(ours, theirs, floor)
    assert error == pytest.approx(expected, rel=1e-2)
    assert error == 0 or leaf == "['b']"


@pytest.mark.parametrize(
    ("first", "manual", "automatic", "agree"),
    [
        (1.0, 0.0, 0.0, True),  # A dead layer.
        (1.0, 1e-9, 0.0, True),  # Rounding, where everything cancels.
        (1.0, 1e-9, 1e-12, True),
        (1.0, 1e-3, 0.0, False),  # A gradient that should be 0.
        (1.0, 0.0, 1e-3, False),  # A gradient that is missing.
        (0.0, 0.0, 0.0, True),  # The same where the first gradient was 0.
        (0.0, 1e-3, 0.0, False),
        (0.0, 0.0, 1e-3, False),
    ],
)
def test_a_gradient_of_zero_is_measured_by_the_networks_largest(first, manual, automatic, agree):
    steps = iter([(first, first, 1.0), (manual, automatic, 1e-9)])

    def gradient_step(state, batch):
        ours, theirs, largest = next(steps)
        other, zeros = {"kernel": np.full(4, largest)}, np.zeros(2)
        layers = [{"kernel": np.full(3, number), "bias": zeros} for number in (ours, theirs)]
        manual, automatic = ({"other": other, "layer": layer} for layer in layers)
        sums: Any = SimpleNamespace(loss_sum=1.0)
        return sums, Both(manual, automatic, [jnp.array(largest)])

    experiment: Any = SimpleNamespace(
        config=preset("mlp", gradients="both"),
        model=network("float32"),
        step_model=network("float32"),
        find_rule=rule_of,
        gradient_step=lambda both: gradient_step,
    )
    check = GradientCheck(experiment)
    nothing: Any = None
    check.before_step(0, nothing, nothing)
    check.before_step(50, nothing, nothing)
    with contextlib.nullcontext() if agree else pytest.raises(RunFailedError, match="'layer'"):
        check.before_step(100, nothing, nothing)


def network(precision):
    """A small network with every kind of layer of the `cnn`."""
    layers = [
        nn.Conv(4, (3, 3), padding="VALID", name="conv1"), nn.relu, MaxPool(2, 2),
        flatten, nn.Dense(16, name="hidden"), nn.relu, nn.Dropout(0.3), nn.Dense(3, name="logits"),
    ]  # fmt: skip
    return with_precision(Chain(layers), precision)


def moved_units(break_rule, inputs, precision, units):
    """The parameters of 16 hidden units that rounding by hand, of so many units, moves over 0.

    The first is 1. All others are below 0 by half of what rounding adds.
    """
    rounding = units * float(jnp.finfo(precision).eps)

    def rounding_forward(params, x):
        z, cache = dense.dense_forward(params, x)
        return z + (rounding if z.shape[1] == 16 else 0), cache

    break_rule(nn.Dense, forward=rounding_forward)
    bias = np.where(np.arange(16) == 0, 1, -rounding / 2).astype(np.float32)
    return {"kernel": np.zeros((inputs, 16), np.float32), "bias": bias}


@pytest.mark.parametrize(
    ("precision", "units", "agree"),
    [("float32", 740, True), ("float32", 2000, False), ("bfloat16", 4, True)],
)
def test_the_oracle_takes_the_side_to_which_rounding_moved(break_rule, precision, units, agree):
    model = with_precision(
        Chain([nn.Dense(16, name="hidden"), nn.relu, nn.Dense(3, name="logits")]), precision
    )
    params, hidden = random_params(model, (4,)), moved_units(break_rule, 4, precision, units)
    batch = Batch(np.ones((2, 4), np.float32), np.array([0, 1]), np.ones(2, np.float32))
    both = quick_jit(both_loss_and_grads(model, model, "cross_entropy", "float32"))
    manual, automatic, _ = both({**params, "hidden": hidden}, batch, jax.random.key(0))[1]
    assert (relative_error(manual, automatic)[0] < GRADIENT_TOLERANCE[precision]) == agree


@pytest.mark.slow
def test_alexnets_gradients_agree_though_tiles_move_units_over_kinks():
    """Where the oracle does not follow them, nearly every run with --gradients=both ends."""
    config = preset("alexnet_small_bn")
    model = create_model(config, 10)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(128, 28, 28, 1)).astype(np.float32)
    batch = Batch(images, rng.integers(0, 10, 128), np.ones(128, np.float32))
    params = model.init(jax.random.key(0), images)["params"]
    both = jax.jit(both_loss_and_grads(model, accelerate(model, "cpu"), config.loss, "float32"))
    manual, automatic, _ = both(params, batch, jax.random.key(0))[1]
    assert relative_error(manual, automatic)[0] < GRADIENT_TOLERANCE["float32"] / 2


def both_gradients(tiny, precision):
    """Both gradients of the small network on 64 images, at parameters drawn by NumPy."""
    model = network(precision)
    batch = Batch(to_float(tiny.train.images[:64]), tiny.train.labels[:64], np.ones(64, np.float32))
    both = quick_jit(both_loss_and_grads(model, model, "cross_entropy", "float32"))
    return both(random_params(model, (12, 12, 1)), batch, jax.random.key(0))[1][:2]


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("mixed", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_gradients_in_16_bits_agree_with_float32_below_one_percent(tiny, precision):
    """Below a fifth of the tolerance at which a run ends, through ReLUs, pools and dropout."""
    manual, automatic = both_gradients(tiny, precision)
    assert 1e-4 < relative_error(manual, automatic)[0] < GRADIENT_TOLERANCE[precision] / 5


@pytest.mark.slow
def test_where_nothing_rounds_the_oracle_is_the_plain_network(tiny):
    model = network("float32")
    batch = Batch(to_float(tiny.train.images[:64]), tiny.train.labels[:64], np.ones(64, np.float32))
    plain = quick_jit(autodiff_loss_and_grad(model.apply, LOSSES["cross_entropy"]))
    expected = plain(random_params(model, (12, 12, 1)), batch, jax.random.key(0))[1]
    assert relative_error(both_gradients(tiny, "float32")[1], expected)[0] < 1e-5


def wrong_relu(cache, dy):
    return jnp.maximum(dy, 0)


def wrong_dense(**factors):
    """A dense layer's backward pass, some of whose gradients are these times the right ones."""

    def backward(cache, dz, **static):
        d_params, dx = dense.dense_backward(cache, dz, **static)
        return {name: factors.get(name, 1) * d for name, d in d_params.items()}, dx

    return backward


def wrong_dense_forward(params, x):
    """Twice what it should be."""
    z, cache = dense.dense_forward(params, x)
    return 2 * z, cache


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (nn.relu, {"backward": wrong_relu}),
        (nn.Dense, {"backward": wrong_dense(bias=0)}),
        (nn.Dense, {"forward": wrong_dense_forward}),
    ],
)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.slow
def test_a_wrong_pass_is_found(break_rule, tiny, precision, kind, changes):
    """The oracle does not follow a forward pass that is wrong by more than rounding either."""
    break_rule(kind, **changes)
    manual, automatic = both_gradients(tiny, precision)
    assert relative_error(manual, automatic)[0] > 4 * GRADIENT_TOLERANCE["bfloat16"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_a_run_ends_where_gradients_in_16_bits_disagree(break_rule, tiny, tiny_preset):
    break_rule(fast_relu, backward=wrong_relu)
    config = tiny_preset("mlp_functional", gradients="both", precision="mixed")
    with pytest.raises(RunFailedError, match="gradients disagree at step 0: relative error [0-9]"):
        train_on(tiny, config)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("factor", "agree"), [(1 + 2e-5, True), (1 + 2e-4, False)])
def test_a_float32_run_ends_at_a_ten_thousandths_error(
    break_rule, tiny, tiny_preset, factor, agree
):
    break_rule(nn.Dense, backward=wrong_dense(kernel=factor))
    config = tiny_preset("mlp_functional", gradients="both")
    found = pytest.raises(RunFailedError, match="gradients disagree at step 0: relative error 2.0")
    with contextlib.nullcontext() if agree else found:
        train_on(tiny, config)


@pytest.mark.usefixtures("quick_steps", "checks_every_step")
@pytest.mark.parametrize(("factor", "agree"), [slow(1, True), (1 + 2e-4, False)])
def test_a_run_ends_at_wrong_gradients_not_at_rounding(
    break_rule, tiny, tiny_preset, factor, agree
):
    config = tiny_preset(
        "mlp_functional", activation="relu", hidden=(16,), gradients="both", epochs=1
    )
    experiment = Experiment.create(config, tiny)
    hidden = moved_units(break_rule, int(np.prod(tiny.image_shape)), "float32", 740)

    break_rule(nn.Dense, backward=wrong_dense(kernel=factor))
    state, errors = experiment.init_state(), []
    state = state.replace(params={**state.params, "hidden1": jax.tree.map(jnp.asarray, hidden)})
    observers = with_gradient_check(experiment, [watching(on_gradient_check=errors.append)])
    run = experiment.epochs(Checkpoint(state), observers)
    with contextlib.nullcontext() if agree else pytest.raises(RunFailedError, match="disagree"):
        next(run)
    assert len(errors) == (experiment.loader.steps if agree else 1)


@pytest.mark.usefixtures("quick_steps", "checks_every_step")
@pytest.mark.parametrize(
    "precision",
    [slow("float32"), slow("bfloat16"), slow("mixed")],
)
def test_no_alarm_where_everything_is_learned_and_gradients_are_rounding(
    tiny, tiny_preset, precision
):
    """Gradients fall to a hundredth, and sums of a bias's cancel."""
    changes: dict = dict(hidden=(32,), optimizer="adam", learning_rate=0.05, epochs=60)
    config = tiny_preset("mlp_functional", precision=precision, gradients="both", **changes)
    _, history = train_on(tiny, config)
    assert history[-1]["train_loss"] < 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_a_diverging_run_does_not_say_that_gradients_disagree(tiny, tiny_preset):
    changes: dict = dict(optimizer="sgd", learning_rate=1e4, weight_decay=1.0)
    config = tiny_preset("mlp_functional", gradients="both", **changes)
    with pytest.raises(NonFiniteLossError, match="the loss of step"):
        train_on(tiny, config)


def test_an_experiment_refuses_to_train_by_both_unchecked(tiny, tiny_preset):
    experiment = Experiment.create(tiny_preset("softmax", gradients="both"), tiny)
    with pytest.raises(UserError, match=r"GradientCheck\(experiment\)\], got none"):
        experiment.train()


def test_a_layer_without_a_rule_gets_none_that_records():
    assert recording_terms(lambda layer: None, [])(nn.tanh) is None
