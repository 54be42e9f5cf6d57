"""The models that are compared: the lecture's networks, and the review page's others.

The others are scikit-learn's: linear and logistic regression, KNN, K-means. scikit-learn is
optional, so it is imported where its models are fitted.
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
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.metrics import Metrics
from jaxnets.regression_metrics import RegressionMetrics
from jaxnets.runs.memory import check_enough_memory
from jaxnets.runs.run_folder import num_params
from jaxnets.training.step import Checkpoint, to_float
from jaxnets.tune.compare.recipes import CURVE, REGRESSION
from jaxnets.tune.compare.request import TASKS, Request
from jaxnets.tune.many import BAR

NEIGHBOURS = 5

Numbers = dict[str, Any]  # The values that training adds to a row (results.py).


def fit(model: str, hidden: int | None, request: Request, data: Dataset) -> Numbers:
    """Trains a model by its name; with a hidden size, a network of the capacity curve."""
    if model in TASKS[request.task].baselines:
        return fit_baseline(model, data, request.seed)
    changes: dict[str, Any] = {"validation_size": 0, "devices": 1, "seed": request.seed}
    if request.gradients == "manual":  # auto leaves mlp_handwritten its own gradients.
        changes["gradients"] = "manual"
    if hidden is not None:
        return fit_network(preset(**changes, **CURVE[request.task], hidden=(hidden,)), data)
    changes |= REGRESSION[model] if data.is_regression else {"model": model}
    if request.epochs is not None:
        changes["epochs"] = request.epochs
    return fit_network(preset(**changes), data)


def fit_network(config: Config, data: Dataset) -> Numbers:
    """Trains a network; no batch is larger than the training part."""
    if config.batch_size is not None:
        batch_size = min(config.batch_size, len(data.train))
        config = dataclasses.replace(config, batch_size=batch_size)
    started = time.perf_counter()
    experiment = Experiment.create(config, data)
    check_enough_memory(experiment)
    state = experiment.init_state()
    epochs, name = experiment.epochs(Checkpoint(state)), f"{data.name} {config.model}"
    for trained, _ in tqdm(epochs, name, config.epochs, **BAR):
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
        # Least squares in closed form: W, b minimise Σ (xW + b - y)². Labels are one-hot: the
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
    learnt = [np.asarray(getattr(model, part, ())) for part in parts]
    if name == "kmeans":
        counts = np.zeros((model.n_clusters, data.num_classes), int)
        np.add.at(counts, (model.labels_, y), 1)
        learnt.append(counts.argmax(axis=1))
    seconds = round(time.perf_counter() - started, 3)

    def evaluate(split: Split) -> Any:
        outputs = model.predict(_rows(split))
        if name == "kmeans":
            outputs = learnt[-1][outputs]
        if outputs.ndim == 1:  # Labels.
            outputs = np.eye(data.num_classes)[outputs]
        ones = jnp.ones(len(split))
        return metric(jnp.asarray(outputs), jnp.asarray(split.labels), 0 * ones, ones)

    return {
        "parameters": sum(map(np.size, learnt)) or None,
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
