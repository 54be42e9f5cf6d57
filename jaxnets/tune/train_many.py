"""Trains runs side by side that differ in their seed, and perhaps in their learning rate."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.data.batches import Batch, epoch_order
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment, init_state
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.machine.platform import compiler_options_for_init
from jaxnets.models.batch_norm import statistics_of
from jaxnets.models.chain import has_layer
from jaxnets.networks.create import create_model
from jaxnets.training.loop import NonFiniteLossError, train_epochs
from jaxnets.training.observer import Observer, Record
from jaxnets.training.optimizer import create_schedule, optimizer_of
from jaxnets.training.scan import make_train_epoch
from jaxnets.training.step import Checkpoint, TrainState


class EpochBar(Observer):
    """Moves a bar by the number of epochs that end at the same time."""

    def __init__(self, bar: tqdm, epochs: int = 1):
        self._bar, self._epochs = bar, epochs

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._bar.update(self._epochs)


class TrainingSummary(NamedTuple):
    """The losses and accuracies at the end of one run."""

    train_loss: float  # The mean over the last epoch, before each update, as in metrics.jsonl.
    train_accuracy: float
    loss: float  # On the split that the runs are ranked by.
    accuracy: float


DIVERGED = TrainingSummary(math.nan, math.nan, math.nan, 0.0)


def summary_from_json(values: dict[str, Any]) -> TrainingSummary:
    """The summary that a file holds, null for NaN; TypeError or ValueError for anything else."""
    numbers = {name: math.nan if x is None else float(x) for name, x in values.items()}
    summary = TrainingSummary(**numbers)
    if not 0 <= summary.accuracy <= 1 or math.inf in map(abs, numbers.values()):
        raise ValueError(f"expected the summary of a run, found {values}")
    return summary


def held_out(data: Dataset) -> Dataset:
    """The first twelfth of the training images as validation images: 5,000 of MNIST's 60,000."""
    if not (count := len(data.train) // 12):
        raise UserError("expected 12 training images or more to search, found {}", len(data.train))
    return dataclasses.replace(data, train=data.train[count:], validation=data.train[:count])


def train_many(
    configs: Sequence[Config],
    data: Dataset,
    judge: Split,
    observers: Sequence[Observer] = (),
) -> list[TrainingSummary]:
    """Trains configs that differ in seed and learning_rate, each as if trained separately.

    Dense networks of one shape train in one compiled program, mapped over the runs: a layer with
    the same inputs in all runs is one wide matrix product, which is faster than its parts. A
    convolution mapped over its kernels is a grouped convolution, which is slow on a CPU: such
    networks train one after the other. The results are equal up to the order of sums. The observers
    watch each run's epochs, or those of all runs at once.
    """
    if can_vmap(configs[0]):
        return _train_vmapped(configs, data, judge, observers)
    summaries = []
    for config in configs:
        try:
            experiment = Experiment.create(config, data)
            summaries.append(train_one(experiment, judge, observers))
        except NonFiniteLossError:
            summaries.append(DIVERGED)
    return summaries


def can_vmap(config: Config) -> bool:
    """Whether runs of this config train side by side in one program."""
    if config.augment != "none" or config.steps_per_epoch is not None:
        return False
    return not has_layer(create_model(config, num_classes=2), nn.Conv)


def train_one(
    experiment: Experiment, judge: Split, observers: Sequence[Observer] = ()
) -> TrainingSummary:
    """Trains a single run, without validation."""
    data = dataclasses.replace(experiment.data, validation=experiment.data.train[:0])
    experiment = dataclasses.replace(experiment, data=data)
    state, history = experiment.train(with_gradient_check(experiment, observers))
    judged, last = experiment.evaluate(state.params, judge), history[-1]
    return TrainingSummary(last["train_loss"], last["train_accuracy"], judged.loss, judged.accuracy)


def _train_vmapped(
    configs: Sequence[Config], data: Dataset, judge: Split, observers: Sequence[Observer]
) -> list[TrainingSummary]:
    """Trains all runs at once: the one training step, mapped over them by jax.vmap."""
    experiment = Experiment.create(dataclasses.replace(configs[0], devices=1, parallel="jit"), data)
    config, loader, parallel = experiment.config, experiment.loader, experiment.parallel
    full = loader.steps == 1  # One batch has no order: all runs share it.
    # Every schedule is proportional to its peak, so each run only needs its own peak.
    shape = create_schedule(config.schedule, 1.0, config.epochs * loader.steps)

    statistics = statistics_of(experiment.model)

    def optimizer(peak: Any):
        return optimizer_of(config, lambda count: peak * shape(count), statistics)

    def init(key: jax.Array, peak: jax.Array) -> TrainState:
        return init_state(experiment.model, optimizer(peak), data, key)

    def step(state: TrainState, peak: jax.Array, batch: Batch):
        return experiment.train_step(experiment.loss_and_grad, optimizer(peak))(state, batch)

    keys = jax.vmap(jax.random.key)(jnp.array([config.seed for config in configs]))
    peaks = jnp.array([config.learning_rate for config in configs], float)
    options = compiler_options_for_init(parallel.platform)
    states = jax.jit(jax.vmap(init), compiler_options=options)(keys, peaks)
    steps = jax.vmap(step, in_axes=(0, 0, None if full else 0))
    train_epoch = make_train_epoch(lambda states, batch: steps(states, peaks, batch))
    compiled = parallel.compile(train_epoch, replicated=3, donate=True)
    images, labels = jax.device_put((np.asarray(loader.split.images), loader.split.labels))

    def run_epoch(start: Checkpoint, epoch: int) -> Checkpoint:
        runs = configs[:1] if full else configs
        orders = [epoch_order(len(data.train), loader.batch_size, run.seed, epoch) for run in runs]
        rows = orders[0] if full else jax.tree.map(lambda *rows: np.stack(rows, axis=1), *orders)
        states, metrics = compiled(start.state, images, labels, rows)
        return jax.block_until_ready(Checkpoint(states, metrics))

    ended: list[Checkpoint] = [Checkpoint(states)]

    def unvalidated(epoch: int, end: Checkpoint) -> tuple[TrainState, Record]:
        ended[:] = [end]
        return end.state, {"epoch": epoch + 1}

    epochs = range(config.epochs)
    for _ in train_epochs(run_epoch, unvalidated, ended[0], epochs, observers):
        pass
    states, metrics = ended[0].state, ended[0].metrics
    metrics = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(axis=0), metrics)

    def summary(run: int) -> TrainingSummary:
        params, last = jax.tree.map(lambda x: x[run], (states.params, metrics))
        try:
            judged = experiment.evaluate(params, judge)
        except NonFiniteLossError:
            return DIVERGED
        return TrainingSummary(last.loss, last.accuracy, judged.loss, judged.accuracy)

    return [summary(run) for run in range(len(configs))]
