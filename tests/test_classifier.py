"""Classifier beside scikit-learn's own checks and tools."""

import pickle
from typing import Any

import numpy as np
import pytest

import jaxnets
from jaxnets.errors import UserError

pytest.importorskip("sklearn", reason="scikit-learn, whose manners these are, is not installed")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxnets.notebook.classifier import Classifier

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
    with pytest.raises(UserError, match="images of .8, 8, 1., as in training, got .8, 9, 1."):
        same.predict(np.zeros((2, 8, 9)))


def test_a_second_fit_begins_anew(fitted, digits):
    again: Any = clone(fitted)
    again.fit(*digits)
    first = again.predict_proba(digits[0])
    np.testing.assert_array_equal(again.fit(*digits).predict_proba(digits[0]), first)
    np.testing.assert_array_equal(fitted.predict_proba(digits[0]), first)


def test_a_pickle_predicts_the_same(fitted, digits):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(digits[0]), fitted.predict(digits[0]))
    assert again.get_params() == fitted.get_params()


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
    network = jaxnets.Network("softmax", data=(x, y), **QUICK)
    for ask, error, message in (
        (lambda: Classifier(lr=0.1), UserError, 'did you mean "learning_rate"?'),
        (lambda: Classifier("cmn").fit(x, y), UserError, 'did you mean "cnn"?'),
        (lambda: Classifier().fit(x[:, :60], y), UserError, r"rows .N, S . S. of square images"),
        (
            lambda: Classifier().fit(x * 16, y),
            UserError,
            "floats from 0 to 1, got float64 from 0.0",
        ),
        (lambda: fitted.predict(x[:, :60]), ValueError, "60 features, .* expecting 64 features"),
        (lambda: cross_val_score(network, x, y), AttributeError, "jaxnets.Classifier"),
    ):
        with pytest.raises(error, match=message):
            ask()


class OfTables(Classifier):
    """Makes an image of any row: the checks' numbers are no pixels, and their rows no squares."""

    def _images(self, X):
        pixels = (1 / (1 + np.exp(-np.asarray(X, np.float64)))).reshape(len(X), -1)
        side = int(np.ceil(np.sqrt(pixels.shape[1])))
        pixels = np.pad(pixels, ((0, 0), (0, side**2 - pixels.shape[1])))
        return super()._images(pixels)


LEFT_OUT = {
    "check_do_not_raise_errors_in_init_or_set_params": "it gives a value to `settings`, which is "
    "no parameter but stands for the fields of Config",
}


@pytest.mark.slow
@parametrize_with_checks([OfTables("softmax")], expected_failed_checks=lambda estimator: LEFT_OUT)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)
