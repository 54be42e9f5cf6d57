"""Several devices: the same parameters as on one, one all-reduce a step, and mutants that die."""

import functools
import inspect
import itertools
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import slow

from jaxnets.config.recipes import PRESETS
from jaxnets.data import batches
from jaxnets.data.batches import Batch, train_batches
from jaxnets.data.datasets import Split
from jaxnets.experiment import Experiment
from jaxnets.losses import LOSSES
from jaxnets.machine.platform import set_up_jax
from jaxnets.models import MODELS
from jaxnets.training import parallel as parallel_module
from jaxnets.training import scan
from jaxnets.training import step as step_module
from jaxnets.training.parallel import Parallel

# The operations of a compiled program that move data between devices.
COLLECTIVE = re.compile(
    r"= .*?\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def furthest(ours, theirs):
    """The largest |ours - theirs| of any leaf, over the largest |theirs| of that leaf."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    pairs = [[np.asarray(leaf, np.float64) for leaf in pair] for pair in pairs]
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


def after_steps(config, data, steps=20):
    """The parameters, the examples seen and the compiled program after some steps.

    Every fourth batch is a third as large: of batches of 48, it gives 5 of 8 devices only padding.
    """
    experiment = Experiment.create(config, data)
    parallel, train_step = experiment.parallel, experiment.train_step()
    size = config.batch_size
    images = data.train[: 3 * size + size // 3]
    epochs = (train_batches(images, size, seed=0, epoch=epoch) for epoch in itertools.count())
    state, seen = experiment.init_state(), 0
    program: Any = None
    for batch in itertools.islice(itertools.chain.from_iterable(epochs), steps):
        split = parallel.split(batch)
        program = program or parallel.compile(train_step, donate=True).lower(state, split).compile()
        state, metrics = program(state, split)
        seen += int(metrics.count)
    return state.params, seen, program


@pytest.fixture(scope="module")
def on_one_device(tiny, tiny_preset):
    """The parameters after 20 steps on one device, once for each network."""
    return functools.cache(
        lambda name, **changes: after_steps(tiny_preset(name, batch_size=48, **changes), tiny)[0]
    )


SMALL = {"hidden": (16,)}
WITHOUT_DROPOUT = {"hidden": (16,), "dropout": 0.0, "learning_rate": 0.01, "augment": "none"}
WITH_DROPOUT = {**WITHOUT_DROPOUT, "dropout": 0.3, "augment": "flip"}


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("name", "changes", "gradients", "devices", "kind"),
    [
        slow("mlp", SMALL, "auto", 1, "pmap"),
        ("mlp", SMALL, "manual", 2, "pmap"),
        slow("mlp", SMALL, "auto", 4, "jit"),
        ("mlp", SMALL, "manual", 8, "jit"),
        ("mlp", SMALL, "auto", 8, "pmap"),
        ("mlp", SMALL, "manual", 4, "shard_map"),
        ("mlp", SMALL, "auto", 8, "shard_map"),
        slow("cnn", WITHOUT_DROPOUT, "auto", 8, "shard_map"),
        slow("mlp_functional", SMALL, "auto", 8, "jit"),
        slow("cnn", WITHOUT_DROPOUT, "auto", 8, "pmap"),
        slow("cnn", WITHOUT_DROPOUT, "manual", 8, "jit"),
        slow("cnn", WITH_DROPOUT, "auto", 8, "jit"),
    ],
    ids=str,
)
def test_steps_on_several_devices_are_those_on_one(
    tiny, tiny_preset, on_one_device, name, changes, gradients, devices, kind
):
    changes = {**changes, "gradients": gradients}
    config = tiny_preset(name, batch_size=48, devices=devices, parallel=kind, **changes)
    params, seen, program = after_steps(config, tiny)
    assert furthest(params, on_one_device(name, **changes)) <= 1e-6
    assert seen == 5 * 160
    assert COLLECTIVE.findall(program.as_text()) == ["all-reduce"] * (devices > 1 or kind != "jit")


def test_an_epochs_loop_adds_up_once_a_step(tiny, tiny_preset):
    experiment = Experiment.create(tiny_preset("mlp", devices=4, **SMALL), tiny)
    loader, parallel = experiment.loader, experiment.parallel
    epoch: Any = scan.compile_scan(experiment.train_step(), parallel)
    arrays = parallel.replicate((loader.split.images, loader.split.labels))
    rows = scan.rows_at_once(scan.rows_of_epoch(loader, 0), loader, parallel, 0)
    program = epoch.lower(experiment.init_state(), *arrays, parallel.split(rows, axis=1)).compile()
    assert COLLECTIVE.findall(program.as_text()) == ["all-reduce"]


# Batch norms, which add up sums of their own, are left to test_batch_norm.py.
@pytest.mark.slow
@pytest.mark.usefixtures("float64", "quick_steps")
@pytest.mark.parametrize(
    ("name", "gradients", "devices"),
    [  # Cross-entropy and squared errors; dense layers, a layer of ones, convolutions.
        ("mlp", "auto", (1, 4, 8)),
        ("mlp_sequential", "manual", (8,)),
        ("mlp_handwritten", "manual", (2,)),
        ("cnn", "manual", (8,)),
        ("cnn", "auto", (2,)),
    ],
)
def test_shard_map_in_float64_is_one_device_to_1e_12(tiny, tiny_preset, name, gradients, devices):
    changes: dict[str, Any] = dict(precision="float64", gradients=gradients, batch_size=48)
    changes |= {"hidden": (16,), "dropout": 0.0} if "dropout" in PRESETS[name] else {}
    one, _, _ = after_steps(tiny_preset(name, augment="none", **changes), tiny)
    for count in devices:
        way = dict(devices=count, parallel="shard_map")
        config = tiny_preset(name, augment="none", **changes, **way)
        params, seen, program = after_steps(config, tiny)
        assert furthest(params, one) <= 1e-12
        assert seen == 5 * 160
        assert COLLECTIVE.findall(program.as_text()) == ["all-reduce"]
        assert program.memory_analysis().alias_size_in_bytes > 0  # The state is donated.


def check_updates(step, batches, kind):
    """Softmax regression against its gradient in NumPy, over an epoch with a ragged end."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((22, 2, 2, 1), np.float32), rng.integers(0, 3, 22).astype(np.int32)
    split = Split(images, labels)
    parallel, optimizer = Parallel(set_up_jax(4), kind), optax.sgd(0.5)
    apply = MODELS["softmax"](num_classes=3).apply
    loss_and_grad = step.autodiff_loss_and_grad(apply, LOSSES["cross_entropy"])
    train_step = step.make_train_step(loss_and_grad, optimizer, axis_name=parallel.axis_name)
    params = {"logits": {"kernel": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    state = step.TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), KEY)
    state, compiled, seen = parallel.replicate(state), parallel.compile(train_step), 0
    kernel, bias, loss, expected_loss = np.zeros((4, 3)), np.zeros(3), 0.0, 0.0
    for batch in batches.train_batches(split, 8, seed=0, epoch=0):
        batch = Batch(*batch)  # A mutant of batches.py has a class of its own.
        state, metrics = compiled(state, parallel.split(batch))
        seen, loss = seen + int(metrics.count), loss + float(metrics.loss_sum)
    for rows in np.array_split(np.random.default_rng((0, 0)).permutation(22), [8, 16]):
        x, y = images[rows].reshape(len(rows), 4), np.eye(3)[labels[rows]]
        z = np.exp(x @ kernel + bias)
        p = z / z.sum(axis=1, keepdims=True)
        expected_loss -= np.log((p * y).sum(axis=1)).sum()
        kernel -= 0.5 * x.T @ (p - y) / len(rows)
        bias -= 0.5 * (p - y).mean(axis=0)
    assert seen == 22 and loss == pytest.approx(expected_loss, rel=1e-6)
    assert furthest(state.params, {"logits": {"kernel": kernel, "bias": bias}}) <= 1e-6


def check_keys(step, batches, kind):
    """What the devices draw, added up: each from the step's key with its own number folded in."""

    def draw(params, batch, key):
        return jax.random.uniform(key), jax.random.normal(key, (3,))

    del batches
    parallel = Parallel(set_up_jax(4), kind)
    state = step.TrainState(jnp.array(7), {}, (), KEY)
    batch = Batch(np.zeros((4, 1, 1, 1), np.float32), np.zeros(4, np.int32), np.ones(4))
    gradient_step = step.make_gradient_step(draw, axis_name=parallel.axis_name)
    _, total = parallel.compile(gradient_step)(state, parallel.split(batch))
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, 7), device) for device in range(4)]
    expected = sum(np.asarray(jax.random.normal(key, (3,)), np.float64) for key in keys)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


KEY = jax.random.key(3)
PSUM = "lax.psum(jax.tree.map(lambda x: x.astype(floats), tree), axis_name)"
ADDED = "return add_over(axis_name, loss_and_grad(params, batch, key))"
# A text of the step or of the batches, and what breaks it.
MUTANTS = {
    "the reduction removed": (PSUM, "tree"),
    "mean for sum": (PSUM, PSUM.replace("psum", "pmean")),
    "mean for sum, of the gradients only": (
        ADDED,
        "metrics, g = loss_and_grad(params, batch, key)\n"
        "        return lax.psum(metrics, axis_name), lax.pmean(g, axis_name)",
    ),
    "every device's mean, summed": (
        ADDED,
        "metrics, g = loss_and_grad(params, batch, key)\n"
        "        g = jax.tree.map(lambda x: x / jnp.maximum(metrics.count, 1), g)\n"
        "        return metrics.replace(count=lax.pmax(1, axis_name)), lax.psum(g, axis_name)",
    ),
    "the ragged tail dropped": (
        "-(-len(indices) // batch_size) * batch_size, np.int32)\n"
        "    padded[: len(indices)] = indices",
        "len(indices) // batch_size * batch_size, np.int32)\n"
        "    padded[:] = indices[: len(padded)]",
    ),
    "the padding counted": (
        "count = jnp.maximum(metrics.count, 1)",
        "count = jnp.maximum(metrics.count, 8)",
    ),
    "the same dropout key on all devices": (
        "key = jax.random.fold_in(key, device)",
        "key = jax.random.fold_in(key, 0)",
    ),
    "added up by jax.grad, and again": ("varying(axis_name, state.params)", "state.params"),
}


def rewritten(module, old, new):
    """The module with a piece of its text changed."""
    changed = types.ModuleType("mutant")
    source = inspect.getsource(module).replace(old, new)
    exec(compile(source, module.__file__, "exec"), vars(changed))
    return changed


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "pmap") for name in MUTANTS if "jax.grad" not in name),
        ("the reduction removed", "shard_map"),
        ("added up by jax.grad, and again", "shard_map"),
    ],
)
def test_a_mutant_of_the_parallel_step_is_killed(name, kind):
    """By a comparison; shard_map itself refuses a step that adds up nothing."""
    refused = kind == "shard_map" and name == "the reduction removed"
    error, text = (ValueError, "out_specs which require") if refused else (AssertionError, None)
    old, new = MUTANTS[name]
    sources = [inspect.getsource(module) for module in (step_module, batches)]
    assert "".join(sources).count(old) == 1
    check = check_keys if "key" in name else check_updates
    with pytest.raises(error, match=text):
        check(rewritten(step_module, old, new), rewritten(batches, old, new), kind)


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
@pytest.mark.parametrize("check", [check_updates, check_keys])
def test_what_is_not_mutated_lives(check, kind):
    check(step_module, batches, kind)


@pytest.mark.parametrize("kind", ["jit", "pmap", "shard_map"])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_device_gets_the_next_share_of_a_batch(kind, axis):
    rows = np.arange(3 * 8).reshape((8, 3) if axis == 0 else (3, 8))
    shares: Any = Parallel(set_up_jax(4), kind).split(rows, axis)
    expected = np.split(rows, 4, axis)
    if kind == "pmap":
        np.testing.assert_array_equal(shares, np.stack(expected))
    else:
        for shard, share in zip(shares.addressable_shards, expected, strict=True):
            np.testing.assert_array_equal(shard.data, share)


@pytest.mark.parametrize(("name", "convolutions"), [("cnn", True), ("mlp", False)])
def test_devices_that_are_given_compile_as_the_network_needs(
    tiny, tiny_preset, monkeypatch, name, convolutions
):
    devices, seen = set_up_jax(1), []
    monkeypatch.setattr(
        parallel_module, "compiler_options_for_step", lambda *given: seen.append(given)
    )
    Experiment.create(tiny_preset(name), tiny, devices)
    assert seen == [(convolutions, "cpu")]
