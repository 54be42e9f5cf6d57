"""Regression: the gradient by hand, and the scores in the targets' own units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.losses import squared_error
from jaxnets.models.mlp import mlp
from jaxnets.models.precision import with_precision
from jaxnets.training.step import autodiff_loss_and_grad


@pytest.mark.slow
def test_the_gradient_of_regression_by_hand_is_autodiffs(float64):
    rng = np.random.default_rng(0)
    model = with_precision(mlp(num_classes=3, hidden=(8,)), "float64")
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((9, 3))
    batch = Batch(jnp.asarray(x), jnp.asarray(y), jnp.asarray([1.0] * 7 + [0.0] * 2))
    params, key = model.init(jax.random.key(0), batch.images)["params"], jax.random.key(1)
    manual = manual_loss_and_grad(model, "squared_error")
    auto = autodiff_loss_and_grad(model.apply, squared_error)
    ours, by_autodiff = (jax.jit(way)(params, batch, key) for way in (manual, auto))
    assert ours[0].squares.shape == (3,) and int(ours[0].count) == 7
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, by_autodiff)
    outputs = np.asarray(model.apply({"params": params}, batch.images))[:7]
    expected = (2 / 3 * (outputs - y[:7])).sum(axis=0)  # d loss / d bias of the last layer
    np.testing.assert_allclose(ours[1]["logits"]["bias"], expected, rtol=1e-12)


@pytest.mark.usefixtures("quick_steps")
def test_a_training_is_scored_in_the_targets_units():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    targets = (x @ rng.standard_normal((4, 1)) + 0.1).astype(np.float32)
    train, test = Split(x[:40], targets[:40]), Split(x[40:], targets[40:])
    mean, scale = 150.0, 70.0
    data = Dataset("rows", 1, train, train[:0], test, "", target_mean=mean, target_scale=scale)
    config = preset("softmax", loss="squared_error", validation_size=0, batch_size=20, epochs=3)
    experiment = Experiment.create(config, data)
    state, history = experiment.train()
    assert history[-1]["train_r2"] > history[0]["train_r2"]
    outputs = np.asarray(experiment.model.apply({"params": state.params}, test.images), np.float64)
    p, y = (scale * part + mean for part in (outputs, test.labels))
    found = experiment.evaluate(state)
    assert found.mse == pytest.approx(np.mean((y - p) ** 2), rel=1e-4)
    r2 = 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)
    assert found.r2 == pytest.approx(r2, abs=1e-4)
    assert found.wmape == pytest.approx(np.abs(y - p).sum() / np.abs(y).sum(), rel=1e-4)
