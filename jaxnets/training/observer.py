"""The protocol of a training's observers: progress bars, trackers, callbacks and checks.

Two of them end a training: `Stop` after a signal, `EarlyStopping` at a target or when the loss no
longer falls.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxnets.base.display import four_digits
from jaxnets.base.language import N_, Text
from jaxnets.config.fields import Config
from jaxnets.data.batches import Batch
from jaxnets.metrics import Metrics, Sums
from jaxnets.training.step import Checkpoint, TrainState

Record = dict[str, Any]  # An epoch's line of metrics.jsonl.

AT_TARGET = N_("stopped at the target: validation accuracy {} after epoch {}")
FALLEN = 0.5  # Of the peak of the learning rate: from there on early stopping counts epochs.
EARLY = N_("stopped early: no validation loss below the {} of epoch {} in 1 epoch")
EARLY_OF = N_("stopped early: no validation loss below the {} of epoch {} in {} epochs")


class Observer:
    """Watches a training. Override the methods that you need; `training.loop` calls them."""

    # Whether `before_step` is called. An epoch is then never one compiled loop.
    sees_every_step = False
    # Whether it compares both gradients, as gradients="both" asks.
    compares_gradients = False

    def on_train_begin(self, start: Checkpoint) -> None:
        """Called once, with the progress from which the training starts."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before an epoch; epochs are counted from 0."""

    def before_step(self, step: int, state: TrainState, batch: Batch) -> None:
        """Called before every step: with the steps done, the state and the batch."""

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        """Called after steps, with their number of examples and the epoch's metrics so far."""

    def on_gradient_check(self, error: float) -> None:
        """Called after each check of the gradients, with its relative error."""

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Called after an epoch and its validation. The next epoch donates the state."""

    def on_train_end(self) -> None:
        """Called once at the end, even after an error, if the training has begun."""

    def on_test(self, test: Metrics) -> None:
        """Called with the metrics of the test images."""

    def on_finish(self, test: Metrics | None) -> None:
        """Called when the run folder holds the result of that test; None with test=False."""

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
        """Called when an observer has asked to save."""


class Stop(Observer):
    """Stops a training when a function returns the number of a signal."""

    def __init__(self, signal_came: Callable[[], int]):
        self._signal_came = signal_came

    def should_stop(self) -> int:
        return self._signal_came()


class EarlyStopping(Observer):
    """Ends a training before its last epoch when `why_stopped` has a reason."""

    def __init__(self, config: Config, history: Sequence[Record]):
        """Takes the config's limits, and the records of the earlier epochs."""
        target = config.target_accuracy if config.stop_at_target else None
        self._history, self._limits = list(history), (config.early_stopping, target)

    @property
    def reason(self) -> Text | None:
        return why_stopped(self._history, *self._limits)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._history.append(record)

    def should_end(self) -> bool:
        return self.reason is not None


def why_stopped(
    history: Sequence[dict[str, Any]], patience: int | None = None, target: float | None = None
) -> Text | None:
    """Says why training ends after an epoch, or None if it continues.

    It ends when an epoch's validation accuracy reaches the target, or after `patience` epochs
    without a validation loss below the lowest one. Source: Prechelt 1998, "Early Stopping - But
    When?"; the epochs are counted as Keras's EarlyStopping counts them. If the learning rate first
    rises, as in one cycle, they are counted once it has fallen to half of its peak: near the peak
    a loss is high, and falls again with the rate.

    Args:
      history: The records of all epochs until now.
      patience: 1 or more; None waits for ever.
      target: The validation accuracy, from 0 to 1, that ends training; None for none.

    >>> losses = [0.4, 0.2, 0.3, 0.2]
    >>> history = [{"epoch": n, "validation_loss": x} for n, x in enumerate(losses, start=1)]
    >>> print(why_stopped(history, patience=2))
    stopped early: no validation loss below the 0.2000 of epoch 2 in 2 epochs
    >>> why_stopped(history, patience=3)
    >>> for record, rate in zip(history, [0.1, 0.5, 1.0, 0.4]):
    ...     record["learning_rate"] = rate
    >>> why_stopped(history, patience=2)
    >>> print(why_stopped(history, patience=1))
    stopped early: no validation loss below the 0.2000 of epoch 2 in 2 epochs
    >>> print(why_stopped([{"epoch": 1, "validation_accuracy": 0.9912}], target=0.99))
    stopped at the target: validation accuracy 0.9912 after epoch 1
    """
    if target is not None and history:
        last = history[-1]
        accuracy = last.get("validation_accuracy")
        if accuracy is not None and accuracy >= target:
            return Text(AT_TARGET, f"{accuracy:.4f}", last["epoch"])
    validated = [record for record in history if record.get("validation_loss") is not None]
    best = min(validated, key=lambda record: record["validation_loss"], default=None)
    if patience is None or best is None:
        return None
    last, begin = history[-1]["epoch"], _high_until([r.get("learning_rate") for r in history])
    if last - max(best["epoch"], begin) < patience:
        return None
    lowest, count = four_digits(best["validation_loss"]), last - best["epoch"]
    text = EARLY if count == 1 else EARLY_OF
    return Text(text, lowest, best["epoch"], count)


def _high_until(rates: Sequence[float | None]) -> int:
    """The last epoch, from 1, with a rate above FALLEN of the peak; 0 if the rate never rose.

    Args:
      rates: The learning rate at the end of each epoch until now; None with a user's own optimizer.
    """
    known = [rate for rate in rates if rate is not None]
    if not known or known[0] == max(known):
        return 0
    return max(epoch for epoch, rate in enumerate(known, start=1) if rate > FALLEN * max(known))
