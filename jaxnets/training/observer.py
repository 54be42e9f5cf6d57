"""The protocol of a training's observers: progress bars, trackers, callbacks and checks."""

from collections.abc import Callable
from typing import Any

from jaxnets.data.batches import Batch
from jaxnets.metrics import Metrics, Sums
from jaxnets.training.step import Checkpoint, TrainState

Record = dict[str, Any]  # An epoch's line of metrics.jsonl.


class Observer:
    """Watches a training. Override the methods that you need; `training.loop` calls them."""

    # Whether `before_step` is called. An epoch is then never one compiled loop.
    sees_every_step = False

    def on_train_begin(self, start: Checkpoint) -> None:
        """Called once, with the progress from which the training starts."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before an epoch; epochs are counted from 0."""

    def before_step(self, step: int, state: TrainState, batch: Batch) -> None:
        """Called before every step: with the steps done, the state and the batch."""

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        """Called after steps: with their number of examples, and the epoch's metrics so far."""

    def on_gradient_check(self, error: float) -> None:
        """Called after each check of the gradients, with its relative error."""

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Called after an epoch and its validation. The next epoch donates the state."""

    def on_train_end(self) -> None:
        """Called once, also after an error, if the training has begun."""

    def on_test(self, test: Metrics) -> None:
        """Called with the metrics of the test images."""

    def on_finish(self, test: Metrics) -> None:
        """Called when the run folder holds the result of that test."""

    def should_stop(self) -> int:
        """Whether to stop before the next step: 0, or the number of a signal."""
        return 0

    def should_end(self) -> bool:
        """Whether to train no further epoch."""
        return False

    def should_save(self, step: int) -> bool:
        """Whether to save after this number of steps, within an epoch."""
        return False

    def on_save(self, checkpoint: Checkpoint) -> None:
        """Called where an observer asked for it."""


class Stop(Observer):
    """Stops a training when a function returns the number of a signal."""

    def __init__(self, signal_came: Callable[[], int]):
        self._signal_came = signal_came

    def should_stop(self) -> int:
        return self._signal_came()
