"""An epoch in one compiled loop, over examples on the device.

This is fastest for dense networks, whose steps are short, and on a GPU or TPU, which then never
waits for the host. On the CPU a convolution is 10 to 20 times slower in such a loop (jax issue
12868).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from jaxnets.data.batches import Batch, epoch_order, shift_corners
from jaxnets.metrics import Sums
from jaxnets.training import loop
from jaxnets.training.crops import shift
from jaxnets.training.loader import TrainLoader
from jaxnets.training.observer import Observer
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import Checkpoint, TrainState, TrainStep

# After this many steps a compiled loop lets the host save or stop. An epoch of MNIST's 55,000
# images is one loop if a batch has 27 images or more.
STEPS_AT_ONCE = 2048

Rows = tuple[jax.Array, ...]  # The order, the mask and, for a shift, the corners.


def make_train_epoch(train_step: TrainStep) -> Callable[..., tuple[TrainState, Sums]]:
    """Returns epoch(state, images, labels, (order, mask[, corners])) -> (state, step metrics).

    The order and mask [S, B] are those of `data.batches.epoch_order`. If the images are shifted,
    the corners [S, B, 2] are those of `data.batches.shift_corners`. The metrics have a leading axis
    S.
    """

    def train_epoch(
        state: TrainState,
        images: Shaped[Array, "N *pixels"],
        labels: Shaped[Array, "N *K"],
        rows: Rows,
    ) -> tuple[TrainState, Sums]:
        if len(rows) == 2 and rows[0].shape == (1, len(images)):
            # A full batch has no order: no copy is needed.
            state, metrics = train_step(state, Batch(images, labels, rows[1][0]))
            return state, jax.tree.map(lambda x: x[None], metrics)

        def body(state: TrainState, row: Rows) -> tuple[TrainState, Sums]:
            indices, mask, *corners = row
            chosen = images[indices]
            if corners:
                chosen = shift(chosen, corners[0])
            return train_step(state, Batch(chosen, labels[indices], mask))

        return lax.scan(body, state, rows)

    return train_epoch


def order_of_steps(loader: TrainLoader, start: int, stop: int) -> tuple[np.ndarray, ...]:
    """The indices and the mask of a run's steps `start` to `stop`, from `epoch_order`."""
    size = loader.steps_per_pass
    passes = range(start // size, -(-stop // size))
    orders = [epoch_order(len(loader.split), loader.batch_size, loader.seed, n) for n in passes]
    cut = slice(start - passes[0] * size, stop - passes[0] * size)
    return tuple(np.concatenate(arrays)[cut] for arrays in zip(*orders, strict=True))


def rows_of_epoch(loader: TrainLoader, epoch: int) -> tuple[np.ndarray, ...]:
    """The order and mask of an epoch's steps and, if its images are shifted, their corners."""
    first = epoch * loader.steps
    rows = order_of_steps(loader, first, first + loader.steps)
    if loader.shifts_in(epoch):
        size, seed, steps = loader.batch_size, loader.seed, range(first, first + loader.steps)
        corners = [shift_corners(size, seed, *divmod(n, loader.steps_per_pass)) for n in steps]
        rows = (*rows, np.stack(corners))
    return rows


def rows_at_once(
    rows: tuple[np.ndarray, ...], loader: TrainLoader, parallel: Parallel, begin: int
) -> tuple[np.ndarray, ...]:
    """This process's part of an epoch's rows for the loop that continues at its step `begin`.

    The epoch is cut at the same steps, wherever it was resumed.
    """
    end = (begin // STEPS_AT_ONCE + 1) * STEPS_AT_ONCE
    return tuple(array[begin:end, parallel.rows(loader.batch_size)] for array in rows)


def compile_scan(train_step: TrainStep, parallel: Parallel) -> Callable[..., Any]:
    """The function of `make_train_epoch`, compiled for the devices; its state is donated."""
    return parallel.compile(make_train_epoch(train_step), replicated=3, axis=1, donate=True)


def scanned_epoch(
    train_step: TrainStep,
    loader: TrainLoader,
    parallel: Parallel,
    observers: Sequence[Observer],
) -> loop.RunEpoch:
    """An epoch in one compiled loop, cut after every STEPS_AT_ONCE steps, to save or stop."""
    compiled = compile_scan(train_step, parallel)
    images, labels = parallel.replicate((np.asarray(loader.split.images), loader.split.labels))

    def run_epoch(start: Checkpoint, epoch: int) -> Checkpoint:
        started = time.perf_counter() - start.seconds
        state, metrics, done = start.state, start.metrics, int(start.state.step)
        first = epoch * loader.steps
        rows = rows_of_epoch(loader, epoch)

        def reached() -> Checkpoint:
            jax.block_until_ready(state)
            seconds = time.perf_counter() - started
            return Checkpoint(state, metrics, seconds, start.data_seconds)

        while (begin := done - first) < loader.steps:
            loop.stop_or_save(done, reached, observers, begun=begin > 0)
            part = parallel.split(rows_at_once(rows, loader, parallel, begin), axis=1)
            state, stacked = compiled(state, images, labels, part)
            stacked = loop.on_host(stacked)
            for loss_sum in np.asarray(stacked.loss_sum):
                done += 1
                loop.check_finite(loss_sum, f"step {done}")
            total = jax.tree.map(lambda x: x.sum(axis=0), stacked)
            metrics = loop.accumulate_metrics(metrics, total, f"step {done}")
            for observer in observers:
                observer.on_steps_end(int(total.count), metrics)
        return reached()

    return run_epoch
