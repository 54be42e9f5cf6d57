"""TensorBoard: event files in the run's own folder, written without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from jaxnets.display import short_path

# What the table of hyperparameters shows beside them.
COMPARED = dict.fromkeys(("validation/accuracy", "test/accuracy", "test/loss"), 0.0)


class OpenTracker:
    """Writes the events of a run; a resumed run hides what it trains again."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], key: str | None, step: int):
        self.key = "."  # The folder is all that continues a run.
        self.how_to_see = f"tensorboard --logdir={short_path(str(folder.parent.parent))}"
        purge_step = None if key is None else step + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)
        if key is None:
            experiment, start, _ = hparams(config, COMPARED)
            for summary in (experiment, start):
                self._writer.file_writer.add_summary(summary)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def histograms(self, arrays: dict[str, np.ndarray], step: int) -> None:
        for name, array in arrays.items():
            self._writer.add_histogram(name, array.ravel(), step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, finished: bool) -> None:
        self._writer.close()
