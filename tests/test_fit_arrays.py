"""What users of Keras and scikit-learn do with a Network and arrays of their own."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import assert_same, read_json

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.notebook.network import Network
from jaxnets.runs.run_folder import params_sha256

QUICK: dict[str, Any] = dict(epochs=3, devices=1, batch_size=16, augment="none")


@pytest.fixture(scope="module")
def pictures(tiny):
    """Images [60, 12, 12] and their labels, texts."""
    return tiny.train.images[:60, ..., 0], np.array(["ant", "bee", "cow"])[tiny.train.labels[:60]]


@pytest.fixture(scope="module")
def fitted(pictures):
    """A trained network; nothing changes it."""
    network = Network("softmax", learning_rate=0.5)
    network.fit(*pictures, validation_split=0.2, verbose=0, **QUICK)
    return network


def sha256(network):
    return params_sha256(network.state.params)


def test_fit_takes_images_and_labels_as_keras_does(fitted, pictures):
    x, y = pictures
    assert [len(part) for part in (fitted.data.train, fitted.data.validation)] == [48, 12]
    assert (len(fitted.history), fitted.config.batch_size, fitted.config.epochs) == (3, 16, 3)
    assert list(fitted.history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert fitted.class_names == ("ant", "bee", "cow")
    assert fitted.classes_.tolist() == ["ant", "bee", "cow"]
    probabilities = fitted.predict_proba(x)
    np.testing.assert_array_equal(probabilities, fitted.predict(x))
    right = fitted.classes_[probabilities.argmax(axis=1)] == y
    assert fitted.score(x, y) == np.mean(right) == fitted.evaluate(x, y).accuracy > 0.7


@pytest.mark.slow
def test_every_image_is_trained_on_without_a_validation(pictures):
    network = Network("softmax")
    history = network.fit(*pictures, verbose=0, shuffle=True, **QUICK)
    assert len(network.data.train) == 60 and list(history.history) == ["loss", "accuracy"]
    with pytest.raises(UserError, match="holds no test images back"):
        network.evaluate()
    x, y = pictures
    given = Network("softmax")
    given.fit(x, y, validation_data=(x[:9], y[:9]), early_stopping=1, verbose=0, **QUICK)
    assert [len(part) for part in (given.data.train, given.data.validation)] == [60, 9]


def test_rows_lists_and_data_frames_are_the_same_images(fitted, pictures):
    x, y = pictures
    rows = x.reshape(60, -1)
    forms = [(rows, y.tolist()), (rows.tolist(), y[:, None]), (x[..., None], list(y))]
    try:
        import pandas
    except ImportError:
        pass
    else:
        forms.append((pandas.DataFrame(rows), pandas.DataFrame({"y": y})))
        forms.append((pandas.DataFrame(rows), pandas.Series(y, dtype="category")))
        forms.append((pandas.DataFrame(rows), pandas.Series(y)))
    for images, labels in forms:
        assert fitted.score(images, labels) == fitted.score(x, y)
        np.testing.assert_array_equal(fitted.predict(images), fitted.predict(x))
    again = Network("softmax", learning_rate=0.5)
    again.fit(*forms[-1], validation_split=0.2, verbose=0, **QUICK)
    assert sha256(again) == sha256(fitted)


@pytest.mark.slow
def test_a_second_fit_of_the_same_data_trains_on(fitted, pictures):
    network, straight = copy.deepcopy(fitted), copy.deepcopy(fitted)
    network.fit(*pictures, validation_split=0.2, epochs=2, verbose=0)
    straight.fit(epochs=2, verbose=0)
    assert len(network.history) == 5 and sha256(network) == sha256(straight)


def test_labels_that_training_did_not_know_are_named(fitted, pictures):
    with pytest.raises(UserError, match="labels among ant, bee, cow, got 'dog'"):
        fitted.score(pictures[0][:2], ["ant", "dog"])


@pytest.mark.slow
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_trains_on_alone(how, fitted, pictures):
    before, copied = sha256(fitted), how(fitted)
    assert sha256(copied) == before
    copied.fit(epochs=1, verbose=0)
    assert (sha256(fitted), len(fitted.history)) == (before, 3)
    assert sha256(copied) != before and len(copied.history) == 4
    fresh = how(Network("softmax", pictures, **QUICK))
    assert len(fresh.fit(verbose=0)) == 3


def test_copies_of_a_loaded_network_predict_apart(fitted, pictures, tmp_path):
    x, y = pictures
    loaded = jaxnets.load(fitted.save(tmp_path / "run"))
    before, copied = loaded.predict(x), copy.copy(loaded)
    copied.fit(x, y, validation_split=0.2, epochs=1, verbose=0)
    assert np.abs(copied.predict(x) - before).max() > 0
    assert_same(loaded.predict(x), before)


def test_a_pickle_is_refused_for_a_saved_run(fitted):
    with pytest.raises(UserError, match=r"net.save.DIR. writes the network, and jaxnets.load"):
        pickle.dumps(fitted)


def test_a_saved_run_continues_with_the_arrays_of_its_first_fit(fitted, pictures, tmp_path):
    x, y = pictures
    again = jaxnets.load(fitted.save(tmp_path / "run"))
    assert_same(again.predict(x), fitted.predict(x))
    assert (again.score(x, y), again.history) == (fitted.score(x, y), fitted.history)
    with pytest.raises(UserError, match=r"expected net.fit.x, y. or jaxnets.load.DIR, data="):
        again.fit()
    straight = copy.deepcopy(fitted)
    straight.fit(epochs=1, verbose=0)
    again.fit(x, y, validation_split=0.2, epochs=1, verbose=0)
    assert sha256(again) == sha256(straight)


def test_what_was_fitted_without_a_test_is_saved_as_finished(fitted, pictures, tmp_path):
    folder = fitted.save(tmp_path / "run")
    result = read_json(folder / "result.json")
    assert (result["test_accuracy"], result["test_count"], result["epochs"]) == (None, 0, 3)
    loaded = jaxnets.load(folder)
    assert loaded.predictor.finished and loaded.score(*pictures) == fitted.score(*pictures)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_few_arrays_adapt_as_a_small_folder_does(capsys):
    images = np.random.default_rng(0).random((50, 28, 28)).astype("f4")
    network = Network("cnn", data=(images, np.arange(50) % 3), devices=1)
    config = network.config
    assert (config.batch_size, config.optimizer, config.augment) == (32, "adam", "crop")
    assert config.epochs * network.experiment.loader.steps == 800
    network.fit(epochs=1, verbose=2)
    printed = capsys.readouterr().out
    assert "41 training pictures are few" in printed and "--" not in printed


def test_full_is_a_batch_size_in_python_too():
    assert jaxnets.preset("cnn", batch_size="full").batch_size is None


def test_an_untrained_network_says_so_once(tiny, recwarn):
    network = Network("softmax", tiny, **QUICK)
    with pytest.warns(UserWarning, match="is not trained: its weights are random") as caught:
        network.predict(tiny.test.images[:2])
    assert caught[0].filename == __file__
    network.fit(verbose=0)
    network.predict(tiny.test.images[:2])
    assert not len(recwarn)
