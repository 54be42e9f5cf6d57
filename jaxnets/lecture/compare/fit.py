"""Trains one model on one data set and scores it: a network, or a baseline of scikit-learn's."""

import dataclasses
import functools
import time
from typing import Any, cast

import jax
import numpy as np
from tqdm import tqdm

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.config.fields import Config
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import compiled_init, create_model, create_state, epochs, evaluate
from jaxnets.lecture.compare.baselines import CLASSIFIERS, REGRESSORS
from jaxnets.lecture.compare.recipes import Recipe
from jaxnets.lecture.compare.samples import Table
from jaxnets.losses import squared_error
from jaxnets.machine.platform import prepare
from jaxnets.metrics import MetricFunction, Metrics, RegressionMetrics
from jaxnets.models.chain import Chain
from jaxnets.models.mlp import mlp
from jaxnets.runs.run import num_params
from jaxnets.training import loop
from jaxnets.training.augment import to_float
from jaxnets.training.optimizer import create_optimizer
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import autodiff_loss_and_grad, make_eval_step, make_train_step

Scores = dict[str, float]  # accuracy, or mse, r2 and wmape.


@dataclasses.dataclass(frozen=True)
class Fit:
    """A model that was trained.

    Attributes:
      parameters: How many numbers it learnt; None where it keeps the examples instead.
      epochs: Passes over the training examples; None for a baseline.
      train: Scores of the training examples, by the trained model.
      test: Scores of the test examples.
      seconds: Of the training, a network's compilation included.
    """

    parameters: int | None
    epochs: int | None
    train: Scores
    test: Scores
    seconds: float


def fit_classifier(config: Config, data: Dataset) -> Fit:
    """A network of the lecture by its recipe; no batch is larger than the training part.

    Raises:
      UserError: The images are too small for the network.
      RunFailedError: Its loss became infinite or NaN.
    """
    if config.batch_size is not None:
        batch_size = min(config.batch_size, len(data.train))
        config = dataclasses.replace(config, batch_size=batch_size)
    started = time.perf_counter()
    model = create_model(config, data)
    state = create_state(config, model, data)
    steps = epochs(config, model, loop.Checkpoint(state), data)
    for trained, _ in _bar(steps, config.epochs, f"{data.name} {config.model}"):
        state = trained
    seconds = time.perf_counter() - started
    train, test = (
        _scores(evaluate(config, model, state.params, split)) for split in (data.train, data.test)
    )
    return Fit(num_params(state.params), config.epochs, train, test, seconds)


def fit_regressor(recipe: Recipe, table: Table, seed: int, gradients: str) -> Fit:
    """A dense network with the squared error; scores in the target's own units.

    Raises:
      RunFailedError: Its loss became infinite or NaN.
    """
    started = time.perf_counter()
    model, params = train_regressor(recipe, table, seed, gradients)
    seconds = time.perf_counter() - started
    parallel = _one_device()
    step = parallel.compile(make_eval_step(model.apply, squared_error, metric=_measure(table)))
    train, test = (
        _scores(loop.evaluate(step, params, split, parallel)) for split in (table.train, table.test)
    )
    return Fit(num_params(params), recipe.epochs, train, test, seconds)


def train_regressor(
    recipe: Recipe, table: Table, seed: int, gradients: str
) -> tuple[Chain, dict[str, Any]]:
    """The network and its trained parameters.

    Args:
      recipe: Sizes and training.
      table: Standardised.
      seed: Of parameters and order.
      gradients: "auto" by jax.grad, "manual" by hand.
    """
    parallel = _one_device()
    model = mlp(num_classes=table.num_classes, hidden=recipe.hidden)
    optimizer = create_optimizer(recipe.optimizer, recipe.learning_rate, momentum=recipe.momentum)
    if gradients == "manual":
        loss_and_grad = manual_loss_and_grad(model, "squared_error")
    else:
        loss_and_grad = autodiff_loss_and_grad(model.apply, squared_error)
    size = min(recipe.batch_size or len(table.train), len(table.train))
    loader = loop.TrainLoader(table.train, size, seed)
    run_epoch = loop.scanned_epoch(
        make_train_step(loss_and_grad, optimizer), loader, parallel, loop.Callbacks()
    )
    init = compiled_init(model, optimizer, table)
    state = parallel.replicate(init(jax.random.key(seed)))
    for epoch in _bar(range(recipe.epochs), recipe.epochs, f"{table.name} {recipe.hidden}"):
        state, *_ = run_epoch(loop.Checkpoint(state), epoch)
    return model, jax.block_until_ready(state.params)


def fit_baseline(name: str, data: Dataset, seed: int) -> Fit:
    """A model of scikit-learn's on rows of pixels or features."""
    started = time.perf_counter()
    x, labels = _rows(data.train), data.train.labels
    if isinstance(data, Table):
        predict, parameters = REGRESSORS[name](x, labels)
    else:
        predict, parameters = CLASSIFIERS[name](x, labels, data.num_classes, seed)
    seconds = time.perf_counter() - started

    def score(split: Split) -> Scores:
        predicted = predict(_rows(split))
        if not isinstance(data, Table):
            return {"accuracy": float(np.mean(predicted == split.labels))}
        losses, mask = squared_error(predicted, split.labels), np.ones(len(split))  # type: ignore
        return _scores(_measure(data)(predicted, split.labels, losses, mask))  # type: ignore

    return Fit(parameters, None, score(data.train), score(data.test), seconds)


def _rows(split: Split) -> np.ndarray:
    return to_float(split.images).reshape(len(split), -1)


def _measure(table: Table) -> MetricFunction:
    """Regression's sums in the target's own units."""
    return functools.partial(RegressionMetrics.of, mean=table.mean, scale=table.scale)


def _scores(metrics: Any) -> Scores:
    if isinstance(metrics, Metrics):
        return {"accuracy": metrics.accuracy}
    metrics = cast(RegressionMetrics, metrics)
    return {"mse": metrics.mse, "r2": metrics.r2, "wmape": metrics.wmape}


def _one_device() -> Parallel:
    return Parallel(prepare(1), "jit")


def _bar(epochs: Any, total: int, name: str) -> Any:
    """The same epochs behind a bar, on stderr and only if that is a terminal."""
    return tqdm(epochs, name, total, leave=False, disable=None, unit="epoch", dynamic_ncols=True)
