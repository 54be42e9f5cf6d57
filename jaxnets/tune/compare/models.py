"""The models that are compared and the data sets on which they are.

The models are the lecture's networks, and the review page's others: linear and logistic regression,
KNN, K-means. These are scikit-learn's, and so are two of the data sets. It is optional, so it is
imported where it is needed.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxnets.config.fields import Config
from jaxnets.config.resolve import preset
from jaxnets.data.datasets import Dataset, Split, sha256_of
from jaxnets.data.load import load_dataset
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.metrics import Metrics
from jaxnets.models.own import from_file
from jaxnets.regression_metrics import RegressionMetrics
from jaxnets.runs.memory import check_enough_memory
from jaxnets.runs.run_folder import num_params
from jaxnets.training.step import Checkpoint, to_float
from jaxnets.tune.compare.request import CURVE, REGRESSION, TASKS, Request
from jaxnets.tune.many import BAR

NEIGHBOURS = 5
TEST_SHARE = 0.2  # The test's share of scikit-learn's examples.
# The capacity curve has few examples and some wrong labels, which too large a network memorizes.
CURVE_EXAMPLES, CURVE_NOISE = 500, 0.2

_file = functools.cache(from_file)  # A file runs once, whatever the number of data sets.

OFF: dict[str, Any] = dict(disable=True)  # A bar that does not show.
Numbers = dict[str, Any]  # The values that training adds to a row (results.py).


def config_of(model: str, hidden: int | None, request: Request, data: Dataset) -> Config | None:
    """A network's config; with a hidden size, one of the capacity curve. None for a baseline."""
    if model in TASKS[request.task].baselines:
        return None
    changes: dict[str, Any] = {"validation_size": 0, "devices": 1, "seed": request.seed}
    if request.gradients == "manual":  # auto leaves mlp_handwritten its own gradients.
        changes["gradients"] = "manual"
    if hidden is not None:
        return preset(**changes, **CURVE[request.task], hidden=(hidden,))
    network: Any = model
    if model.endswith(".py"):
        network = _file(model).for_data(data.image_shape, data.num_classes)
    changes |= REGRESSION[model] if data.is_regression else {"model": network}
    if request.epochs is not None:
        changes["epochs"] = request.epochs
    return preset(**changes)


def fit(model: str, config: Config | None, data: Dataset, seed: int, *, bar: bool) -> Numbers:
    """Trains a network by its config, or a baseline by its name."""
    if config is None:
        return fit_baseline(model, data, seed)
    return fit_network(config, data, bar=bar)


def fit_network(config: Config, data: Dataset, *, bar: bool = True) -> Numbers:
    """Trains a network, with a bar of its epochs; no batch is larger than the training part."""
    if config.batch_size is not None:
        batch_size = min(config.batch_size, len(data.train))
        config = dataclasses.replace(config, batch_size=batch_size)
    started = time.perf_counter()
    experiment = Experiment.create(config, data)
    check_enough_memory(experiment)
    state = experiment.init_state()
    epochs, name = experiment.epochs(Checkpoint(state)), f"{data.name} {config.model}"
    for trained, _ in tqdm(epochs, name, config.epochs, **BAR | ({} if bar else OFF)):
        state = trained
    return {
        "parameters": num_params(state.params),
        "epochs": config.epochs,
        "seconds": round(time.perf_counter() - started, 3),
        **_scores(data, lambda split: experiment.evaluate(state.params, split, ten_crop=False)),
    }


def fit_baseline(name: str, data: Dataset, seed: int) -> Numbers:
    """Trains one of scikit-learn's models on rows of pixels or features."""
    from sklearn import cluster, exceptions, linear_model, neighbors

    x, y = _rows(data.train), data.train.labels
    if data.is_regression:
        nearest, mean, scale = neighbors.KNeighborsRegressor, data.target_mean, data.target_scale
        metric = functools.partial(RegressionMetrics.of, mean=mean, scale=scale)
    else:
        nearest, metric = neighbors.KNeighborsClassifier, Metrics.of
        if name == "linear_regression":
            y = np.eye(data.num_classes, dtype=x.dtype)[y]
    model: Any = {
        # Least squares in closed form: W, b minimize Σ (xW + b - y)². Labels are one-hot: the
        # largest output wins.
        "linear_regression": linear_model.LinearRegression(),
        # Softmax regression by L-BFGS with scikit-learn's own L2 penalty (C = 1), 100 iterations.
        "logistic_regression": linear_model.LogisticRegression(random_state=seed),
        # The majority of the nearest training examples, or their targets' mean; learning is keeping
        # them.
        "knn": nearest(min(NEIGHBOURS, len(x))),
        # As many clusters as classes, found without labels; each then takes its members' majority.
        "kmeans": cluster.KMeans(min(data.num_classes, len(x)), random_state=seed),
    }[name]
    started = time.perf_counter()
    with warnings.catch_warnings():
        # Its iterations end before it has converged, as an epoch budget ends a network's.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        model.fit(x, y)
    parts = ("coef_", "intercept_", "cluster_centers_")
    learned = [np.asarray(getattr(model, part, ())) for part in parts]
    if name == "kmeans":
        counts = np.zeros((model.n_clusters, data.num_classes), int)
        np.add.at(counts, (model.labels_, y), 1)
        learned.append(counts.argmax(axis=1))
    seconds = round(time.perf_counter() - started, 3)

    def evaluate(split: Split) -> Any:
        outputs = model.predict(_rows(split))
        if name == "kmeans":
            outputs = learned[-1][outputs]
        if outputs.ndim == 1:  # Labels.
            outputs = np.eye(data.num_classes)[outputs]
        ones = jnp.ones(len(split))
        return metric(jnp.asarray(outputs), jnp.asarray(split.labels), 0 * ones, ones)

    return {
        "parameters": sum(map(np.size, learned)) or None,
        "epochs": None,
        "seconds": seconds,
        **_scores(data, evaluate),
    }


def _rows(split: Split) -> np.ndarray:
    return to_float(split.images).reshape(len(split), -1)


def _scores(data: Dataset, evaluate: Callable[[Split], Any]) -> Numbers:
    """The scores of the training and the test part, by their columns."""
    task = TASKS["regression" if data.is_regression else "classification"]
    parts = {"train": evaluate(data.train), "test": evaluate(data.test)}
    return {
        f"{part}_{score}": getattr(metrics, score)
        for part, metrics in parts.items()
        for score in task.scores
    }


def load(request: Request) -> list[Dataset]:
    """The data sets, their training parts cut to train_size examples drawn with the seed."""
    if request.task == "regression":
        return [diabetes(request.seed, request.train_size)]
    whole = [
        digits(request.seed) if name == "digits" else load_dataset(name, validation_size=0)
        for name in request.datasets
    ]
    if request.data_dir is not None:
        whole = [load_dataset(data_dir=request.data_dir, validation_size=0)]
    return [cut(data, request.train_size, request.seed) for data in whole]


def cut(data: Dataset, size: int | None, seed: int) -> Dataset:
    """The data set with at most this many training examples, some of each class."""
    if size is None or size >= len(data.train):
        return data
    chosen = np.random.default_rng(seed).permutation(len(data.train))[:size]
    train = Split(data.train.images[chosen], data.train.labels[chosen])
    present = len(np.unique(train.labels))
    if not data.is_regression and present < data.num_classes:
        raise UserError(
            "train_size: expected enough of {} for its {} classes, {} images show only {}",
            data.name,
            data.num_classes,
            size,
            present,
        )
    return dataclasses.replace(data, train=train)


def digits(seed: int) -> Dataset:
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels, a fifth of them for the test.

    Source: E. Alpaydin and C. Kaynak 1998, the UCI repository's test set of optical digits.
    """
    from sklearn.datasets import load_digits

    loaded: Any = load_digits(return_X_y=True)
    images, labels = loaded
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels, parts = labels.astype(np.int32), _draw_parts(len(labels), seed)
    return _dataset("digits", 10, images, labels, parts, checksum=sha256_of(images, labels))


def diabetes(seed: int, train_size: int | None = None) -> Dataset:
    """scikit-learn's diabetes: 442 patients, 10 features, the disease's progress a year later.

    Source: Efron et al. 2004, "Least angle regression", section 1.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import StandardScaler

    features, targets = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    targets = targets[:, None]
    train, test = _draw_parts(len(targets), seed)
    train = train[:train_size]
    if len(train) < 2:  # One has no variance.
        raise UserError(
            "train_size: expected at least 2 examples of regression, got {}", len(train)
        )
    scalers: list[Any] = [StandardScaler().fit(x[train]) for x in (features, targets)]
    of_features, of_targets = scalers
    return _dataset(
        "diabetes",
        1,
        of_features.transform(features).astype(np.float32),
        of_targets.transform(targets).astype(np.float32),
        (train, test),
        checksum=sha256_of(features, targets),
        target_mean=of_targets.mean_.item(),
        target_scale=of_targets.scale_.item(),
    )


def small_and_noisy(data: Dataset, seed: int) -> Dataset:
    """The capacity curve's data: few examples, and a share of the training labels drawn anew.

    The test's labels stay right. Targets of regression do too: they are noisy by nature.
    """
    data = cut(data, CURVE_EXAMPLES, seed)
    if data.is_regression:
        return data
    rng = np.random.default_rng((seed, len(data.train)))
    labels = data.train.labels.copy()
    wrong = rng.random(len(labels)) < CURVE_NOISE
    labels[wrong] = rng.integers(0, data.num_classes, wrong.sum())
    return dataclasses.replace(data, train=Split(data.train.images, labels))


def _draw_parts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The training and the test examples' indices, drawn with the seed."""
    order = np.random.default_rng(seed).permutation(size)
    test_size = int(size * TEST_SHARE)
    return order[test_size:], order[:test_size]


def _dataset(name: str, num_classes: int, x: Any, y: Any, parts: Any, **others: Any) -> Dataset:
    """A data set without validation examples; parts are the training and test indices."""
    train, nothing, test = (Split(x[rows], y[rows]) for rows in (parts[0], slice(0), parts[1]))
    return Dataset(name, num_classes, train, nothing, test, **others)
