"""Batches of a split: a new permutation in every epoch, the last batch padded and masked."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnets.data.datasets import Pictures, Split

Array = Any  # A NumPy array here, a JAX array once it has reached a device.

SHIFT = 2  # The most pixels by which --augment=shift moves an image.


class Batch(NamedTuple):
    """One batch; all batches of a run have the same shapes.

    Attributes:
      images: [B, H, W, C] float32 in [0, 1], or uint8, which the step divides by 255; in
        regression, features [B, D].
      labels: [B] int32; mix-up makes them probabilities [B, K] float32; in regression, targets
        [B, K] float32.
      mask: [B] float32, 1 for an example and 0 for padding.
    """

    images: Array
    labels: Array
    mask: Array


def epoch_order(size: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of one epoch, a permutation that depends on the seed and the epoch alone.

    Args:
      size: The number of examples N.
      batch_size: The number of examples in a batch B.
      seed: The run's seed.
      epoch: The epoch, from 0.

    Returns:
      The examples' indices [S, B] int32 and their mask [S, B] float32, S = ceil(N / B); the last
      batch is padded with index 0 and mask 0.

    >>> epoch_order(5, 2, seed=0, epoch=0)[1].tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    permutation = np.random.default_rng((seed, epoch)).permutation(size)
    return pad_order(permutation, batch_size)


def pad_order(indices: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts indices [N] into rows [S, B], the last one padded with index 0 and mask 0."""
    padded = np.zeros(-(-len(indices) // batch_size) * batch_size, np.int32)
    padded[: len(indices)] = indices
    mask = (np.arange(len(padded)) < len(indices)).astype(np.float32)
    return padded.reshape(-1, batch_size), mask.reshape(-1, batch_size)


ALL = slice(None)


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    augment: str = "none",
    start: int = 0,
    rows: slice = ALL,
) -> Iterator[Batch]:
    """Yields an epoch's batches in its random order, from batch number `start` on.

    Each has only the given rows, where other processes have the others; no other image is read.
    """
    order, mask = epoch_order(len(split), batch_size, seed, epoch)
    for step in range(start, len(order)):
        batch = _batch(split, order[step, rows], mask[step, rows])
        if "shift" in augment.split(","):
            rng = _shift_rng(seed, epoch, step)
            images = random_shift(batch.images, rng, batch_size=batch_size, rows=rows)
            batch = batch._replace(images=images)
        yield batch


def eval_batches(split: Split, batch_size: int, rows: slice = ALL) -> Iterator[Batch]:
    """Yields every example once, in order, the last batch padded and masked.

    Each batch has only the given rows, where other processes have the others.
    """
    for order, mask in zip(*pad_order(np.arange(len(split)), batch_size), strict=True):
        yield _batch(split, order[rows], mask[rows])


def _batch(split: Split, order: np.ndarray, mask: np.ndarray) -> Batch:
    """The batch of one row of an order; a picture that proves bad is masked."""
    images = split.images[order]
    if isinstance(split.images, Pictures):
        mask = mask * split.images.readable(order)
    return Batch(images, split.labels[order], mask)


def random_shift(
    images: np.ndarray,
    rng: np.random.Generator,
    pixels: int = SHIFT,
    *,
    batch_size: int | None = None,
    rows: slice = ALL,
) -> np.ndarray:
    """Moves each image by up to `pixels` in both directions, black moving in.

    Args:
      images: [B, H, W, C].
      rng: Draws one shift per image and direction, uniformly.
      pixels: The largest shift.
      batch_size: The size of the whole batch, if the images are only some of its rows; they move
        as in the whole batch.
      rows: The rows of that batch that the images are.

    Returns:
      [B, H, W, C], the same dtype.
    """
    count, height, width, channels = images.shape
    margins = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    # windows[b, dy, dx] is image b moved by (pixels - dy, pixels - dx): a view, nothing is copied
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, margins), (height, width, channels), axis=(1, 2, 3)
    )[:, :, :, 0]
    dy, dx = shift_corners(batch_size or count, rng, pixels)[:, rows]
    return windows[np.arange(count), dy, dx]


def shift_corners(count: int, rng: np.random.Generator, pixels: int = SHIFT) -> np.ndarray:
    """Draws [2, B]: where each window begins in an image with margins of `pixels`."""
    return rng.integers(0, 2 * pixels + 1, (2, count))


def epoch_corners(steps: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns [S, B, 2] uint8, the corners with which `train_batches` shifts an epoch's images."""
    rngs = (_shift_rng(seed, epoch, step) for step in range(steps))
    return np.stack([shift_corners(batch_size, rng).T for rng in rngs]).astype(np.uint8)


def _shift_rng(seed: int, epoch: int, step: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, step))
