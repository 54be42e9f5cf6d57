"""Update rules, the step, epochs on one device and on eight, the notebook API."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import (
    BY_STEPS,
    assert_close,
    assert_same,
    leaves,
    quick_jit,
    slow,
    train_on,
    watching,
)
from numpy_steps import numpy_schedule, numpy_update

from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Split
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import set_up_jax
from jaxnets.metrics import Metrics
from jaxnets.training import loop, scan
from jaxnets.training.optimizer import create_optimizer, create_schedule
from jaxnets.training.parallel import Parallel

# Update rules and schedules


RULES = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("rmsprop", {}),
    ("rmsprop", {"weight_decay": 0.1}),
    ("adam", {}),
    ("adam", {"weight_decay": 0.1}),
]


def numpy_rule(name, parameter, gradients, rate, **arguments):
    """The parameters after every step, in float64."""
    p, moments = parameter.astype(np.float64), (0.0, 0.0)
    for number, g in enumerate(gradients.astype(np.float64), start=1):
        p, moments = numpy_update(name, p, g, rate, number, moments, **arguments)
        yield p


def pytorchs_rule(name, parameter, gradients, rate, **arguments):
    """PyTorch's parameters after every step."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    p = torch.nn.Parameter(torch.from_numpy(parameter.copy()))
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.AdamW}[name]
    rule = rule([p], lr=rate, **{"weight_decay": 0.0, **arguments})
    for gradient in gradients:
        p.grad = torch.from_numpy(gradient.copy())
        rule.step()
        yield p.detach().numpy()


@pytest.mark.parametrize(
    ("oracle", "name", "arguments"),
    [(numpy_rule, *rule) for rule in RULES]
    + [
        pytest.param(pytorchs_rule, *rule, marks=pytest.mark.oracle)
        for rule in RULES
        if rule[0] != "rmsprop"
    ],
)
def test_an_update_rule_is_the_published_one(oracle, name, arguments):
    draw = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    parameter, gradients = draw[0], draw[1:] * np.logspace(-3, 1, 5, dtype=np.float32)
    rule, p = create_optimizer(name, 0.05, **arguments), jnp.asarray(parameter)
    state, update = rule.init(p), quick_jit(rule.update)
    theirs = oracle(name, parameter, gradients, 0.05, **arguments)
    for gradient, expected in zip(gradients, theirs, strict=True):
        updates, state = update(jnp.asarray(gradient), state, p)
        p = optax.apply_updates(p, updates)
        np.testing.assert_allclose(np.asarray(p), expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_muon_is_optaxs_on_the_matrices_of_the_kernels():
    """A convolution's kernel is the matrix of its rows; biases are Adam's."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 8), "dense": (12, 6), "bias": (6,)}
    params: Any = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    rows = {"conv": (36, 8), "dense": (12, 6), "bias": (6,)}
    ours = create_optimizer("muon", 0.01, weight_decay=0.1)
    theirs = optax.contrib.muon(0.01, weight_decay=0.1, consistent_rms=0.2)
    p, flat = params, {name: x.reshape(rows[name]) for name, x in params.items()}
    state, their_state = ours.init(p), theirs.init(flat)
    updates: Any = None
    for _ in range(3):
        g = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        flat_g = {name: x.reshape(rows[name]) for name, x in g.items()}
        updates, state = quick_jit(ours.update)(g, state, p)
        expected, their_state = quick_jit(theirs.update)(flat_g, their_state, flat)
        p: Any = optax.apply_updates(p, updates)
        flat: Any = optax.apply_updates(flat, expected)
        for name, x in p.items():
            np.testing.assert_allclose(x, flat[name].reshape(shapes[name]), rtol=0, atol=1e-5)
    # Nearly orthogonal: five Newton-Schulz steps leave singular values from 0.7 to 1.2.
    scaled = np.asarray(updates["dense"]) + 0.01 * 0.1 * np.asarray(p["dense"])
    sizes = np.linalg.svd(scaled / (0.01 * 0.2 * np.sqrt(12)), compute_uv=False)
    assert 0.5 < sizes.min() <= sizes.max() < 1.4


@pytest.mark.parametrize("steps", [1, 2, 4, 40, *map(slow, [3, 7, 1000])])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "one_cycle", "step"])
def test_a_schedule_is_its_formula_in_short_runs_too(name, steps):
    schedule = jax.vmap(create_schedule(name, 0.3, steps))
    rates = np.broadcast_to(schedule(jnp.arange(steps)), steps)
    assert rates.min() > 0 and rates.max() <= 0.3 * (1 + 1e-6)
    assert rates[0] == pytest.approx(0.3 / 25 if name == "one_cycle" else 0.3)
    if steps >= (2 if name == "step" else 4):
        expected = [numpy_schedule(name, 0.3, steps, n) for n in range(steps)]
        np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


# One step


def softmax_regression_gradient(params, images, labels, classes):
    """Sum over the batch of the cross-entropy's gradient: Xᵀ (p - y), in NumPy float64."""
    kernel, bias = (np.asarray(params["logits"][name], np.float64) for name in ("kernel", "bias"))
    x, y = images.reshape(len(images), -1).astype(np.float64), np.eye(classes)[labels]
    z = np.exp(x @ kernel + bias)
    error = z / z.sum(axis=1, keepdims=True) - y
    return {"logits": {"kernel": x.T @ error, "bias": error.sum(axis=0)}}


def a_batch(split, size, padding=0):
    """The first examples, and others whose mask is 0."""
    mask = (np.arange(size + padding) < size).astype(np.float32)
    return Batch(split.images[: len(mask)], split.labels[: len(mask)], mask)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_goes_along_the_real_examples_gradient(tiny, tiny_preset, reduction, padding):
    config = tiny_preset("softmax", learning_rate=0.01, loss="cross_entropy", reduction=reduction)
    ours = Experiment.create(config, tiny)
    state = ours.init_state()
    stepped, metrics = quick_jit(ours.train_step())(state, a_batch(tiny.train, 20, padding))
    gradient = softmax_regression_gradient(
        state.params, tiny.train.images[:20], tiny.train.labels[:20], classes=3
    )
    scale = 0.01 / (20 if reduction == "mean" else 1)
    expected = jax.tree.map(lambda p, g: np.asarray(p) - scale * g, state.params, gradient)
    assert_close(stepped.params, expected, 1e-6)
    assert (int(stepped.step), int(metrics.count)) == (1, 20)


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("half_mse", "mse")),
    ],
)
@pytest.mark.slow
def test_padding_of_a_batch_changes_no_sum(tiny, tiny_preset, loss):
    ours = Experiment.create(tiny_preset("mlp", hidden=(16,), loss=loss), tiny)
    state = ours.init_state()

    def sums(padding):
        batch = a_batch(tiny.train, 27, padding)
        return quick_jit(ours.loss_and_grad)(state.params, batch, state.key)

    assert_close(sums(5), sums(0), 1e-6)


# Epochs


EPOCHS = [scan.scanned_epoch, loop.stepped_epoch]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("model", "changes", "count"),
    [
        slow("mlp", {"batch_size": 32}, 160, id="even"),
        pytest.param("mlp", {"batch_size": 48}, 160, id="ragged"),
        slow("mlp", {"batch_size": 160}, 160, id="full"),
        slow("mlp", {"batch_size": 32, "steps_per_epoch": 3}, 96, id="short epochs"),
        # What an accelerator does, on the CPU: with dropout, and shifts made on the device.
        slow("cnn", {"batch_size": 48, "augment": "shift,flip"}, 160, id="convolutions"),
    ],
)
def test_an_epoch_in_one_loop_is_step_by_step(tiny, tiny_preset, float64, model, changes, count):
    changes = {"hidden": (16,), "momentum": 0.9, "precision": "float64", **changes}
    ours = Experiment.create(tiny_preset(model, **changes), tiny)
    seen, ends = [], []
    watch = [watching(on_steps_end=lambda count, all: seen.append((count, int(all.count))))]
    for make_epoch in EPOCHS:
        state = ours.init_state()
        run_epoch = make_epoch(ours.train_step(), ours.loader, ours.parallel, watch)
        for epoch in range(2):
            seen.clear()
            end = run_epoch(loop.Checkpoint(state), epoch)
            state, metrics = end.state, end.metrics
            counts, totals = zip(*seen, strict=True)  # Every example is seen once.
            assert list(totals) == np.cumsum(counts).tolist() and totals[-1] == count
        ends.append((state, metrics))
    (scanned, a), (stepped, b) = ends
    assert int(scanned.step) == int(stepped.step) == 2 * ours.loader.steps
    assert_close(scanned.params, stepped.params, 1e-12)
    assert int(a.count) == int(b.count) == count
    assert a.loss == pytest.approx(b.loss, rel=1e-12)
    np.testing.assert_array_equal(a.confusion, b.confusion)


@pytest.mark.usefixtures("quick_steps")
def test_two_steps_are_dispatched_ahead_of_the_last_result(tiny, tiny_preset):
    ours = Experiment.create(tiny_preset("softmax", batch_size=32), tiny)
    begun, in_flight = [], []

    def begins(step, state, batch):
        begun.append(step)
        in_flight.append(len(begun))

    watch = watching(before_step=begins, on_steps_end=lambda count, all: begun.pop())
    watch.sees_every_step = True
    run_epoch = loop.stepped_epoch(ours.train_step(), ours.loader, ours.parallel, [watch])
    run_epoch(loop.Checkpoint(ours.init_state()), 0)
    assert in_flight == [1, 2, 3, 3, 3]


@pytest.mark.slow
def test_a_long_loop_is_cut_where_it_may_be_saved(tiny, tiny_preset, float64):
    cut, steps = scan.STEPS_AT_ONCE, 2 * scan.STEPS_AT_ONCE + 8
    data = dataclasses.replace(tiny, train=tiny.train[np.arange(steps) % len(tiny.train)])
    config = tiny_preset("softmax", batch_size=1, augment="shift", precision="float64")
    ours = Experiment.create(config, data)
    seen, saved = [], []

    def run(make_epoch, checkpoint=None, **watch):
        run_epoch = make_epoch(ours.train_step(), ours.loader, ours.parallel, [watching(**watch)])
        end: Any = run_epoch(checkpoint or loop.Checkpoint(ours.init_state()), 0)
        return end.state, end.metrics

    def due(step):
        seen.append(step)
        return step == 2 * cut

    def save(checkpoint):
        saved.append((int(checkpoint.state.step), int(checkpoint.metrics.count)))

    whole, metrics = run(scan.scanned_epoch, should_save=due, on_save=save)
    assert (seen, saved) == ([cut, 2 * cut], [(2 * cut, 2 * cut)])
    assert int(metrics.count) == steps
    # A run by steps, stopped where no loop is cut, resumes in one.
    for make_epoch, answers, done in ((EPOCHS[0], [0, 15], cut), (EPOCHS[1], [0, 0, 0, 15], 3)):
        asked = iter(answers)
        with pytest.raises(loop.Interrupted) as stopped:
            run(make_epoch, should_stop=lambda asked=asked: next(asked))
        assert int(stopped.value.checkpoint.state.step) == done
        rest, total = run(scan.scanned_epoch, stopped.value.checkpoint)
        assert int(total.count) == steps
        if make_epoch is scan.scanned_epoch:
            assert_same((rest.params, total), (whole.params, metrics))
        assert_close(rest.params, whole.params, 1e-9)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize("make_epoch", EPOCHS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_infinite_loss_stops_the_run_naming_the_step(tiny, tiny_preset, make_epoch, bad):
    def train_step(state, batch):
        count = jnp.sum(batch.mask > 0)
        loss = jnp.where(state.step == 2, bad, 1.0)
        metrics = Metrics(loss, count, count, jnp.zeros((3, 3), jnp.int32), count)
        return state.replace(step=state.step + 1), metrics

    ours = Experiment.create(tiny_preset("softmax"), tiny)
    run_epoch = make_epoch(train_step, ours.loader, ours.parallel, [])
    with pytest.raises(loop.NonFiniteLossError, match=f"the loss of step 3 is {bad}"):
        run_epoch(loop.Checkpoint(ours.init_state()), 0)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize("watch", [slow([]), slow(BY_STEPS)], ids=["in one loop", "by steps"])
def test_one_device_and_eight_train_alike(tiny, tiny_preset, watch):
    """160 images in batches of 64: the last is ragged, and some devices see padding only."""
    common = dict(hidden=(16,), batch_size=64, augment="shift", loss="cross_entropy")
    config = tiny_preset("mlp", devices=1, parallel="jit", **common)
    one, one_history = train_on(tiny, config, watch)
    for parallel in ("jit", "pmap", "shard_map"):
        config = tiny_preset("mlp", devices=8, parallel=parallel, **common)
        eight, history = train_on(tiny, config, watch)
        assert_close(eight.params, one.params, 1e-6)
        for ours, theirs in zip(history, one_history, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-6)
            assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-6)
            assert ours["train_accuracy"] == theirs["train_accuracy"]


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_batch_that_devices_cannot_share_is_refused(tiny, kind):
    with pytest.raises(UserError, match="batch_size 20 is not divisible by 8 devices"):
        Parallel(set_up_jax(8), kind).split(a_batch(tiny.train, 20))


# The notebook API


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_the_same_seed_trains_the_same_another_does_not(tiny, tiny_preset, model):
    ours, others = (
        Experiment.create(tiny_preset(model, seed=seed, epochs=1), tiny) for seed in (0, 1)
    )
    (first, _), (again, _), (other, _) = ours.train(), ours.train(), others.train()
    ((reordered, _),) = others.epochs(loop.Checkpoint(ours.init_state()))
    assert_same(first.params, again.params)
    for different, distance in ((other, 1e-4), (reordered, 1e-6)):
        for a, b in zip(leaves(first.params), leaves(different.params), strict=True):
            assert np.abs(a - b).max() > distance


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("softmax", {}),
        slow("mlp_sequential", {}),
        slow("mlp_functional", {}),
        ("mlp", {}),
        slow("mlp_handwritten", {"batch_size": None, "epochs": 100, "learning_rate": 5e-4}),
        slow("cnn", {"augment": "none", "learning_rate": 0.03}),
    ],
)
def test_every_small_network_learns_the_tiny_set(tiny, tiny_preset, name, changes):
    experiment = Experiment.create(tiny_preset(name, **{"epochs": 20, **changes}), tiny)
    state, history = experiment.train()
    epochs = [record["epoch"] for record in history]
    assert epochs == list(range(1, experiment.config.epochs + 1))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert experiment.evaluate(state.params, tiny.test).accuracy >= 0.96


@pytest.mark.usefixtures("quick_steps")
def test_the_handwritten_network_trains_as_the_slides_numpy_code_does(tiny, tiny_preset):
    """Full-batch steps on the summed gradient; loss and accuracy are those before the update."""
    rate, epochs = 1e-4, 5
    config = tiny_preset("mlp_handwritten", batch_size=None, epochs=epochs, learning_rate=rate)
    experiment = Experiment.create(config, tiny)
    first, (state, history) = experiment.init_state().params, experiment.train()
    w1, w2 = (np.asarray(first[n]["kernel"], np.float64) for n in ("hidden1", "logits"))

    def forward(split: Split):
        x = np.concatenate([split.images.reshape(len(split), -1), np.ones((len(split), 1))], axis=1)
        h = np.maximum(x @ w1, 0)
        z = np.exp(h @ w2)
        p, y = z / z.sum(axis=1, keepdims=True), np.eye(3)[split.labels]
        loss = -(y * np.log(p + 1e-12)).sum(axis=1).mean()
        return SimpleNamespace(x=x, h=h, p=p, y=y, loss=loss, accuracy=(p * y).max(1) == p.max(1))

    for record in history:
        before = forward(tiny.train)
        assert record["train_loss"] == pytest.approx(before.loss, rel=1e-5)
        assert record["train_accuracy"] == before.accuracy.mean()
        d_logits = before.p - before.y
        d_h = (d_logits @ w2.T) * (before.h > 0)
        w1, w2 = w1 - rate * before.x.T @ d_h, w2 - rate * before.h.T @ d_logits
        assert record["validation_loss"] == pytest.approx(forward(tiny.validation).loss, rel=1e-5)
    assert_close([state.params[n]["kernel"] for n in ("hidden1", "logits")], [w1, w2], 1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("model", "epochs"), [("mlp", 20), slow("mlp_functional", 20), slow("cnn", 4)]
)
def test_gradients_by_hand_train_like_differentiated_ones(tiny, tiny_preset, model, epochs):
    """100 steps of the dense networks and 5 or 20 of the cnn, dropout and augmentation included."""
    manual, automatic = (
        train_on(tiny, tiny_preset(model, gradients=gradients, epochs=epochs))
        for gradients in ("manual", "auto")
    )
    assert int(manual[0].step) == 5 * epochs
    assert_close(manual[0].params, automatic[0].params, 1e-4)
    assert manual[1][-1]["train_loss"] == pytest.approx(automatic[1][-1]["train_loss"], rel=1e-4)


def test_an_observer_is_told_of_the_end_after_errors(tiny, tiny_preset):
    ours, called = Experiment.create(tiny_preset("softmax", epochs=1), tiny), []

    def refuse(start):
        raise RunFailedError("no")

    first = watching(
        on_train_begin=lambda start: called.append("begin"),
        on_train_end=lambda: called.append("end"),
    )
    second = watching(on_train_begin=refuse, on_train_end=lambda: called.append("never"))
    with pytest.raises(RunFailedError):
        next(ours.epochs(loop.Checkpoint(ours.init_state()), [first, second]))
    assert called == ["begin", "end"]
