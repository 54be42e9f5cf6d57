"""A data set from the user's own arrays."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.data.datasets import (
    MAX_CLASSES,
    Dataset,
    Split,
    assemble,
    sha256_of,
    validation_count,
)

NAME = "arrays"
TEST_SHARE = 10  # Without a given test, one in so many.
WANTED = "images [N, H, W] or [N, H, W, C] with C = 1 or 3, or rows [N, D]"
LEAST_SIDE = 8  # Of square images in rows: shorter rows are a table's, whatever their range.
# On the validation rows of benchmarks/small.py's classification the mlp reached 0.864 with one
# deviation for all columns, 0.836 with one for each (SVC 0.870 and, standardized, 0.806).
ALIKE = 10


def from_arrays(
    pairs: Sequence[Any],
    validation_size: float | None = None,
    *,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    test: bool = True,
) -> Dataset:
    """Makes a data set of images and their labels: arrays, data frames of pandas or lists.

    Rows [N, D] are images if they are pixels of squares of LEAST_SIDE or more; else a table of any
    finite numbers.

    Args:
      pairs: (images, labels) for training; or a tuple of two pairs for training and test, as
        Keras's `load_data` returns it; or of three for training, validation and test. A part
        that is not given is drawn from the training images, a tenth of them.
      validation_size: The number of validation images, or their share, instead of a tenth.
      validation: A pair for validation.
      test: Whether images are held back for a test that is not given.

    Raises:
      UserError: The arrays are neither images nor rows, or do not fit each other.
    """
    if not isinstance(pairs, tuple | list) or len(pairs) not in (2, 3):
        raise UserError(
            "data: expected a name, a folder, a Dataset or (images, labels), got {}",
            type(pairs).__name__,
        )
    pairs = pairs if isinstance(pairs[0], tuple) else (pairs,)
    names = ("train", "test") if len(pairs) == 2 else ("train", "validation", "test")
    given = dict(zip(names, pairs, strict=False))
    if validation is not None:
        given["validation"] = validation
    class_names = _class_names([labels for _, labels in given.values()])
    parts: dict[str, Split] = {}
    for name, (images, labels) in given.items():
        form = parts["train"].images.shape[1:] if parts else None
        parts[name] = to_split(images, labels, class_names, form)
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


def to_split(
    images: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    form: tuple[int, ...] | None = None,
) -> Split:
    """Checks images and their labels.

    Args:
      images: As `to_images` takes them.
      labels: [N] or [N, 1] whole numbers from 0, or texts; or [N, K] with a 1 in the column of the
        class.
      class_names: The classes of labels that are texts.
      form: The shape of an image, or of a row, that is expected.
    """
    images, labels = to_images(images, form), _labels(labels)
    if labels.dtype.kind == "U" and labels.ndim == 1:
        if others := sorted({*labels.tolist()} - {*class_names}):
            known = ", ".join(class_names)
            raise UserError(
                "data: expected labels among {}, got {}", f"{known:.200}", repr(others[0])
            )
        codes = {name: code for code, name in enumerate(class_names)}
        labels = np.array([codes[name] for name in labels.tolist()], np.int64)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        wanted = Text("whole numbers or texts as labels for {} images", len(images))
        if labels.dtype.kind == "f":
            raise UserError(
                "data: expected {}, got {} {}; jaxnets.Regressor predicts numbers",
                wanted,
                labels.dtype,
                labels.shape,
            )
        raise UserError("data: expected {}, got {} {}", wanted, labels.dtype, labels.shape)
    return Split(images, labels.astype(np.int32))


def to_images(images: ArrayLike, form: tuple[int, ...] | None = None) -> np.ndarray:
    """Images [N, H, W, C] of pixels, or rows [N, D] of a table, as float32.

    Args:
      images: [N, H, W] or [N, H, W, C], C = 1 or 3, or rows [N, D]. Pixels are bytes, or floats
        from 0 to 1.
      form: The shape of an image (H, W, C), or of a row (D,), that is expected; by default rows are
        images if they can be.
    """
    images = _as_array(images)
    if images.ndim == 2:
        side = math.isqrt(images.shape[1])
        if (
            form is None
            and side >= LEAST_SIDE
            and side**2 == images.shape[1]
            and _are_pixels(images)
        ):
            form = (side, side, 1)
        if form is None or len(form) == 1:
            return as_rows(images, form)
        if images.shape[1] == math.prod(form):
            images = images.reshape(-1, *form)
    images = as_pixels(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            "data: expected {}, got {}{}", WANTED, images.shape, transpose_hint(images.shape)
        )
    return images


def transpose_hint(shape: Sequence[int]) -> Text | str:
    """What to do with images [N, C, H, W]; "" for others.

    >>> print(transpose_hint((8, 1, 28, 28)))
    ; the channels come last: x.transpose(0, 2, 3, 1), for a tensor x.permute(0, 2, 3, 1)
    """
    if len(shape) != 4 or shape[1] not in (1, 3) or shape[3] in (1, 3):
        return ""
    return Text(
        "; the channels come last: x.transpose(0, 2, 3, 1), for a tensor x.permute(0, 2, 3, 1)"
    )


def as_rows(rows: ArrayLike, form: tuple[int, ...] | None = None) -> np.ndarray:
    """The rows of a table, [N, D] float32.

    Raises:
      UserError: They are not finite numbers, or a row does not have the shape `form`.
    """
    rows = _as_array(rows)
    if rows.ndim != 2 or (form or rows.shape[1:]) != rows.shape[1:] or not rows.size:
        wanted = "D" if form is None else form[0]
        raise UserError("data: expected rows [N, {}], got {}", wanted, rows.shape)
    if rows.dtype.kind not in "biuf":
        raise UserError("data: expected numbers in rows, got {}", rows.dtype)
    with np.errstate(over="ignore"):
        numbers = rows.astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        raise UserError("data: expected finite numbers below 3.4e38 in rows, got others")
    return numbers


def scaling_of(rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation that scale each column; 1 where it has no spread.

    The deviation is the column's own if the columns' deviations differ by a factor of ALIKE or
    more. Otherwise the columns probably share one unit, and their different spreads carry
    information: all are divided by the root of the mean variance.

    Args:
      rows: [N, D].
    """
    mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    has_spread = std > np.finfo(np.float32).eps * np.abs(mean)
    spreads = std[has_spread]
    if spreads.size and spreads.max() < ALIKE * spreads.min():
        std = np.full_like(std, np.sqrt(np.mean(spreads**2)))
    return tuple(mean.tolist()), tuple(np.where(has_spread, std, 1.0).tolist())


def as_pixels(array: ArrayLike) -> np.ndarray:
    """An array's pixels as uint8, or as float32 from 0 to 1.

    Raises:
      UserError: They are neither bytes nor from 0 to 1.
    """
    array = _as_array(array)
    if not _are_pixels(array):
        are_numbers = array.dtype.kind in "biuf" and array.size
        ends = f"from {array.min()} to {array.max()}" if are_numbers else "none"
        raise UserError(
            "expected pixels as bytes from 0 to 255 or as floats from 0 to 1, got {} {}",
            array.dtype,
            ends,
        )
    return array.astype(np.uint8 if array.dtype.kind in "iu" else np.float32, copy=False)


def _as_array(array: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(array)
    except ValueError as error:  # Rows of several lengths.
        raise UserError(
            "expected pixels in an array, got rows that do not form one: {}", error
        ) from None


def _are_pixels(array: np.ndarray) -> bool:
    """Whether numbers are bytes, or floats from 0 to 1."""
    most = 255 if array.dtype.kind in "iu" else 1
    is_known = array.dtype.kind in "biuf" and array.size > 0
    return is_known and bool(array.min() >= 0 and array.max() <= most)


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
        raise UserError("data: expected a label for each image, got {}", error) from None
    if array.dtype.kind not in "biufU":
        raise UserError("data: expected whole numbers or texts as labels, got {}", array.dtype)
    if array.ndim == 2:
        array = array[:, 0] if array.shape[1] == 1 else array.argmax(axis=1)
    return array
