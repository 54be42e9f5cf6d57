"""The review page's other models, by scikit-learn: linear and logistic regression, KNN, K-means.

Shapes: N examples, D features (of an image: its pixels), K classes or outputs.
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NEIGHBOURS = 5
INSTALL = "pip install scikit-learn"


class Fitted(NamedTuple):
    """A model that has learnt.

    Attributes:
      predict: [N, D] -> labels [N], or in regression predictions [N, K].
      parameters: How many numbers it learnt; None where it keeps the examples instead.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    parameters: int | None


def available() -> bool:
    """Whether scikit-learn is installed."""
    return importlib.util.find_spec("sklearn") is not None


def linear_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """Least squares on one-hot labels: W, b minimise Σ (xW + b - y)²; the largest output wins."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(x, np.eye(num_classes, dtype=x.dtype)[labels])
    return Fitted(lambda x: model.predict(x).argmax(axis=1), model.coef_.size + num_classes)


def logistic_regression(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """Softmax regression by L-BFGS with scikit-learn's own L2 penalty (C = 1), 100 iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Its iterations end before it has converged, as an epoch budget ends a network's.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(random_state=seed).fit(x, labels)
    return Fitted(model.predict, model.coef_.size + model.intercept_.size)


def knn_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """The majority of the five nearest training examples; learning is keeping them."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(NEIGHBOURS, len(x))).fit(x, labels)
    return Fitted(model.predict, None)


def kmeans_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """As many clusters as classes, found without labels; each then takes its members' majority."""
    from sklearn.cluster import KMeans

    model = KMeans(min(num_classes, len(x)), random_state=seed).fit(x)
    counts = np.zeros((model.n_clusters, num_classes), int)
    np.add.at(counts, (np.asarray(model.labels_), labels), 1)
    majority = counts.argmax(axis=1)
    return Fitted(lambda x: majority[model.predict(x)], model.cluster_centers_.size + majority.size)


def linear_regressor(x: np.ndarray, targets: np.ndarray) -> Fitted:
    """Least squares in closed form: W, b minimise Σ (xW + b - y)²."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(x, targets)
    return Fitted(model.predict, model.coef_.size + np.size(model.intercept_))


def knn_regressor(x: np.ndarray, targets: np.ndarray) -> Fitted:
    """The mean of the five nearest training examples' targets."""
    from sklearn.neighbors import KNeighborsRegressor

    return Fitted(KNeighborsRegressor(min(NEIGHBOURS, len(x))).fit(x, targets).predict, None)


CLASSIFIERS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], Fitted]] = {
    "linear_regression": linear_classifier,
    "logistic_regression": logistic_regression,
    "knn": knn_classifier,
    "kmeans": kmeans_classifier,
}
REGRESSORS: dict[str, Callable[[np.ndarray, np.ndarray], Fitted]] = {
    "linear_regression": linear_regressor,
    "knn": knn_regressor,
}
