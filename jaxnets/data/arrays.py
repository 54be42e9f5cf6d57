"""A data set from the user's own arrays."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxnets.data.datasets import (
    MAX_CLASSES,
    Dataset,
    Split,
    assemble,
    sha256_of,
    validation_count,
)
from jaxnets.errors import UserError
from jaxnets.language import N_

NAME = "arrays"
TEST_SHARE = 10  # Where no test is given it is one in so many.
WANTED = "images [N, H, W] or [N, H, W, C] with C = 1 or 3, or rows [N, S * S] of square images"


def from_arrays(
    pairs: Sequence[Any],
    validation_size: float | None = None,
    *,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    test: bool = True,
) -> Dataset:
    """Makes a data set of images and their labels: arrays, data frames of pandas or lists.

    Args:
      pairs: (images, labels) for training; or a tuple of two pairs for training and test, as Keras'
        `load_data` returns it; or of three for training, validation and test. A part that is not
        given is drawn from the training images, a tenth of them.
      validation_size: The number of validation images, or their share, instead of a tenth.
      validation: A pair for validation.
      test: Whether images are held back for a test that is not given.

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
    given = dict(zip(names, pairs, strict=False))
    if validation is not None:
        given["validation"] = validation
    class_names = _class_names([labels for _, labels in given.values()])
    parts = {
        name: to_split(images, labels, class_names) for name, (images, labels) in given.items()
    }
    checksum = sha256_of(*(x for split in parts.values() for x in (split.images, split.labels)))
    train, order = parts["train"], np.random.default_rng(0).permutation(len(parts["train"]))
    if "test" not in parts and test:  # They may be sorted by class, so that these are drawn.
        rows, order = np.split(order, [max(1, len(order) // TEST_SHARE)])
        parts["test"] = train[np.sort(rows)]
    count = None
    if "validation" not in parts:
        if isinstance(validation_size, float):
            validation_size = round(validation_size * len(order))
        count = validation_count(validation_size, len(order), "training images")
        rows, order = np.split(order, [count])
        parts |= {"validation": train[np.sort(rows)]} if count else {}
    parts["train"] = train[np.sort(order)]
    return assemble(NAME, parts, class_names, checksum, count)


def to_split(images: ArrayLike, labels: ArrayLike, class_names: Sequence[str]) -> Split:
    """Checks images and their labels.

    Args:
      images: [N, H, W] or [N, H, W, C], C = 1 or 3, or rows [N, S * S] of square images: bytes, or
        floats from 0 to 1.
      labels: [N] or [N, 1] whole numbers from 0, or texts; or [N, K] with a 1 in the column of the
        class.
      class_names: The classes of labels that are texts.
    """
    images, labels = to_images(images), _labels(labels)
    if labels.dtype.kind == "U" and labels.ndim == 1:
        if others := sorted({*labels.tolist()} - {*class_names}):
            known = ", ".join(class_names)
            raise UserError(f"data: expected labels among {known:.200}, got {others[0]!r}")
        codes = {name: code for code, name in enumerate(class_names)}
        labels = np.array([codes[name] for name in labels.tolist()], np.int64)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        wanted = f"whole numbers or texts as labels for {len(images)} images"
        raise UserError(f"data: expected {wanted}, got {labels.dtype} {labels.shape}")
    return Split(images, labels.astype(np.int32))


def to_images(images: ArrayLike) -> np.ndarray:
    """Images [N, H, W, C] of arrays as `to_split` takes them."""
    images = as_pixels(images)
    if images.ndim == 2 and (side := math.isqrt(images.shape[1])) ** 2 == images.shape[1]:
        images = images.reshape(-1, side, side)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"data: expected {WANTED}, got {images.shape}{transpose_hint(images.shape)}"
        )
    return images


def transpose_hint(shape: Sequence[int]) -> str:
    """What to do with images [N, C, H, W]; "" for others.

    >>> transpose_hint((8, 1, 28, 28))
    '; the channels come last: x.transpose(0, 2, 3, 1), of a tensor x.permute(0, 2, 3, 1)'
    """
    if len(shape) != 4 or shape[1] not in (1, 3) or shape[3] in (1, 3):
        return ""
    todo = N_("the channels come last: x.transpose(0, 2, 3, 1), of a tensor x.permute(0, 2, 3, 1)")
    return f"; {todo}"


def as_pixels(array: ArrayLike) -> np.ndarray:
    """An array's pixels as uint8, or as float32 from 0 to 1.

    Raises:
      UserError: They are neither bytes nor from 0 to 1.
    """
    try:
        array = np.asarray(array)
    except ValueError as error:  # Rows of several lengths.
        raise UserError(f"expected pixels in an array, got rows that make none: {error}") from None
    most = 255 if np.issubdtype(array.dtype, np.integer) else 1
    are_numbers = array.dtype.kind in "biuf"
    if not (are_numbers and array.size and array.min() >= 0 and array.max() <= most):
        ends = f"from {array.min()} to {array.max()}" if are_numbers and array.size else "none"
        raise UserError(
            "expected pixels as bytes from 0 to 255 or as floats from 0 to 1, "
            f"got {array.dtype} {ends}"
        )
    return array.astype(np.float32 if most == 1 else np.uint8, copy=False)


def _class_names(parts: Sequence[Any]) -> tuple[str, ...]:
    """The classes of the labels of all parts: the texts among them, or the numbers from 0."""
    parts = [_labels(part) for part in parts]
    if any(labels.dtype.kind == "U" for labels in parts):
        return tuple(sorted({str(label) for labels in parts for label in labels.tolist()}))
    largest = max(int(labels.max(initial=0)) for labels in parts if labels.dtype.kind in "iuf")
    return tuple(map(str, range(min(largest, MAX_CLASSES) + 1)))


def _labels(labels: ArrayLike) -> np.ndarray:
    """Labels [N], texts as NumPy's; rows of one-hot labels become numbers."""
    try:
        array = np.asarray(labels)
        if array.dtype.kind in "OT":  # Of pandas: texts, or its own numbers.
            array = np.array(array.tolist())
    except ValueError as error:  # Lists of several lengths.
        raise UserError(f"data: expected a label for each image, got {error}") from None
    if array.dtype.kind not in "biufU":
        raise UserError(f"data: expected whole numbers or texts as labels, got {array.dtype}")
    if array.ndim == 2:
        array = array[:, 0] if array.shape[1] == 1 else array.argmax(axis=1)
    return array
