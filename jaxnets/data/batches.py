"""Batches of a split: a new permutation in every epoch, the last batch padded and masked.

A thread makes the next ones while the device computes.
"""

import collections
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np

from jaxnets.data.datasets import Split

if TYPE_CHECKING:  # JAX itself is not imported here.
    from jaxtyping import Array as JaxArray

Array: TypeAlias = "np.ndarray | JaxArray"  # JAX's once it has reached a device.

SHIFT = 2  # The most pixels by which --augment=shift moves an image.
ALL = slice(None)
DEPTH = 2  # Batches made ahead: one is ready while the next is made.

Item = TypeVar("Item")


class Batch(NamedTuple):
    """One batch; all batches of a run have the same shapes."""

    # [B, H, W, C] float32 in [0, 1], or uint8, which the step divides by 255; in regression,
    # features [B, D].
    images: Array
    # [B] int32; after mix-up, probabilities [B, K] float32; in regression, targets [B, K] float32.
    labels: Array
    mask: Array  # [B] float32, 1 for an example and 0 for padding.


def epoch_order(size: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """An epoch's indices [S, B] int32, and their mask [S, B] float32: S = ceil(N / B) batches.

    They are a permutation that depends on the seed and the epoch alone; the last batch is padded
    with index 0 and mask 0.

    >>> epoch_order(5, 2, seed=0, epoch=0)[1].tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    permutation = np.random.default_rng((seed, epoch)).permutation(size)
    return _pad_order(permutation, batch_size)


def _pad_order(indices: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts indices [N] into rows [S, B], the last one padded with index 0 and mask 0."""
    padded = np.zeros(-(-len(indices) // batch_size) * batch_size, np.int32)
    padded[: len(indices)] = indices
    mask = (np.arange(len(padded)) < len(indices)).astype(np.float32)
    return padded.reshape(-1, batch_size), mask.reshape(-1, batch_size)


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shifts: bool = False,
    start: int = 0,
    rows: slice = ALL,
) -> Iterator[Batch]:
    """Yields an epoch's batches in its random order, from batch number `start` on.

    Each holds this process's rows only, and no other image is read.
    """
    order, mask = epoch_order(len(split), batch_size, seed, epoch)
    for step in range(start, len(order)):
        batch = _batch(split, order[step, rows], mask[step, rows])
        if shifts:
            corners = shift_corners(batch_size, seed, epoch, step)[rows]
            batch = batch._replace(images=shift(batch.images, corners))
        yield batch


def eval_batches(split: Split, batch_size: int, rows: slice = ALL) -> Iterator[Batch]:
    """Yields every example once, in order, the last batch padded and masked.

    Each batch holds this process's rows only.
    """
    for order, mask in zip(*_pad_order(np.arange(len(split)), batch_size), strict=True):
        yield _batch(split, order[rows], mask[rows])


def _batch(split: Split, order: np.ndarray, mask: np.ndarray) -> Batch:
    """The batch of one row of an order."""
    return Batch(split.images[order], split.labels[order], mask)


def shift(images: Array, corners: np.ndarray) -> np.ndarray:
    """Moves images [B, H, W, C] by up to SHIFT pixels in both directions, black moving in.

    The corners [B, 2] are where each image's window begins in the image with margins of SHIFT.
    """
    margins = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    # windows[b, y, x] is image b moved by (SHIFT - y, SHIFT - x): a view, nothing is copied
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, margins), images.shape[1:], axis=(1, 2, 3)
    )[:, :, :, 0]
    return windows[np.arange(len(images)), corners[:, 0], corners[:, 1]]


def shift_corners(batch_size: int, seed: int, epoch: int, step: int) -> np.ndarray:
    """Draws a batch's corners [B, 2] uint8, uniformly."""
    rng = np.random.default_rng((seed, epoch, step))
    return rng.integers(0, 2 * SHIFT + 1, (2, batch_size)).T.astype(np.uint8)


def prefetch(items: Iterator[Item], depth: int = DEPTH) -> Generator[Item]:
    """Yields the same items in the same order, made ahead by a thread, at most `depth` at a time.

    An error in making an item is raised where the item is asked for. The thread ends with the
    items. A loop that may end early must close the generator, which waits for the item that is
    being made.

    >>> list(prefetch(iter("abc")))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead = collections.deque(thread.submit(next, items, end) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for future in ahead:
                future.cancel()
