"""Callbacks like Keras's, for `Network.fit`."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from jaxnets.base.errors import UserError
from jaxnets.metrics import Sums
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import Checkpoint, TrainState

Logs = dict[str, float]  # loss, accuracy, after an epoch also val_loss, val_accuracy and others.


class Callback:
    """The base class of callbacks, which `Network.fit` calls as it trains.

    Override the methods that you need.

    `self.model.stop_training = True` ends the training. Epochs and batches are counted from 0, as
    in Keras; `model` is the Network.
    """

    model: Any  # The Network.

    def on_train_begin(self, logs: Logs) -> None:
        """Called before the first step.

        Args:
          logs: Empty.
        """

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Called before an epoch's first step.

        Args:
          epoch: Its number, counted from 0.
          logs: Empty.
        """

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a step, while the next two are being computed.

        Args:
          batch: The step's number in its epoch, counted from 0.
          logs: The epoch's training loss and accuracy so far.
        """

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after an epoch and its validation.

        Args:
          epoch: Its number, counted from 0.
          logs: Its record: losses, accuracies, learning rate.
        """

    def on_train_end(self, logs: Logs) -> None:
        """Called after the final step.

        Args:
          logs: The last epoch's record.
        """


def bar_for(verbose: int | str) -> bool | None:
    """The `bar` of a Progress: a notebook shows one, although its stdout is not a terminal."""
    if verbose not in (1, "auto"):  # As in Keras.
        return False
    return type(sys.stdout).__module__.startswith("ipykernel") or None


NAMES = [name for name in vars(Callback) if name.startswith("on_")]


class Callbacks(Observer):
    """All callbacks of a training.

    The first error raised by a callback stops the training and is raised at the end. Raised in the
    middle of a step, it would cost the network its parameters.
    """

    def __init__(self, model: Any, callbacks: Any):
        given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
        self._model, self.error = model, None
        self._given = [self._complete(callback) for callback in given]
        # If a callback defines `on_train_batch_end`, each step is taken separately.
        ours = Callback.on_train_batch_end
        methods = [getattr(type(callback), ours.__name__, ours) for callback in self._given]
        self.sees_every_step = any(method is not ours for method in methods)

    def _complete(self, callback: Any) -> Any:
        """The callback itself, with its model; a function becomes one with on_epoch_end."""
        if inspect.isroutine(callback):
            function, callback = callback, Callback()
            callback.on_epoch_end = function
        elif isinstance(callback, type) or not any(hasattr(callback, name) for name in NAMES):
            raise UserError(
                "callbacks: expected a jaxnets.Callback or a function (epoch, logs), got {}",
                f"{callback!r:.80}",
            )
        callback.model = self._model
        return callback

    def should_stop(self) -> int:
        return self._model.stop_training

    def should_end(self) -> bool:
        return self._model.stop_training

    def on_train_begin(self, start: Checkpoint) -> None:
        self.call("on_train_begin", {})

    def on_epoch_begin(self, epoch: int) -> None:
        self.call("on_epoch_begin", epoch, {})

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        if self.sees_every_step:
            batch = -(-int(metrics.count) // self._model.experiment.loader.batch_size) - 1
            self.call("on_train_batch_end", batch, {"loss": metrics.loss, **metrics.scores})

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self.call("on_epoch_end", record["epoch"] - 1, self._model.history.last)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a method of every callback that has it."""
        for callback in self._given:
            if (method := getattr(callback, name, None)) is not None:
                try:
                    method(*arguments)
                except Exception as error:
                    self.error = self.error or error
                    self._model.stop_training = True
