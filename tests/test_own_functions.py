"""A loss, an optimizer and an augmentation of the user's own, as functions in Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same, read_json

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.notebook.network import Network


def my_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def my_darker(key, image):
    return image * jax.random.uniform(key, minval=0.5)


@pytest.fixture(scope="module")
def make(tiny):
    quick: dict[str, Any] = dict(epochs=2, batch_size=32, devices=1)
    return lambda model="softmax", **settings: Network(model, tiny, **{**quick, **settings})


def trained(network):
    network.fit(verbose=0)
    return network


@pytest.mark.slow
def test_own_loss_and_optimizer_train_as_those_by_name(make):
    named = trained(make(optimizer="adam", learning_rate=0.01))
    for optimizer in (
        optax.adam,
        lambda rate: optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(rate)),
    ):
        own = trained(make(optimizer=optimizer, learning_rate=0.01, loss=my_loss))
        assert own.history["loss"] == pytest.approx(named.history["loss"], rel=1e-5)
        assert own.history["learning_rate"] == named.history["learning_rate"]
        for ours, theirs in zip(
            jax.tree.leaves(own.state.params), jax.tree.leaves(named.state.params), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_step_of_an_own_loss_is_jax_grads(make, tiny):
    """Of the mean of the losses, by JAX alone."""

    def focal(logits, labels):
        p = jnp.take_along_axis(jax.nn.softmax(logits), labels[:, None], axis=1)[:, 0]
        return -((1 - p) ** 2) * jnp.log(p)

    network = make(loss=focal, optimizer=optax.sgd(0.25), batch_size="full", epochs=1)
    params = network.experiment.init_state().params
    x = tiny.train.images.reshape(len(tiny.train), -1)

    def total(params):
        logits = x @ params["logits"]["kernel"] + params["logits"]["bias"]
        return focal(logits, jnp.asarray(tiny.train.labels)).mean()

    expected = jax.tree.map(lambda p, g: p - 0.25 * g, params, jax.grad(total)(params))
    ours = trained(network).state.params["logits"]
    for name in ours:
        np.testing.assert_allclose(ours[name], expected["logits"][name], rtol=1e-5, atol=1e-6)


def test_an_optimizers_own_rate_is_not_in_the_history(make):
    history = make(optimizer=optax.sgd(0.1)).fit(verbose=0)
    assert history["learning_rate"] == [None, None] and "learning_rate" not in history.last


@pytest.mark.slow
def test_an_own_augmentation_changes_each_image_by_its_own_key(make, tiny):
    seen = make(augment=my_darker).experiment
    batch = next(iter(seen.loader.batches(0, 1, slice(None))))
    images = seen.augment(jax.random.key(0), 0, batch, 0).images
    shares = np.asarray(images).reshape(32, -1).sum(1) / batch.images.reshape(32, -1).sum(1)
    assert len(set(shares.round(4))) > 25 and 0.5 <= shares.min() < 0.7 < shares.max() <= 1
    clean = make(augment=my_darker, clean_epochs=1).experiment
    kept = clean.augment(jax.random.key(0), 7, batch, 0).images
    np.testing.assert_array_equal(kept, batch.images)
    assert np.isfinite(trained(make(augment=my_darker)).history["loss"]).all()


def darker_later(key, image, epoch):
    return image / (1 + epoch)


def test_an_own_augmentation_may_take_the_number_of_the_pass(make, tiny):
    experiment = make(augment=darker_later).experiment
    steps = experiment.loader.steps_per_pass
    batch = next(iter(experiment.loader.batches(0, 1, slice(None))))
    for step, divisor in ((0, 1), (steps - 1, 1), (steps, 2), (3 * steps, 4)):
        images = experiment.augment(jax.random.key(0), step, batch, 0).images
        np.testing.assert_allclose(images, batch.images / divisor, rtol=1e-6)


def darker_by(key, image, strength=4.0):
    return image / strength


def test_a_third_parameter_of_another_name_keeps_its_default(make):
    experiment = make(augment=darker_by).experiment
    batch = next(iter(experiment.loader.batches(0, 1, slice(None))))
    images = experiment.augment(jax.random.key(0), 0, batch, 0).images
    np.testing.assert_allclose(images, batch.images / 4, rtol=1e-6)


@pytest.mark.slow
def test_a_saved_run_names_its_functions_and_predicts_without_them(
    tiny_preset, run_main, tiny, tmp_path
):
    own: dict[str, Any] = dict(loss=my_loss, optimizer=optax.adam, augment=my_darker)
    network = trained(Network(tiny_preset("softmax", **own)))
    folder = network.save(tmp_path / "run")
    config = read_json(folder / "config.json")
    names = [config[name] for name in own]
    assert names == ["custom:my_loss", "custom:adam", "custom:my_darker"]
    loaded = jaxnets.load(folder)
    assert_same(loaded.predict(tiny.test.images), network.predict(tiny.test.images))
    with pytest.raises(UserError, match=r"loss: .* my_loss .*: jaxnets.load\(DIR, loss=my_loss\)"):
        jaxnets.load(folder).fit()
    run_main("--resume", f"--workdir={folder}", "--epochs=3").assert_refused("loss=my_loss")
    with pytest.raises(UserError, match="^seed: the run was not trained"):
        jaxnets.load(folder, seed=3)
    again = jaxnets.load(folder, **own)
    assert_same(trained(again).state.params, trained(network).state.params)


def test_a_function_that_returns_another_shape_is_refused(make):
    with pytest.raises(UserError, match=r"loss: .* shape \(32,\), got shape \(\)"):
        make(loss=lambda logits, labels: my_loss(logits, labels).mean()).fit(verbose=0)
    with pytest.raises(UserError, match=r"augment: .* shape \(12, 12, 1\), got one of \(12, 12\)"):
        make(augment=lambda key, image: image[..., 0]).fit(verbose=0)
