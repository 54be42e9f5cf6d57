"""What users of Keras and of PyTorch write: a Network takes it, or says what to write."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.data.pictures.decode import BadPictureError
from jaxnets.losses import cross_entropy
from jaxnets.notebook.collect import collected
from jaxnets.notebook.network import Network
from jaxnets.runs.run_folder import params_sha256

QUICK: dict[str, Any] = dict(epochs=2, batch_size=20, devices=1)


@pytest.fixture(scope="module")
def arrays(tiny):
    return tiny.train.images[:60], tiny.train.labels[:60]


@pytest.fixture(scope="module")
def fitted(arrays):
    """A trained network; nothing changes it."""
    network = Network("softmax", learning_rate=0.5)
    network.fit(*arrays, verbose=0, **QUICK)
    return network


def batches(x, y, size=25):
    """Yields batches, the last one smaller."""
    for start in range(0, len(x), size):
        yield x[start : start + size], y[start : start + size]


@pytest.mark.slow
def test_batches_of_a_generator_train_as_their_arrays(arrays, fitted):
    network = Network("softmax", learning_rate=0.5)
    network.fit(batches(*arrays), validation_data=batches(*arrays), verbose=0, **QUICK)
    assert params_sha256(network.state.params) == params_sha256(fitted.state.params)
    assert network.history["val_loss"][-1] == pytest.approx(fitted.evaluate(*arrays).loss)
    assert fitted.evaluate(batches(*arrays)).loss == fitted.evaluate(*arrays).loss
    held_back = Network("softmax", batches(*arrays), **QUICK)
    assert [len(part) for part in (held_back.data.train, held_back.data.test)] == [49, 6]


@pytest.mark.oracle
def test_a_data_loader_of_pytorch_trains_as_its_arrays(arrays, fitted):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, y = (torch.tensor(np.array(array)) for array in arrays)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y.long()), 25)
    for pair in (loader,), (x, y):
        network = Network("softmax", learning_rate=0.5)
        network.fit(*pair, verbose=0, **QUICK)
        assert params_sha256(network.state.params) == params_sha256(fitted.state.params)
    first = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.permute(0, 3, 1, 2), y))
    with pytest.raises(UserError, match=r"x\.permute\(0, 2, 3, 1\)"):
        Network("softmax").fit(first, verbose=0, **QUICK)


def test_batches_and_verbose_change_no_result(arrays, fitted):
    x, y = arrays
    expected = fitted.predict(x)
    np.testing.assert_allclose(fitted.predict(x, batch_size=7, verbose=0), expected, atol=1e-6)
    metrics, wanted = fitted.evaluate(x, y, batch_size=7, verbose=0), fitted.evaluate(x, y)
    assert metrics.loss == pytest.approx(wanted.loss) and metrics.correct == wanted.correct


@pytest.mark.parametrize(
    ("batch", "got"),
    [((np.zeros((8, 8)), 3), "list_iterator"), (np.zeros((4, 8, 8)), "(4, 8, 8)"), ({}, "dict")],
)
def test_a_batch_of_another_form_is_refused(batch, got):
    with pytest.raises(UserError) as error:
        collected(iter([batch]))
    assert got in str(error.value)
    with pytest.raises(UserError):
        collected(iter([]))


def test_evaluate_refuses_where_no_test_was_held_back(fitted):
    with pytest.raises(UserError):
        fitted.evaluate()


@pytest.mark.parametrize(
    ("shape", "error", "said"),
    [
        ((50, 30), BadPictureError, "50 x 30"),
        ((5, 3), UserError, r"\(5, 3\)"),
        ((2, 1, 28, 28), UserError, r"transpose\(0, 2, 3, 1\)"),  # What would make it right.
    ],
)
def test_pictures_of_another_shape_are_named_by_it(mnist, shape, error, said):
    network = jaxnets.Network("softmax", mnist, epochs=1)
    with pytest.warns(UserWarning), pytest.raises(error, match=said):
        network.predict(np.zeros(shape))


def test_a_loss_weighs_classes_as_class_weight_does(tiny):
    """The answer to class_weight. Keras divides by the examples: X' (w (p - y)) / N in float64."""
    weights, x, y = np.array([1.0, 5.0, 0.5], np.float32), tiny.train.images, tiny.train.labels

    def weighted(logits, labels):
        return jnp.asarray(weights)[labels] * cross_entropy(logits, labels)

    network = Network("softmax", tiny, loss=weighted, **QUICK)
    params, rows = network.state.params["logits"], x.reshape(len(x), -1).astype(np.float64)
    logits = rows @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d_logits = weights[y, None] * (p - np.eye(3)[y]) / len(x)
    found = network.gradients(x, y, by="auto")["logits"]
    assert_close(found, {"bias": d_logits.sum(0), "kernel": rows.T @ d_logits}, 1e-5)


# Keras 3.15 turns its variables into arrays in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_divides_weighted_losses_by_the_examples(keras):
    """So that the loss above is its class_weight."""
    x, y = np.random.default_rng(0).random((6, 4), np.float32), np.array([0, 1, 2, 0, 1, 2])
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    weights = np.array([1.0, 5.0, 0.5])
    p = model.predict(x, verbose=0)
    class_weight = dict(enumerate(weights))
    loss = model.fit(x, y, batch_size=6, class_weight=class_weight, verbose=0).history["loss"]
    expected = -(weights[y] * np.log(p[np.arange(6), y])).sum() / 6
    assert loss == [pytest.approx(expected, rel=1e-5)]
