"""The training data in batches."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.data.batches import Batch, train_batches
from jaxnets.data.datasets import Dataset, Split

# The only change of a batch that the loader makes, because it draws on the host.
SHIFT = "shift"


@dataclasses.dataclass(frozen=True)
class TrainLoader:
    """The training data in batches, in an order that the seed and the epoch determine."""

    split: Split
    batch_size: int  # Examples in a step; at most all of them.
    seed: int  # Draws the order and the shifts.
    shifts: bool = False  # Whether images are shifted; the host draws the shifts.
    steps_per_epoch: int | None = None  # None: an epoch is a pass over all examples.
    augmented_epochs: float = np.inf  # Later epochs take the images unchanged.

    def __post_init__(self):
        if self.batch_size > len(self.split):
            raise UserError(
                "batch_size: expected at most the {} training images, or full for all of "
                "them, got {}",
                len(self.split),
                self.batch_size,
            )
        if self.steps > self.steps_per_pass:
            raise UserError(
                "steps_per_epoch: expected at most the {} steps of a pass over the {} "
                "training images, got {}",
                self.steps_per_pass,
                len(self.split),
                self.steps,
            )

    @property
    def steps_per_pass(self) -> int:
        """The number of steps in which every example occurs once; the last may be ragged."""
        return -(-len(self.split) // self.batch_size)

    @property
    def steps(self) -> int:
        """The number of steps in an epoch."""
        return self.steps_per_epoch or self.steps_per_pass

    def shifts_in(self, epoch: int) -> bool:
        """Whether the images of an epoch are shifted."""
        return self.shifts and epoch < self.augmented_epochs

    def images_in(self, steps: int) -> int:
        """The number of examples in a run's first steps."""
        passes, rest = divmod(steps, self.steps_per_pass)
        return passes * len(self.split) + rest * self.batch_size

    def batches(self, start: int, stop: int, rows: slice) -> Iterator[Batch]:
        """The batches of a run's steps `start` to `stop`; each pass has its own order."""
        shifts = self.shifts_in(start // self.steps)
        while start < stop:
            number, first = divmod(start, self.steps_per_pass)
            count = min(stop - start, self.steps_per_pass - first)
            batches = train_batches(
                self.split, self.batch_size, seed=self.seed, epoch=number, shifts=shifts,
                start=first, rows=rows,
            )  # fmt: skip
            yield from itertools.islice(batches, count)
            start += count


def loader_of(config: Config, data: Dataset) -> TrainLoader:
    """The training data in the config's batches, shifted if the config asks for it."""
    return TrainLoader(
        data.train,
        config.batch_size or len(data.train),
        config.seed,
        shifts=SHIFT in config.augmentations,
        steps_per_epoch=config.steps_per_epoch,
        augmented_epochs=config.epochs - config.clean_epochs if config.clean_epochs else np.inf,
    )
