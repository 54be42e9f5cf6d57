"""--precision=float64 is float64 in every part of a step: beside NumPy's, to the last digits."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, slow, train_on, watching
from numpy_steps import numpy_schedule, numpy_update

from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment, init_state
from jaxnets.models.alexnet_layers import Enlarge, Normalize
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain
from jaxnets.models.layers import MaxPool, flatten
from jaxnets.models.precision import with_precision
from jaxnets.models.residual import Residual
from jaxnets.networks.own import from_object
from jaxnets.regression_metrics import RegressionMetrics, TargetUnits
from jaxnets.training.augment import Augmentation
from jaxnets.training.optimizer import create_schedule
from jaxnets.training.step import Checkpoint

pytestmark = pytest.mark.usefixtures("float64")
STEPS, PEAK = 20, 0.04


def rate_of(schedule, n):
    """The rate of step n of STEPS, from the definition."""
    return numpy_schedule(schedule, PEAK, STEPS, n)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle", "step"])
@pytest.mark.parametrize("dtype", [int, np.int32])
def test_a_schedule_has_its_rate_whatever_the_steps_type(schedule, dtype):
    rate = create_schedule(schedule, PEAK, STEPS)
    found = [float(np.asarray(rate(dtype(n)))) for n in range(STEPS)]
    expected = [rate_of(schedule, n) for n in range(STEPS)]
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-17)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("optimizer", "schedule", "smoothing"),
    [
        ("sgd", "one_cycle", 0.1),
        slow("rmsprop", "cosine", 0.1),
        slow("adam", "step", 0.0),
        slow("adam", "one_cycle", 0.1),
        slow("sgd", "constant", 0.1),
    ],
)
def test_twenty_steps_are_numpys(tiny, tiny_preset, optimizer, schedule, smoothing):
    config = tiny_preset(
        "softmax", precision="float64", optimizer=optimizer, schedule=schedule,
        learning_rate=PEAK, momentum=0.9 if optimizer == "sgd" else 0.0,
        nesterov=optimizer == "sgd", weight_decay=0.01, label_smoothing=smoothing,
        epochs=4, steps_per_epoch=5,
    )  # fmt: skip
    experiment = Experiment.create(config, tiny)
    params = dict(jax.device_get(experiment.init_state().params["logits"]))
    memory: dict = {}
    for n, batch in enumerate(experiment.loader.batches(0, STEPS, slice(None))):
        x = batch.images.reshape(len(batch.labels), -1).astype(np.float64)
        if batch.images.dtype == np.uint8:  # As float32, the nearest to n / 255.
            x = (batch.images.astype(np.float32) / np.float32(255)).reshape(x.shape).astype(float)
        y = (1 - smoothing) * np.eye(3)[batch.labels] + smoothing / 3
        z = x @ params["kernel"] + params["bias"]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        mask = np.asarray(batch.mask, float)[:, None]
        dz = mask * (p / p.sum(axis=1, keepdims=True) - y) / mask.sum()
        gradients, rate = {"kernel": x.T @ dz, "bias": dz.sum(axis=0)}, rate_of(schedule, n)
        for name, v in params.items():
            step = optimizer, v, gradients[name], rate, n + 1, memory.get(name, (0, 0))
            more: dict = dict(momentum=0.9, nesterov=True, weight_decay=0.01)
            params[name], memory[name] = numpy_update(*step, **more)
    found = train_on(tiny, config)[0].params["logits"]
    for name, expected in params.items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_labels_after_mixup_are_its_weights_to_the_last_digit(tiny):
    augment = quick_jit(Augmentation(["mixup"], tiny, dtype=jnp.float64))
    batch = Batch(tiny.train.images[:32], np.arange(32) % 3, np.ones(32, np.float32))
    labels = np.asarray(augment(jax.random.key(0), 0, batch, 0).labels)
    own = labels[range(32), batch.labels]
    assert labels.dtype == np.float64
    before = np.roll(batch.labels, 1)
    np.testing.assert_array_equal(
        labels[range(32), before], np.where(before == batch.labels, 1, 1 - own)
    )
    assert ((own > 0) & (own < 1)).any()


def test_images_are_normalized_and_enlarged_in_all_digits():
    images = np.random.default_rng(0).random((2, 5, 5, 3), np.float32)
    normalize, logits = Normalize((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)), nn.Dense(3, name="logits")
    chain = Chain([normalize, Enlarge(8), logits])
    for precision, digits in (("float64", 1e-15), ("float32", 1e-6)):
        normalize, enlarge = with_precision(chain, precision).layers[:2]
        expected = (images.astype(float) - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]
        normal, large = normalize(jnp.asarray(images)), enlarge(jnp.asarray(images))
        assert (normal.dtype, large.dtype) == (precision, precision)
        np.testing.assert_allclose(normal, expected, rtol=digits, atol=5 * digits)
        wide = jax.image.resize(images.astype(float), (2, 8, 8, 3), "bilinear")
        np.testing.assert_allclose(large, wide, rtol=0, atol=digits)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    "schedule", ["plateau", *map(slow, ["constant", "cosine", "one_cycle", "step"])]
)
def test_the_recorded_rate_is_that_of_the_last_step(tiny, tiny_preset, schedule):
    """A gradient of 1 moves a bias by the rate; each epoch is a step, the last ones resumed."""
    patience = {"patience": 2} if schedule == "plateau" else {}
    config = tiny_preset(
        "softmax", precision="float64", schedule=schedule, learning_rate=PEAK, optimizer="sgd",
        momentum=0.0, epochs=STEPS, steps_per_epoch=1, **patience,
    )  # fmt: skip
    experiment = Experiment.create(config, tiny)

    def of_ones(params, batch, key):
        metrics, gradients = experiment.loss_and_grad(params, batch, key)
        return metrics, jax.tree.map(lambda g: jnp.full_like(g, metrics.count), gradients)

    ones = dataclasses.replace(experiment, loss_and_grad=of_ones)
    state = ones.init_state()
    before, used, recorded = 0.0, [], []
    for epochs in (12, STEPS):
        run = ones.epochs(Checkpoint(state))
        for state, record in itertools.islice(run, epochs - len(used)):
            after = float(state.params["logits"]["bias"][0])
            used.append(before - after)
            before = after
            recorded.append(record["learning_rate"])
        state = jax.tree.map(jnp.copy, state)
    assert len(used) == STEPS
    np.testing.assert_allclose(used, recorded, rtol=0, atol=1e-15)
    if schedule == "plateau":
        assert recorded[-1] == pytest.approx(PEAK / 1000)


def float32_shapes(jaxpr):
    """The shapes of all numbers in float32 that a program computes."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars if v.aval.dtype == jnp.float32)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from float32_shapes(inner)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("mlp", dict(schedule="one_cycle", label_smoothing=0.1, optimizer="adam")),
        ("mlp", dict(schedule="plateau", optimizer="muon", validation_size=8)),
        slow("cnn_bn", dict(augment="none", gradients="manual")),
        slow("alexnet_paper", dict(augment="none", input_size=80)),
        ("alexnet", dict(augment="none", input_size=80, normalize="imagenet", gradients="manual")),
    ],
)
def test_nothing_of_a_step_is_in_float32_but_the_images(model, changes):
    shape = (8, 32, 32, 3) if "alexnet" in model else (8, 28, 28, 1)
    split = Split(np.zeros(shape, np.uint8), np.zeros(8, np.int32))
    data = Dataset("black", 10, split, split, split, "none", tuple("0123456789"))
    config = preset(model, precision="float64", batch_size=8, devices=1, **changes)
    experiment = Experiment.create(config, data)
    first = functools.partial(init_state, experiment.model, experiment.optimizer, data)
    state = jax.eval_shape(first, jax.random.key(0))
    batch = Batch(split.images, split.labels, np.ones(8, np.float32))
    program = jax.make_jaxpr(experiment.train_step())(state, batch)
    found = set(float32_shapes(program.jaxpr))
    assert found <= {shape, (8, 28 * 28)}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.usefixtures("checks_every_step")
@pytest.mark.parametrize(
    "first",
    [[BatchNorm()], [Residual([nn.relu]), BatchNorm(), MaxPool(2)]],
    ids=["norm", "residual"],
)
def test_a_batch_norm_before_all_layers_computes_in_float64(tiny, tiny_preset, first):
    """It returns the images' dtype; rounded to float32, both gradients differ by 6e-9."""
    chain = Chain([*first, flatten, nn.Dense(tiny.num_classes, name="logits")])
    own = from_object(chain).for_data(tiny.image_shape, tiny.num_classes)
    changes: dict = dict(gradients="both", epochs=1)
    errors = []
    config = tiny_preset(own, precision="float64", **changes)
    train_on(tiny, config, [watching(on_gradient_check=errors.append)])
    assert errors and max(errors) < 1e-12


def test_wmape_of_targets_in_float32_is_numpys():
    rng = np.random.default_rng(0)
    targets, outputs = rng.standard_normal((9, 2), np.float32), rng.standard_normal((9, 2))
    losses, mask = jnp.zeros(9), jnp.ones(9)
    ours = RegressionMetrics.of(
        jnp.asarray(outputs), jnp.asarray(targets), losses, mask, TargetUnits(mean=7.0, scale=0.3)
    )
    y = 0.3 * targets.astype(float) + 7
    expected = 0.3 * np.abs(targets - outputs).sum() / np.abs(y).sum()
    assert ours.wmape == pytest.approx(expected, rel=1e-14)
