"""Classifier and Regressor, compared with scikit-learn's own checks, tools and least squares."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import slow

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.export import export

pytest.importorskip("sklearn", reason="scikit-learn, whose manners these are, is not installed")

from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxnets.notebook.estimators import EXPECTED_FAILED_CHECKS, Classifier, Regressor

pytestmark = pytest.mark.oracle
QUICK: dict[str, Any] = dict(epochs=40, batch_size=32, learning_rate=0.5, augment="none", devices=1)


@pytest.fixture(scope="module")
def digits():
    """150 digits as rows of 64 pixels, and their labels, texts."""
    x, y = load_digits(return_X_y=True)
    return x[:150] / 16, np.array(list("abcdefghij"))[y[:150]]


@pytest.fixture(scope="module")
def fitted(digits):
    return Classifier("softmax", **QUICK).fit(*digits)


def test_it_fits_all_images_and_predicts_labels(fitted, digits):
    x, y = digits
    assert fitted.classes_.tolist() == list("abcdefghij") and fitted.n_features_in_ == 64
    assert [len(part) for part in (fitted.network_.data.train, fitted.network_.data.test)] == [
        150,
        0,
    ]
    assert len(fitted.history_) == 40
    predicted = fitted.predict(x)
    assert fitted.score(x, y) == np.mean(predicted == y) > 0.9
    images = x.reshape(-1, 8, 8)
    same = Classifier("softmax", **QUICK).fit(images, y)
    np.testing.assert_array_equal(same.predict_proba(images), fitted.predict_proba(x))
    with pytest.raises(UserError, match="images of .8, 8, 1., as in training, got .8, 9."):
        same.predict(np.zeros((2, 8, 9)))


def test_a_second_fit_begins_anew(fitted, digits):
    again: Any = clone(fitted)
    again.fit(*digits)
    first = again.predict_proba(digits[0])
    np.testing.assert_array_equal(again.fit(*digits).predict_proba(digits[0]), first)
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), first)


def test_a_pickle_predicts_the_same(fitted, digits):
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 30_000 < digits[0].nbytes  # A saved run, without the data.
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.predict(digits[0]), fitted.predict(digits[0]))
    assert again.get_params() == fitted.get_params()
    twice = copy.deepcopy(pickle.loads(pickle.dumps(again)))
    np.testing.assert_array_equal(twice.predict(digits[0]), fitted.predict(digits[0]))


@pytest.mark.slow
def test_it_is_searched_and_cross_validated(digits):
    x, y = digits
    scores = cross_val_score(Classifier("softmax", **QUICK), x, y, cv=2)
    assert len(scores) == 2 and min(scores) > 0.7
    halved = make_pipeline(FunctionTransformer(lambda x: x / 2), Classifier("softmax", **QUICK))
    grid = {"classifier__learning_rate": [1e-6, 0.5], "classifier__momentum": [0.5]}
    found: Any = GridSearchCV(halved, grid, cv=2).fit(x, y)
    assert found.best_params_["classifier__learning_rate"] == 0.5 and found.score(x, y) > 0.8


def test_wrong_arguments_are_answered_in_a_sentence(fitted, digits):
    x, y = digits
    for ask, error, message in (
        (
            lambda: Classifier(lr=0.1),  # pyright: ignore
            UserError,
            'did you mean "learning_rate"?',
        ),
        (lambda: Classifier("cmn").fit(x, y), UserError, 'did you mean "cnn"?'),
        (lambda: Classifier().fit(x[:, :60], y), UserError, "images, .* got rows of 60 numbers"),
        (lambda: Classifier().fit(x * 16, y), UserError, "floats from 0 to 1, got rows of 64"),
        (lambda: fitted.predict(x[:, :60]), ValueError, "60 features, .* expecting 64 features"),
        (lambda: Regressor("cnn").fit(x, np.arange(150)), UserError, "images, .* got rows of 64"),
        (lambda: Regressor(validation_size=9).fit(x, x[:, 0]), UserError, "validation_size: "),
    ):
        with pytest.raises(error, match=message):
            ask()


@pytest.fixture(scope="module")
def table():
    """Iris in other units than its own, 75 flowers each to train on and to test, by turns."""
    x, y = load_iris(return_X_y=True)
    x = x * [1, 1000, 0.01, 1] - [0, 5, 0, 300]
    return (x[::2], y[::2]), (x[1::2], y[1::2])


@pytest.fixture(scope="module")
def of_table(table):
    return Classifier("softmax").fit(*table[0])


def test_a_table_is_scaled_by_the_rows_that_it_is_trained_on(of_table, table):
    (x, y), test = table
    assert of_table.score(*test) > 0.9
    scaler: Any = StandardScaler().fit(x)
    network = of_table.network_
    (row,) = network.config.scaling
    assert row["kind"] == "normalize"
    np.testing.assert_allclose(row["mean"], scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(row["std"], scaler.scale_, rtol=1e-5)
    # Its softmax, in float64 of rows that scikit-learn has scaled.
    logits = network.state.params["logits"]
    kernel, bias = (np.asarray(logits[name], np.float64) for name in ("kernel", "bias"))
    powers = np.exp(scaler.transform(test[0]) @ kernel + bias)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(of_table.predict_proba(test[0]), expected, atol=1e-4)


def test_a_saved_run_keeps_the_scaling_of_its_table(of_table, table, tmp_path):
    network, (x, y) = of_table.network_, table[1]
    expected = network.predict_proba(x)
    loaded = jaxnets.load(network.save(tmp_path / "run"))
    for again in (loaded, pickle.loads(pickle.dumps(of_table)).network_):
        np.testing.assert_array_equal(again.predict_proba(x), expected)
        assert again.score(x, y) == of_table.score(x, y)
    assert network.evaluate(x, y).accuracy == of_table.score(x, y)
    np.testing.assert_array_equal(loaded.predict(x[0]), loaded.predict(x[:1]))
    with pytest.raises(UserError, match=r"expected rows .N, 4., got .75, 3."):
        loaded.predict(x[:, :3])


@pytest.mark.slow
def test_a_column_without_spread_changes_nothing(of_table, table):
    (x, y), (x_test, _) = table
    wider: Any = Classifier("softmax").fit(np.c_[x, np.full(len(x), 0.1)], y)
    found = wider.predict_proba(np.c_[x_test, np.full(len(x_test), 0.1)])
    assert np.isfinite(found).all() and wider.network_.config.scaling[0]["std"][-1] == 1


def test_a_convolution_refuses_a_table(table):
    with pytest.raises(UserError, match="cnn: expected images, .* got rows of 4 numbers"):
        Classifier("cnn").fit(*table[0])
    with pytest.raises(UserError, match="augment: expected images, .* got rows of 4 numbers"):
        Classifier("mlp", augment="crop").fit(*table[0])


def test_a_page_refuses_a_table(of_table, tmp_path, run_command):
    folder = of_table.network_.save(tmp_path / "run")
    run_command("page", folder).assert_refused("rows of 2 numbers, got one on rows of 4")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_an_export_scales_rows(kind, of_table, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    folder = of_table.network_.save(tmp_path / "run")
    made = export.export(str(folder), output=str(tmp_path / f"net.{kind}"))
    assert made.image_shape == (4,) and made.difference < 1e-4 * made.largest
    assert "rows [batch, 4] float32 -> logits [batch, 3]" in made.text()


def test_small_images_are_enlarged_for_convolutions_alone():
    images = np.random.default_rng(0).random((20, 8, 8))
    data = images, np.arange(20) % 2
    assert jaxnets.Network("cnn", data).config.scaling == [{"kind": "enlarge", "size": 16}]
    assert jaxnets.Network("mlp", data).config.scaling is None


def test_pixels_may_exceed_the_range_that_a_scaler_learned(digits):
    x, y = digits
    scaled = make_pipeline(MinMaxScaler(), Classifier("softmax", **QUICK)).fit(x[:100], y[:100])
    assert MinMaxScaler().fit(x[:100]).transform(x[100:]).max() > 1
    assert scaled.score(x[100:], y[100:]) > 0.6


@pytest.fixture(scope="module")
def patients():
    """scikit-learn's diabetes in the data's own units, 300 patients to train on and 142 to test."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    return (x[:300], y[:300]), (x[300:], y[300:])


@pytest.mark.parametrize("gradients", [slow("auto"), "manual"])
def test_a_network_of_one_layer_reaches_least_squares(patients, gradients):
    train, (x, y) = patients
    ours = Regressor("softmax", gradients=gradients).fit(*train)
    theirs = LinearRegression().fit(*train)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-3)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=1e-4)


def test_a_regressor_is_scored_and_pickled(patients):
    train, (x, y) = patients
    ours: Any = Regressor("mlp", epochs=5).fit(*train)
    assert len(ours.history_) == 5 and ours.history_["loss"][-1] < ours.history_["loss"][0]
    p = ours.predict(x)
    assert ours.score(x, y) == 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2) > 0.3
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict(x), p)
    refitted: Any = clone(ours)
    np.testing.assert_array_equal(refitted.fit(*train).predict(x[:1]), p[:1])


@pytest.mark.slow
@parametrize_with_checks(
    [Classifier("softmax", epochs=2), Regressor(seed=0)],  # The second is an MLP.
    expected_failed_checks=lambda estimator: EXPECTED_FAILED_CHECKS,
)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)
