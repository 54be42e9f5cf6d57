"""Collects the batches of an iterable, such as a DataLoader of PyTorch, into arrays."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnets.base.errors import UserError


def collected(data: Any) -> Any:
    """The (images, labels) of an iterable of batches; returns anything else unchanged.

    >>> images, labels = collected(([[0.5] * 4], [n]) for n in range(3))
    >>> images.shape, labels.tolist()
    ((3, 4), [0, 1, 2])

    Args:
      data: A DataLoader of PyTorch, a tf.data.Dataset, or a generator that ends. Each batch is
        (images, labels).

    Raises:
      UserError: A batch has another form, or there are no batches.
    """
    is_one = isinstance(data, str | os.PathLike | tuple | list | dict)
    if is_one or not isinstance(data, Iterable) or hasattr(data, "shape"):
        return data
    batches: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not np.ndim(batch[1]):
            raise UserError(
                "data: expected batches (images, labels) of {}, got {}",
                type(data).__name__,
                _form(batch),
            )
        images, labels = map(np.asarray, batch)
        batches.append((images, labels))
    if not batches:
        raise UserError("data: expected batches (images, labels), {} has none", type(data).__name__)
    images, labels = map(np.concatenate, zip(*batches, strict=True))
    return images, labels


def _form(batch: Any) -> str:
    """What a wrong batch is."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return "single pictures"
    shape = getattr(batch, "shape", None)
    return type(batch).__name__ if shape is None else f"an array {tuple(shape)}"
