"""Trains one model on one data set and scores it: a network, or a baseline of scikit-learn's."""

import dataclasses
import functools
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.lecture.compare.baselines import CLASSIFIERS, REGRESSORS
from jaxnets.losses import squared_error
from jaxnets.metrics import RegressionMetrics
from jaxnets.runs.run import num_params
from jaxnets.training.augment import to_float
from jaxnets.training.loop import Checkpoint

Scores = dict[str, float]  # accuracy, or mse, r2 and wmape.


@dataclasses.dataclass(frozen=True)
class Fit:
    """A model that was trained.

    Attributes:
      parameters: How many numbers it learnt; None where it keeps the examples instead.
      epochs: Passes over the training examples; None for a baseline.
      train: Scores of the training examples, by the trained model.
      test: Scores of the test examples.
      seconds: The time of training, a network's compilation included.
    """

    parameters: int | None
    epochs: int | None
    train: Scores
    test: Scores
    seconds: float


def fit_network(config: Config, data: Dataset) -> Fit:
    """Trains a network; no batch is larger than the training part.

    Raises:
      UserError: The images are too small for the network.
      RunFailedError: Its loss became infinite or NaN.
    """
    if config.batch_size is not None:
        batch_size = min(config.batch_size, len(data.train))
        config = dataclasses.replace(config, batch_size=batch_size)
    started = time.perf_counter()
    experiment = Experiment.create(config, data)
    state = experiment.init_state()
    epochs = experiment.epochs(Checkpoint(state))
    for trained, _ in _bar(epochs, config.epochs, f"{data.name} {config.model}"):
        state = trained
    seconds = time.perf_counter() - started
    train, test = (
        _scores(experiment.evaluate(state.params, split, ten_crop=False), data)
        for split in (data.train, data.test)
    )
    return Fit(num_params(state.params), config.epochs, train, test, seconds)


def fit_baseline(name: str, data: Dataset, seed: int) -> Fit:
    """Trains a model of scikit-learn's on rows of pixels or features."""
    started = time.perf_counter()
    x, labels = _rows(data.train), data.train.labels
    if data.is_regression:
        predict, parameters = REGRESSORS[name](x, labels)
    else:
        predict, parameters = CLASSIFIERS[name](x, labels, data.num_classes, seed)
    seconds = time.perf_counter() - started

    def score(split: Split) -> Scores:
        predicted: Any = predict(_rows(split))
        if not data.is_regression:
            return {"accuracy": float(np.mean(predicted == split.labels))}
        outputs, targets = jnp.asarray(predicted), jnp.asarray(split.labels)
        losses, mask = squared_error(outputs, targets), jnp.ones(len(split))
        mean, scale = data.target_mean, data.target_scale
        metric = functools.partial(RegressionMetrics.of, mean=mean, scale=scale)
        return _scores(metric(outputs, targets, losses, mask), data)

    return Fit(parameters, None, score(data.train), score(data.test), seconds)


def _rows(split: Split) -> np.ndarray:
    return to_float(split.images).reshape(len(split), -1)


def _scores(metrics: Any, data: Dataset) -> Scores:
    names = ("mse", "r2", "wmape") if data.is_regression else ("accuracy",)
    return {name: getattr(metrics, name) for name in names}


def _bar(epochs: Any, total: int, name: str) -> Any:
    """The same epochs behind a bar, on stderr and only if that is a terminal."""
    return tqdm(epochs, name, total, leave=False, disable=None, unit="epoch", dynamic_ncols=True)
