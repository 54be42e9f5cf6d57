"""The epochs of a training, step by step."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxnets.base.errors import RunFailedError
from jaxnets.base.language import Text
from jaxnets.data.batches import prefetch
from jaxnets.metrics import Sum, Sums
from jaxnets.training.loader import TrainLoader
from jaxnets.training.observer import Observer, Record
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import Checkpoint, TrainState, TrainStep

IN_FLIGHT = 2  # Steps dispatched ahead of the last result: enough to keep an accelerator busy.


class NonFiniteLossError(RunFailedError):
    """The loss or the parameters became infinite or NaN; the message names the step."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run; `checkpoint` is the run's progress, `signal` the signal's number."""

    saved: Text | None = None  # The part of it that a run folder keeps.

    def __init__(self, checkpoint: Checkpoint, signal: int):
        super().__init__(f"interrupted after step {int(checkpoint.state.step)}")
        self.checkpoint, self.signal = checkpoint, signal


RunEpoch = Callable[[Checkpoint, int], Checkpoint]  # (start, epoch) -> the epoch's end


def train_epochs(
    run_epoch: RunEpoch,
    validated: Callable[[int, Checkpoint], tuple[TrainState, Record]],
    start: Checkpoint,
    epochs: range,
    observers: Sequence[Observer] = (),
) -> Iterator[tuple[TrainState, Record]]:
    """The loop of every training: epoch by epoch, until the last one or until an observer ends it.

    Args:
      run_epoch: Trains one epoch.
      validated: (epoch, its end) -> the state with which the next begins, and the epoch's record.
      start: Where to start. Its state is donated, and each yielded state is donated as soon as the
        next epoch begins: do not use it afterwards.
      epochs: The numbers of the epochs, counted from 0.
      observers: The observers, called in this order.

    Yields:
      The state after an epoch, and the epoch's record.
    """
    with contextlib.ExitStack() as stack:
        for observer in observers:
            observer.on_train_begin(start)
            stack.callback(observer.on_train_end)
        for epoch in epochs:
            for observer in observers:
                observer.on_epoch_begin(epoch)
            state, record = validated(epoch, run_epoch(start, epoch))
            for observer in observers:
                observer.on_epoch_end(record, state)
            yield state, record
            if any(observer.should_end() for observer in observers):
                break
            start = Checkpoint(state)


def compile_step(train_step: TrainStep, parallel: Parallel) -> TrainStep:
    """The step, compiled for the devices; its state is donated."""
    return parallel.compile(train_step, donate=True)


def stepped_epoch(
    train_step: TrainStep, loader: TrainLoader, parallel: Parallel, observers: Sequence[Observer]
) -> RunEpoch:
    """An epoch with steps dispatched from Python, while a thread prepares the next batches.

    A device computes while Python goes on: the metrics of a step are read when IN_FLIGHT later
    steps have been dispatched, so that Python does not wait for each.
    """
    compiled = compile_step(train_step, parallel)

    def run_epoch(start: Checkpoint, epoch: int) -> Checkpoint:
        started = time.perf_counter() - start.seconds
        state, metrics, data_seconds = start.state, start.metrics, start.data_seconds
        done = int(state.step)
        pending: collections.deque[Sums] = collections.deque()

        def collect(leave: int) -> None:
            """Waits for the oldest steps until so many are left, and adds their metrics up."""
            nonlocal metrics, done
            while len(pending) > leave:
                before = 0 if metrics is None else int(metrics.count)
                done += 1
                metrics = accumulate_metrics(metrics, pending.popleft(), f"step {done}")
                for observer in observers:
                    observer.on_steps_end(int(metrics.count) - before, metrics)

        def reached() -> Checkpoint:
            """Waits for all steps dispatched so far."""
            collect(leave=0)
            jax.block_until_ready(state)
            return Checkpoint(state, metrics, time.perf_counter() - started, data_seconds)

        batches = loader.batches(done, (epoch + 1) * loader.steps, parallel.rows(loader.batch_size))
        with contextlib.closing(prefetch(map(parallel.split, batches))) as ready:
            while True:
                asked = time.perf_counter()
                batch = next(ready, None)
                data_seconds += time.perf_counter() - asked
                if batch is None:
                    break
                stop_or_save(done + len(pending), reached, observers)
                for observer in observers:
                    if observer.sees_every_step:
                        observer.before_step(done + len(pending), state, batch)
                state, step_metrics = compiled(state, batch)
                pending.append(step_metrics)
                collect(leave=IN_FLIGHT)
        return reached()

    return run_epoch


def stop_or_save(
    step: int,
    reached: Callable[[], Checkpoint],
    observers: Sequence[Observer],
    *,
    begun: bool = True,
) -> None:
    """Stops before a step, or saves, if an observer asks for it.

    Args:
      step: The number of steps done.
      reached: Waits for these steps and returns their checkpoint.
      observers: The observers, asked in this order.
      begun: Whether the epoch has begun: its start needs no save.

    Raises:
      Interrupted: A signal came.
    """
    if signal := next(filter(None, (observer.should_stop() for observer in observers)), 0):
        raise Interrupted(reached(), signal)
    for observer in observers:
        if begun and observer.should_save(step):
            observer.on_save(reached())


def accumulate_metrics(total: Sums | None, metrics: Sums, where: str) -> Sums:
    """Adds a batch's metrics on the host, in 64 bits, where an epoch's sums are exact."""
    metrics = on_host(metrics)
    if total is not None:
        with np.errstate(over="ignore"):  # Losses may be near the largest float64.
            metrics = jax.tree.map(np.add, total, metrics)
    check_finite(metrics.loss_sum, where)
    return metrics


def on_host(metrics: Sums) -> Sums:
    """The same numbers in 64 bits."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64 if np.issubdtype(x.dtype, np.floating) else np.int64),
        metrics,
    )


def check_finite(loss_sum: Sum, where: str) -> None:
    """Raises NonFiniteLossError if a loss is infinite or NaN; the message says where."""
    if not np.isfinite(loss_sum):
        raise NonFiniteLossError("the loss of {} is {}", where, loss_sum)
