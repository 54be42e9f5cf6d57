"""Early stopping: training ends when the validation loss has stopped falling.

Source: Prechelt 1998, "Early Stopping - But When?"; the epochs are counted as Keras' EarlyStopping
counts them.
"""

from collections.abc import Sequence
from typing import Any


def why_stopped(history: Sequence[dict[str, Any]], patience: int) -> str | None:
    """Says why training ends after an epoch, or None if it continues.

    It ends after `patience` epochs without a validation loss below the lowest one.

    Args:
      history: The records of all epochs until now.
      patience: 1 or more.

    >>> losses = [0.4, 0.2, 0.3, 0.2]
    >>> history = [{"epoch": n, "validation_loss": x} for n, x in enumerate(losses, start=1)]
    >>> why_stopped(history, patience=2)
    'stopped early: no validation loss below the 0.2000 of epoch 2 in 2 epochs'
    >>> why_stopped(history, patience=3)
    """
    validated = [record for record in history if record.get("validation_loss") is not None]
    best = min(validated, key=lambda record: record["validation_loss"], default=None)
    if best is None or history[-1]["epoch"] - best["epoch"] < patience:
        return None
    lowest = f"{best['validation_loss']:.4f} of epoch {best['epoch']}"
    epochs = "1 epoch" if patience == 1 else f"{patience} epochs"
    return f"stopped early: no validation loss below the {lowest} in {epochs}"
