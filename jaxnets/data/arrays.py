"""A data set from the user's own arrays."""

from typing import Any

import numpy as np

from jaxnets.data.datasets import Dataset, Split, assemble, sha256_of, validation_count
from jaxnets.errors import UserError

NAME = "arrays"
TEST_SHARE = 10  # Where no test is given it is one in so many.


def from_arrays(pairs: Any, validation_size: int | None = None) -> Dataset:
    """Makes a data set of images and their labels.

    Args:
      pairs: (images, labels) for training; or a tuple of two pairs for training and test, as Keras'
        `load_data` returns it; or of three for training, validation and test. A part that is not
        given is drawn from the training images, a tenth of them.
      validation_size: How many of them for the validation, instead of a tenth.

    Raises:
      UserError: The arrays are no images or do not fit each other.
    """
    if not isinstance(pairs, tuple | list) or len(pairs) not in (2, 3):
        raise UserError(
            "data: expected a name, a folder, a Dataset or (images, labels), "
            f"got {type(pairs).__name__}"
        )
    pairs = pairs if isinstance(pairs[0], tuple) else (pairs,)
    names = ("train", "test") if len(pairs) == 2 else ("train", "validation", "test")
    parts = {name: to_split(*pair) for name, pair in zip(names, pairs, strict=False)}
    classes = 1 + max(int(split.labels.max()) for split in parts.values())
    checksum = sha256_of(*(x for split in parts.values() for x in (split.images, split.labels)))
    train, order = parts["train"], np.random.default_rng(0).permutation(len(parts["train"]))
    if "test" not in parts:  # They may be sorted by class, so that these are drawn.
        rows, order = np.split(order, [max(1, len(order) // TEST_SHARE)])
        parts["test"] = train[np.sort(rows)]
    count = None
    if "validation" not in parts:
        count = validation_count(validation_size, len(order), "training images")
        rows, order = np.split(order, [count])
        parts |= {"validation": train[np.sort(rows)]} if count else {}
    parts["train"] = train[np.sort(order)]
    return assemble(NAME, parts, tuple(map(str, range(classes))), checksum, count)


def to_split(images: Any, labels: Any) -> Split:
    """Checks images and their labels.

    Args:
      images: [N, H, W] or [N, H, W, C], C = 1 or 3: bytes, or floats from 0 to 1.
      labels: [N] or [N, 1] whole numbers from 0, or [N, K] with a 1 in the column of the class.
    """
    images, labels = as_pixels(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(f"data: expected images [N, H, W] or [N, H, W, C], got {images.shape}")
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        wanted = f"whole numbers as labels for {len(images)} images"
        raise UserError(f"data: expected {wanted}, got {labels.dtype} {labels.shape}")
    return Split(images, labels.astype(np.int32))


def as_pixels(array: Any) -> np.ndarray:
    """An array's pixels as uint8, or as float32 from 0 to 1.

    Raises:
      UserError: They are neither bytes nor from 0 to 1.
    """
    array = np.asarray(array)
    most = 255 if np.issubdtype(array.dtype, np.integer) else 1
    if array.dtype == object or not array.size or not (array.min() >= 0 and array.max() <= most):
        ends = f"from {array.min()} to {array.max()}" if array.size else "none"
        raise UserError(
            "expected pixels as bytes from 0 to 255 or as floats from 0 to 1, "
            f"got {array.dtype} {ends}"
        )
    return array.astype(np.float32 if most == 1 else np.uint8, copy=False)
