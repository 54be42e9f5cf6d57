"""Runs that differ in their seed, and perhaps in their learning rate: trained side by side."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.config.fields import Config
from jaxnets.data.batches import Batch, epoch_order, eval_batches
from jaxnets.data.datasets import Dataset, Split, without_validation
from jaxnets.experiment import (
    create_model,
    create_parallel,
    create_state,
    epochs,
    evaluate,
    gradients_of,
    init_state,
    optimizer_of,
    schedule_of,
    with_nonzero_pixels,
)
from jaxnets.losses import LOSSES
from jaxnets.machine.platform import compiler_options_for_init
from jaxnets.metrics import Metrics
from jaxnets.models.chain import Chain, has_convolution
from jaxnets.training.augment import to_float
from jaxnets.training.loop import EVAL_BATCH_SIZE, Callbacks, Checkpoint, NonFiniteLossError
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import (
    LossAndGrad,
    TrainState,
    apply_gradients,
    make_eval_step,
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Attributes:
      train_loss: Over the last epoch, before each update, as in metrics.jsonl.
      train_accuracy: The same.
      loss: Of the split on which the runs are judged.
      accuracy: The same.
    """

    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float


Progress = Callable[[], Any]  # Called after every epoch of every run, or of all runs at once.


def train_many(
    configs: Sequence[Config], data: Dataset, judge: Split, progress: Progress = lambda: None
) -> list[Outcome]:
    """Trains every config; each comes out as if trained alone, but for the order of sums.

    Dense networks of one shape train in one compiled program, mapped over the runs: a layer whose
    inputs are the same for all of them is one wide matrix product, faster than its parts. A
    convolution mapped over its kernels is a grouped one, which is slow on a CPU: such networks
    train one after the other.

    Args:
      configs: Equal but for seed and learning_rate.
      data: Its train split is trained on.
      judge: The split whose loss and accuracy are reported.
      progress: Who looks on.
    """
    if can_vmap(configs[0], data):
        return _train_vmapped(configs, data, judge, progress)
    outcomes = []
    for config in configs:
        try:
            outcomes.append(train_one(config, data, judge, lambda record: progress()))
        except NonFiniteLossError:  # It diverged; side by side, the same shows as NaN and no hits.
            outcomes.append(Outcome(math.nan, math.nan, math.nan, 0.0))
    return outcomes


def can_vmap(config: Config, data: Dataset) -> bool:
    """Whether such runs train in one program."""
    return not has_convolution(create_model(config, data)) and config.augment == "none"


def train_one(
    config: Config,
    data: Dataset,
    judge: Split,
    each: Callable[[dict[str, Any]], Any],
    callbacks: Callbacks | None = None,
) -> Outcome:
    """Trains one config by itself.

    Args:
      config: The recipe.
      data: Its train split is trained on.
      judge: The split whose loss and accuracy are reported; it is looked at once, at the end.
      each: Called with every epoch's record.
      callbacks: Who looks on.

    Raises:
      NonFiniteLossError: It diverged.
    """
    model = create_model(config, data)
    start = Checkpoint(create_state(config, model, data))
    last = None
    for trained in epochs(config, model, start, without_validation(data), callbacks):
        last = trained
        each(trained[1])
    assert last is not None  # A run has an epoch at least.
    state, record = last
    metrics = evaluate(config, model, state.params, judge)
    return Outcome(record["train_loss"], record["train_accuracy"], metrics.loss, metrics.accuracy)


def _train_vmapped(
    configs: Sequence[Config], data: Dataset, judge: Split, progress: Progress
) -> list[Outcome]:
    config, size = configs[0], configs[0].batch_size or len(data.train)
    model = create_model(config, data)
    parallel = create_parallel(dataclasses.replace(config, devices=1))
    # Every schedule is proportional to its peak, so the peak is a number of the run.
    shape = schedule_of(dataclasses.replace(config, learning_rate=1.0), data)

    def optimizer(peak: Any):
        return optimizer_of(config, data, lambda count: peak * shape(count))

    def apply(state: TrainState, gradients: Any, count: jax.Array, peak: jax.Array) -> TrainState:
        return apply_gradients(state, gradients, count, optimizer(peak), config.reduction)

    def init(key: jax.Array, peak: jax.Array) -> TrainState:
        return init_state(model, optimizer(peak), data, key)

    peaks = jnp.array([config.learning_rate for config in configs], jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.array([config.seed for config in configs]))
    full = size == len(data.train)  # One batch has no order: all runs share it.

    def make_loss_and_grad(**options: Any) -> LossAndGrad:
        loss_and_grad = gradients_of(config, model, **options)
        return jax.vmap(loss_and_grad, in_axes=(0, None if full else 0, None))

    gradients, split = (
        with_nonzero_pixels(make_loss_and_grad, model, data.train)
        if full
        else (make_loss_and_grad(), data.train)
    )
    no_key = jax.random.key(0)  # Nothing is dropped in a dense network.

    def run_epoch(states: TrainState, peaks: jax.Array, images: jax.Array, labels: jax.Array, rows):
        def step(states: TrainState, row):
            indices, mask = row
            batch = (
                Batch(images, labels, mask)
                if full
                else Batch(images[indices], labels[indices], mask)
            )
            batch = batch._replace(images=to_float(batch.images))
            metrics, summed = gradients(states.params, batch, no_key)
            return jax.vmap(apply)(states, summed, metrics.count, peaks), metrics

        return lax.scan(step, states, rows)

    compiled = parallel.compile(run_epoch, replicated=4, donate=True)
    init = jax.jit(jax.vmap(init), compiler_options=compiler_options_for_init())
    states = init(keys, peaks)
    images, labels = jax.device_put((np.asarray(split.images), split.labels))
    metrics = None
    for epoch in range(config.epochs):
        drawn = configs[:1] if full else configs
        orders = [epoch_order(len(data.train), size, run.seed, epoch) for run in drawn]
        rows = orders[0] if full else jax.tree.map(lambda *rows: np.stack(rows, axis=1), *orders)
        states, metrics = compiled(states, peaks, images, labels, rows)
        jax.block_until_ready(states)
        progress()

    trained = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(axis=0), metrics)
    judged = _evaluate(config, model, states.params, judge, parallel)
    return [
        Outcome(
            train_loss=float(trained.loss_sum[run] / trained.count[run]),
            train_accuracy=float(trained.correct[run] / trained.count[run]),
            loss=float(judged.loss_sum[run] / judged.count[run]),
            accuracy=float(judged.correct[run] / judged.count[run]),
        )
        for run in range(len(configs))
    ]


def _evaluate(
    config: Config, model: Chain, params: Any, split: Split, parallel: Parallel
) -> Metrics:
    """The sums over a split, each with a leading axis of runs."""
    step = jax.vmap(make_eval_step(model.apply, LOSSES[config.loss]), in_axes=(0, None))
    compiled = parallel.compile(step)
    parts = [
        jax.tree.map(lambda x: np.asarray(x, np.float64), compiled(params, batch))
        for batch in eval_batches(split, EVAL_BATCH_SIZE)
    ]
    return jax.tree.map(lambda *sums: np.sum(sums, axis=0), *parts)
