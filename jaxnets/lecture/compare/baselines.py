"""The review page's other models, by scikit-learn: linear and logistic regression, KNN, K-means.

scikit-learn is optional, so each model imports it where it is fitted. Shapes: N examples, D
features (an image's pixels), K classes or outputs.
"""

import time
import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxnets.data.datasets import Dataset, Split
from jaxnets.lecture.compare.results import Fit, Scores, scores_of
from jaxnets.regression_metrics import RegressionMetrics
from jaxnets.training.augment import to_float

NEIGHBOURS = 5


# A trained model [N, D] -> labels [N] or predictions [N, K], and how many numbers it learnt: None
# where it keeps the examples instead.
Fitted = tuple[Callable[[np.ndarray], np.ndarray], int | None]


def linear_regressor(x: np.ndarray, targets: np.ndarray) -> Fitted:
    """Least squares in closed form: W, b minimise Σ (xW + b - y)²."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(x, targets)
    return model.predict, model.coef_.size + np.size(model.intercept_)


def knn_regressor(x: np.ndarray, targets: np.ndarray) -> Fitted:
    """The mean of the five nearest training examples' targets."""
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(min(NEIGHBOURS, len(x))).fit(x, targets).predict, None


def linear_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """Least squares on one-hot labels; the largest output wins."""
    outputs, parameters = linear_regressor(x, np.eye(num_classes, dtype=x.dtype)[labels])
    return lambda x: outputs(x).argmax(axis=1), parameters


def logistic_regression(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """Softmax regression by L-BFGS with scikit-learn's own L2 penalty (C = 1), 100 iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Its iterations end before it has converged, as an epoch budget ends a network's.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(random_state=seed).fit(x, labels)
    return model.predict, model.coef_.size + model.intercept_.size


def knn_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """The majority of the five nearest training examples; learning is keeping them."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(NEIGHBOURS, len(x))).fit(x, labels).predict, None


def kmeans_classifier(x: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> Fitted:
    """As many clusters as classes, found without labels; each then takes its members' majority."""
    from sklearn.cluster import KMeans

    model = KMeans(min(num_classes, len(x)), random_state=seed).fit(x)
    counts = np.zeros((model.n_clusters, num_classes), int)
    np.add.at(counts, (np.asarray(model.labels_), labels), 1)
    majority = counts.argmax(axis=1)
    return lambda x: majority[model.predict(x)], model.cluster_centers_.size + majority.size


CLASSIFIERS = {
    "linear_regression": linear_classifier,
    "logistic_regression": logistic_regression,
    "knn": knn_classifier,
    "kmeans": kmeans_classifier,
}
REGRESSORS = {"linear_regression": linear_regressor, "knn": knn_regressor}


def fit_baseline(name: str, data: Dataset, seed: int) -> Fit:
    """Trains one of these models on rows of pixels or features."""
    started = time.perf_counter()
    x, labels = _rows(data.train), data.train.labels
    if data.is_regression:
        predict, parameters = REGRESSORS[name](x, labels)
    else:
        predict, parameters = CLASSIFIERS[name](x, labels, data.num_classes, seed)
    seconds = time.perf_counter() - started

    def score(split: Split) -> Scores:
        predicted, count = predict(_rows(split)), len(split)
        if not data.is_regression:
            return {"accuracy": float(np.mean(predicted == split.labels))}
        metrics = RegressionMetrics.of(
            jnp.asarray(predicted),
            jnp.asarray(split.labels),
            losses=jnp.zeros(count),
            mask=jnp.ones(count),
            mean=data.target_mean,
            scale=data.target_scale,
        )
        return scores_of(metrics, data)

    return Fit(parameters, None, score(data.train), score(data.test), seconds)


def _rows(split: Split) -> np.ndarray:
    return to_float(split.images).reshape(len(split), -1)
