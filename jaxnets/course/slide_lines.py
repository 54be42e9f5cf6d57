"""The lines that the slides print, in place of those of runs/terminal.py."""

import numpy as np
from tqdm import tqdm

from jaxnets.metrics import Metrics
from jaxnets.runs.terminal import Progress
from jaxnets.training.loop import TrainLoader
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import Checkpoint, TrainState


class KerasLog(Progress):
    """Slide "全连接神经网络实现图片识别": `Train Epoch: 45 Loss= 0.080445871 Accuracy= 0.88640...`.

    Its accuracies have a double's digits: Keras averages single-precision ones over the batches.
    """

    def epoch_line(self, record: Record) -> str:
        epoch, loss = f"{record['epoch']:02d}", f"{record['train_loss']:.9f}"
        accuracy = float(np.float32(record["train_accuracy"]))
        return f"Train Epoch: {epoch} Loss= {loss} Accuracy= {accuracy}"

    def test_line(self, test: Metrics) -> str:
        return f"acc: {np.float32(test.accuracy)!s}"


class SlideBar(Observer):
    """A bar of steps that ends with what the slide shows; without a terminal, that line alone."""

    def __init__(self, what: str, total: int, done: int = 0):
        """Starts the bar; `what` begins its text, and `done` of `total` steps are done."""
        self._what, self._text = what, ""
        self._bar = tqdm(
            total=total,
            initial=done,
            bar_format="{desc}: {percentage:3.0f}%|{bar}|",  # The slide's, cut where a line ends.
            disable=None,
            dynamic_ncols=True,
        )

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        """Moves on to a record's step: `..., epoch=20 , loss=0.5519253 , accuracy=0.851945`."""
        epoch, loss = record["epoch"], round(record["train_loss"], 8)
        accuracy = round(record["train_accuracy"], 6)
        self._text = f"{self._what}, epoch={epoch:<3}, loss={loss:<10}, accuracy={accuracy:<8}"
        self._bar.set_description_str(self._text, refresh=False)
        self._bar.update()

    def on_train_end(self) -> None:
        """Leaves the bar standing, or prints its text if there is none."""
        shown = not self._bar.disable  # Closing disables it.
        self._bar.close()
        if self._text and not shown:
            print(self._text, flush=True)


class HandwrittenLog(Progress):
    """Slide "程序运行结果": one bar over all full-batch steps, then the line of the test."""

    def __init__(self, epochs: int, loader: TrainLoader):
        super().__init__(epochs, loader, bar=False)

    def on_train_begin(self, start: Checkpoint) -> None:
        super().on_train_begin(start)
        print("Start training the best model...", flush=True)
        self._slide = SlideBar("Training the best model", self._epochs, self._epoch)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._slide.on_epoch_end(record, state)  # The slide has no line for a step.

    def test_line(self, test: Metrics) -> str:
        return f"Evaluate the best model, test loss={test.loss:.8f}, accuracy={test.accuracy:.6f}."

    def on_train_end(self) -> None:
        super().on_train_end()
        self._slide.on_train_end()
