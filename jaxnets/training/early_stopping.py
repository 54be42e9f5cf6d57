"""Ends training before its last epoch: at its target, or when the loss no longer falls.

Source: Prechelt 1998, "Early Stopping - But When?"; the epochs are counted as Keras' EarlyStopping
counts them.
"""

from collections.abc import Sequence
from typing import Any

from jaxnets.config.fields import Config
from jaxnets.display import four_digits
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import TrainState


class EarlyStopping(Observer):
    """Ends a training when `why_stopped` has a reason, which it keeps."""

    def __init__(
        self, history: Sequence[Record], patience: int | None = None, target: float | None = None
    ):
        """Takes the records of the epochs before, and the arguments of `why_stopped`."""
        self._history, self._limits = list(history), (patience, target)

    @property
    def reason(self) -> str | None:
        return why_stopped(self._history, *self._limits)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._history.append(record)

    def should_end(self) -> bool:
        return self.reason is not None


def early_stopping(config: Config, history: Sequence[Record]) -> EarlyStopping:
    """The observer that a config asks for; the records are those of the epochs before."""
    target = config.target_accuracy if config.stop_at_target else None
    return EarlyStopping(history, config.early_stopping, target)


def why_stopped(
    history: Sequence[dict[str, Any]], patience: int | None = None, target: float | None = None
) -> str | None:
    """Says why training ends after an epoch, or None if it continues.

    It ends when an epoch's validation accuracy is the target or more, and after `patience` epochs
    without a validation loss below the lowest one.

    Args:
      history: The records of all epochs until now.
      patience: 1 or more; None waits for ever.
      target: The validation accuracy from 0 to 1 that is enough; None for none.

    >>> losses = [0.4, 0.2, 0.3, 0.2]
    >>> history = [{"epoch": n, "validation_loss": x} for n, x in enumerate(losses, start=1)]
    >>> why_stopped(history, patience=2)
    'stopped early: no validation loss below the 0.2000 of epoch 2 in 2 epochs'
    >>> why_stopped(history, patience=3)
    >>> why_stopped([{"epoch": 1, "validation_accuracy": 0.9912}], target=0.99)
    'stopped at the target: validation accuracy 0.9912 after epoch 1'
    """
    if target is not None and history:
        last = history[-1]
        accuracy = last.get("validation_accuracy")
        if accuracy is not None and accuracy >= target:
            reached = f"validation accuracy {accuracy:.4f} after epoch {last['epoch']}"
            return f"stopped at the target: {reached}"
    validated = [record for record in history if record.get("validation_loss") is not None]
    best = min(validated, key=lambda record: record["validation_loss"], default=None)
    if patience is None or best is None or history[-1]["epoch"] - best["epoch"] < patience:
        return None
    lowest = f"{four_digits(best['validation_loss'])} of epoch {best['epoch']}"
    epochs = "1 epoch" if patience == 1 else f"{patience} epochs"
    return f"stopped early: no validation loss below the {lowest} in {epochs}"
