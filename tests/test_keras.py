"""The lecture's systems 1 to 3 beside real Keras: the same weights, the same batches, step by step.

Keras computes with PyTorch here, so that the oracle shares no code with JAX. The learning rate of
RMSprop, its epsilon and the batch size of `fit` are left to Keras where the slides leave them out.
"""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.data.batches import epoch_order, train_batches
from jaxnets.data.datasets import Split
from jaxnets.experiment import Experiment
from jaxnets.notebook.callbacks import Callback
from jaxnets.notebook.network import Network
from jaxnets.training import optimizer

# Keras 3.15 turns its variables into arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")

EPOCHS, STEPS_AN_EPOCH = 5, 10
TEST_IMAGES = 1000  # Not a multiple of 32, in which Keras evaluates.


def keras_sequential(keras, *hidden):
    """Slides "Keras的序列模型" and "基于Keras库构建全连接神经网络"."""
    model = keras.models.Sequential()
    model.add(keras.Input(shape=(28 * 28,)))
    for units in hidden:
        model.add(keras.layers.Dense(units=units, activation="relu"))
    model.add(keras.layers.Dense(units=10, activation="softmax"))
    sgd = keras.optimizers.SGD(learning_rate=0.1)
    model.compile(optimizer=sgd, loss="mse", metrics=["accuracy"])
    return model


def keras_functional(keras):
    """Slide "Keras的函数式模型"."""
    inputs = keras.layers.Input(shape=(784,))
    x = keras.layers.Dense(64, activation="relu")(inputs)
    x = keras.layers.Dense(64, activation="relu")(x)
    predictions = keras.layers.Dense(10, activation="softmax")(x)
    model = keras.models.Model(inputs=inputs, outputs=predictions)
    model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


# How Keras's model is made, how many numbers it learns, what fit gets on the slides besides data.
RECIPES = {
    "mlp_sequential": (lambda keras: keras_sequential(keras, 64, 64), 55_050, {}),
    "mlp_functional": (keras_functional, 55_050, {}),
    "mlp": (lambda keras: keras_sequential(keras, 512), 407_050, {"batch_size": 512}),
}


@pytest.fixture(params=RECIPES)
def system(request, keras, mnist):
    """A system of the lecture, here and in Keras, with the same initial weights.

    On the first images of MNIST: nine whole batches an epoch and a ragged one.

    That one has 3/16 of a batch, the 96 of 512 that the lecture's last batch has.
    """
    name, batch_size = request.param, PRESETS[request.param]["batch_size"]
    size = (STEPS_AN_EPOCH - 1) * batch_size + batch_size * 3 // 16
    config = preset(name, epochs=EPOCHS, validation_size=0, devices=1)
    train, test = first(mnist.train, size), first(mnist.test, TEST_IMAGES)
    ours = Experiment.create(config, dataclasses.replace(mnist, train=train, test=test))
    state, theirs = ours.init_state(), RECIPES[name][0](keras)
    theirs.set_weights(weights_of(state.params))
    return SimpleNamespace(ours=ours, state=state, theirs=theirs, name=name)


def first(split: Split, size: int) -> Split:
    return Split(split.images[:size], split.labels[:size])


def weights_of(params) -> list[np.ndarray]:
    """Our parameters in Keras's order: hidden1, hidden2, ..., logits; kernel before bias."""
    return [np.asarray(params[layer][name]) for layer in params for name in ("kernel", "bias")]


def for_keras(split: Split, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows of 784 pixels and one-hot labels, both float32."""
    images, labels = split.images[rows], split.labels[rows]
    return images.reshape(len(images), -1), np.eye(10, dtype=np.float32)[labels]


def largest_difference(ours, theirs) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def test_every_step_follows_keras(system):
    config, state = system.ours.config, system.state
    step = system.ours.parallel.compile(system.ours.train_step())
    initial, sizes, errors = weights_of(state.params), [], []
    train, size, seed = system.ours.data.train, config.batch_size, config.seed
    for epoch in range(EPOCHS):
        for batch in train_batches(train, size, seed=seed, epoch=epoch):
            state, metrics = step(state, batch)
            real = batch.mask > 0
            theirs = system.theirs.train_on_batch(
                *for_keras(Split(batch.images, np.asarray(batch.labels)), real), return_dict=True
            )
            sizes.append(int(real.sum()))
            errors.append(abs(metrics.loss - float(theirs["loss"])))
            assert errors[-1] < 1e-5, f"step {len(errors)}"
            assert int(metrics.correct) == round(float(theirs["accuracy"]) * sizes[-1])

    assert len(sizes) == 50
    assert set(sizes) == {config.batch_size, config.batch_size * 3 // 16}
    moved = largest_difference(weights_of(state.params), initial)
    apart = largest_difference(weights_of(state.params), system.theirs.get_weights())
    # pytest -rP shows it.
    print(f"largest difference of a loss {max(errors):.1e}, of a weight {apart:.1e} of {moved:.1e}")
    assert apart < 1e-6 < moved / 1000


def test_an_epochs_log_and_the_evaluation_are_those_of_keras(system):
    """Keras' fit: the mean over the epoch's examples, of each batch before its update."""
    config, data, theirs = system.ours.config, system.ours.data, system.theirs
    state, history = system.ours.train()
    for epoch, record in enumerate(history):
        order, mask = epoch_order(len(data.train), config.batch_size, config.seed, epoch)
        rows = for_keras(data.train, order[mask > 0])
        log = theirs.fit(*rows, shuffle=False, verbose=0, **RECIPES[system.name][2]).history
        assert [record["train_loss"]] == pytest.approx(log["loss"], abs=1e-5)
        assert [record["train_accuracy"]] == pytest.approx(log["accuracy"], abs=1e-6)
        assert log["accuracy"] == np.array(log["accuracy"], np.float32).tolist()  # docs/errata.md

    ours = system.ours.evaluate(state.params, data.test)
    loss, accuracy = theirs.evaluate(*for_keras(data.test), verbose=0)
    assert ours.loss == pytest.approx(loss, abs=1e-5)
    assert int(ours.correct) == round(accuracy * TEST_IMAGES)


def test_weights_are_as_many_and_begin_as_in_keras(keras, system):
    """Glorot uniform: limits ± sqrt(6 / (inputs + outputs)), evenly spread; biases 0."""
    build, wanted, _ = RECIPES[system.name]
    count = sum(leaf.size for leaf in jax.tree.leaves(system.state.params))
    assert count == system.theirs.count_params() == wanted
    keras.utils.set_random_seed(0)
    shares, fresh = np.linspace(0, 1, 11), build(keras).get_weights()
    for ours, theirs in zip(weights_of(system.state.params), fresh, strict=True):
        assert ours.shape == theirs.shape
        for weights in (ours, theirs):
            if weights.ndim == 1:
                assert not weights.any()
                continue
            limit = np.sqrt(6 / sum(weights.shape))
            assert np.abs(weights).max() <= limit
            # 5 standard deviations of a quantile of a uniform distribution, at its widest.
            close = 5 * limit / np.sqrt(weights.size)
            quantiles = np.quantile(weights, shares)
            assert quantiles == pytest.approx(limit * (2 * shares - 1), abs=close)


def test_rmsprop_has_the_constants_of_keras(keras):
    theirs = keras.optimizers.RMSprop()
    assert theirs.epsilon == optimizer.RMSPROP_EPSILON
    assert theirs.rho == optimizer.RMSPROP_DECAY
    assert float(theirs.learning_rate) == pytest.approx(preset("mlp_functional").learning_rate)
    assert float(keras.optimizers.SGD().learning_rate) == pytest.approx(
        preset("mlp_functional", optimizer="sgd").learning_rate
    )


def test_keras_refuses_what_the_slides_misprint(keras):
    """The claims of docs/errata.md about Keras."""
    model = keras_functional(keras)
    with pytest.raises(ValueError, match=r"not recognized: \{'lr': 0.1\}"):
        keras.optimizers.SGD(lr=0.1)
    with pytest.raises(ValueError, match="rmaprop"):
        model.compile(optimizer="rmaprop", loss="categorical_crossentropy")
    assert list(inspect.signature(model.fit).parameters)[:4] == ["x", "y", "batch_size", "epochs"]
    assert list(inspect.signature(model.evaluate).parameters)[:3] == ["x", "y", "batch_size"]


def test_a_network_has_the_history_and_callbacks_of_keras(keras, mnist):
    def noting(kind, calls):
        """A callback that notes each call, its number and the names of its logs."""

        def method(name):
            def note(self, *number, logs=None):
                if number and not isinstance(number[-1], int):  # Ours come without a name.
                    *number, logs = number
                calls.append((name, *number, sorted({*(logs or {})} - {"learning_rate"})))

            return note

        names = ("train_begin", "epoch_begin", "train_batch_end", "epoch_end", "train_end")
        return type("Noting", (kind,), {f"on_{name}": method(name) for name in names})()

    train, test = first(mnist.train, 80), first(mnist.test, 80)
    expected, calls = [], []
    (x, y), callback = for_keras(train), noting(keras.callbacks.Callback, expected)
    given: dict[str, Any] = dict(batch_size=32, epochs=2, verbose=0)
    model = keras_sequential(keras, 8)
    theirs = model.fit(x, y, **given, validation_data=for_keras(test), callbacks=[callback])
    pairs = [(part.images, part.labels) for part in (train, test, test)]
    network = Network("mlp_sequential", pairs, hidden=8, epochs=2, batch_size=32, devices=1)
    ours = network.fit(callbacks=noting(Callback, calls), verbose=0)
    assert calls == expected and len(calls) == 12
    assert set(ours.history) == set(theirs.history) and ours.epoch == theirs.epoch
