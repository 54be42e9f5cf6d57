"""What a user sees: a progress bar on a terminal, and a line an epoch."""

import contextlib
import sys
from typing import Any

from tqdm import tqdm

from jaxnets.metrics import Metrics
from jaxnets.runs.signals import outliving_the_terminal
from jaxnets.training.loop import Checkpoint, TrainLoader


class Progress(contextlib.AbstractContextManager):
    """A bar over all images of a run, on stderr and only if that is a terminal."""

    def __init__(
        self, epochs: int, loader: TrainLoader, checkpoint: Checkpoint, silent: bool = False
    ):
        """Starts the bar where the run stands; a silent bar is never shown."""
        self._epochs, self._error = epochs, 0.0
        self._epoch = int(checkpoint.state.step) // loader.steps
        part = 0 if checkpoint.metrics is None else int(checkpoint.metrics.count)
        self._bar = tqdm(
            total=len(loader.split) * epochs,
            initial=len(loader.split) * self._epoch + part,
            disable=silent or None,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
        )

    def update(self, images: int, metrics: Metrics) -> None:
        """Moves the bar by some images; the metrics are the epoch's so far."""
        if not self._bar.disable:
            text = f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.4f}"
            if self._error:
                text += f", gradient error {self._error:.1e}"
            self._bar.set_description(f"epoch {self._epoch + 1}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(text, refresh=False)
        with outliving_the_terminal():
            self._bar.update(images)

    def gradient_error(self, error: float) -> None:
        """Notes the error of a check of the gradients; the largest is shown."""
        self._error = max(self._error, error)

    def epoch(self, record: dict[str, Any]) -> None:
        """Prints an epoch's line."""
        self._epoch = record["epoch"]
        line = self.epoch_line(record)
        with outliving_the_terminal():
            self._bar.clear()
            print(line, flush=True)
            self._bar.refresh()

    def epoch_line(self, record: dict[str, Any]) -> str:
        """An epoch's losses, accuracies and rate."""
        line = (
            f"epoch {record['epoch']:{len(str(self._epochs))}d}/{self._epochs}"
            f"  loss {record['train_loss']:.4f}  accuracy {record['train_accuracy']:.4f}"
        )
        if record["validation_loss"] is not None:
            line += (
                f"  validation loss {record['validation_loss']:.4f}"
                f"  accuracy {record['validation_accuracy']:.4f}"
            )
        if self._error:
            line += f"  gradient error {self._error:.1e}"
        return line + f"  {record['seconds']:.1f} s  {record['images_per_second']:,.0f} images/s"

    def test_line(self, test: Metrics) -> str:
        """The test's loss and accuracy."""
        return f"test loss {test.loss:.4f}  accuracy {test.accuracy:.4f}"

    def __exit__(self, *exception) -> None:
        with outliving_the_terminal():
            self._bar.close()
            sys.stdout.flush()
