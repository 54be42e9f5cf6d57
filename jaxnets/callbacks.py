"""Callbacks as Keras has them, for `Network.fit`."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxnets.errors import UserError
from jaxnets.experiment import Record
from jaxnets.metrics import Metrics
from jaxnets.runs.terminal import Progress
from jaxnets.training import loop

Logs = dict[str, float]  # loss, accuracy, after an epoch also val_loss, val_accuracy and others.


class Callback:
    """The base class of callbacks, which `Network.fit` calls as it trains.

    Override the methods that you need.

    `self.model.stop_training = True` ends the training. Epochs and batches are counted from 0, as
    in Keras; `model` is the Network.
    """

    model: Any  # The Network.

    def on_train_begin(self, logs: Logs) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs) -> None: ...
    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a step, while the next two are on their way; the logs are the epoch's."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None: ...
    def on_train_end(self, logs: Logs) -> None: ...


def bar_for(verbose: int | str) -> bool | None:
    """The `bar` of a Progress: a notebook shows one, though its stdout is no terminal."""
    if verbose not in (1, "auto"):  # As in Keras.
        return False
    return type(sys.stdout).__module__.startswith("ipykernel") or None


NAMES = [name for name in vars(Callback) if name.startswith("on_")]


class Callbacks:
    """All callbacks of a training.

    The first error raised by a callback stops the training and is raised at the end. Raised in the
    middle of a step, it would cost the network its parameters.
    """

    def __init__(self, model: Any, callbacks: Any):
        given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
        self._model, self.error = model, None
        self.shown: Progress | None = None
        self._given = [self._complete(callback) for callback in given]

    def _complete(self, callback: Any) -> Any:
        """The callback itself, with its model; a function becomes one with on_epoch_end."""
        if inspect.isroutine(callback):
            function, callback = callback, Callback()
            callback.on_epoch_end = function
        elif isinstance(callback, type) or not any(hasattr(callback, name) for name in NAMES):
            raise UserError(
                "callbacks: expected a jaxnets.Callback or a function (epoch, logs), got "
                f"{callback!r:.80}"
            )
        callback.model = self._model
        return callback

    def for_loop(self, signal_came: Callable[[], int], batch_size: int) -> loop.Callbacks:
        """The loop's callbacks; with `on_train_batch_end` each step is taken alone."""
        ours = Callback.on_train_batch_end
        methods = [getattr(type(callback), ours.__name__, ours) for callback in self._given]
        want_batches = any(method is not ours for method in methods)

        def progress(images: int, metrics: Metrics) -> None:
            if self.shown is not None:
                self.shown.update(images, metrics)
            if want_batches:
                batch = -(-int(metrics.count) // batch_size) - 1
                logs = {"loss": metrics.loss, "accuracy": metrics.accuracy}
                self.call("on_train_batch_end", batch, logs)

        return loop.Callbacks(
            progress=progress,
            gradient_error=lambda error: self.shown and self.shown.gradient_error(error),
            stop=lambda: signal_came() or self._model.stop_training,
            before_step=(lambda *_: None) if want_batches else None,
        )

    def epoch(self, record: Record, logs: Logs) -> None:
        """Shows an epoch, and calls the callbacks at its end."""
        if self.shown is not None:
            self.shown.epoch(record)
        self.call("on_epoch_end", record["epoch"] - 1, logs)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a method of every callback that has it."""
        for callback in self._given:
            if (method := getattr(callback, name, None)) is not None:
                try:
                    method(*arguments)
                except Exception as error:
                    self.error = self.error or error
                    self._model.stop_training = True
