"""Images from the numbers of a request, which may be anything."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnets.deploy.server.limits import RequestError
from jaxnets.training.step import to_float

MAX_IMAGES = 1024  # In a request.
MAX_DEPTH = 4  # Of the lists around numbers: [N, H, W, C].


def to_numbers(name: str, data: Any, largest: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers of a list, which may hold lists of one length, in a row, and its shape.

    They are uint8 if all are whole and `largest` is 255, else float64. NumPy alone would take "1"
    and true for 1, and a long text for an array of as long ones.
    """
    shape: list[int] = []
    values: Sequence[Any] = [data]
    while values and type(values[0]) is list:
        lengths = {len(row) if type(row) is list else -1 for row in values}
        if len(lengths) != 1 or len(shape) == MAX_DEPTH:
            raise RequestError(400, f"{name}: expected lists of one length, at most {MAX_DEPTH} in")
        shape += lengths
        values = values[0] if len(values) == 1 else list(itertools.chain.from_iterable(values))
    kinds = set(map(type, values))
    if not shape or not kinds <= {int, float}:
        raise RequestError(400, f"{name}: expected a list of numbers")
    try:
        if largest == 255 and kinds == {int}:
            return np.frombuffer(bytes(values), np.uint8), tuple(shape)
        return np.array(values, np.float64), tuple(shape)
    except (ValueError, OverflowError):  # Of bytes; of floats.
        raise RequestError(
            400, f"{name}: expected pixels from 0 to {largest}, got others"
        ) from None


def to_images(
    name: str, values: np.ndarray, shape: Sequence[int], form: tuple[int, int, int], largest: int
) -> np.ndarray:
    """Images [N, H, W, C] float32 from 0 to 1.

    Args:
      name: The values' name in an error.
      values: Pixels from 0 to `largest`, in a row.
      shape: [N, H, W, C], [N, H W C] or, with one channel, [N, H, W].
      form: The network's (H, W, C).
      largest: The number that stands for white.

    Raises:
      RequestError: The shape is another, or a pixel is out of range or no number.
    """
    height, width, channels = form
    size = height * width * channels
    right = [list(form), [size]] + [[height, width]] * (channels == 1)
    if not shape or list(shape[1:]) not in right:
        wanted = f"[N, {height}, {width}, {channels}] or [N, {size}]"
        raise RequestError(400, f"{name}: expected the shape {wanted}, got {list(shape)!r:.80}")
    if not 1 <= shape[0] <= MAX_IMAGES:
        raise RequestError(400, f"{name}: expected 1 to {MAX_IMAGES:,} images, got {shape[0]:,}")
    if values.size != shape[0] * size:
        wanted = f"{shape[0] * size:,} numbers for the shape {list(shape)}"
        raise RequestError(400, f"{name}: expected {wanted}, got {values.size:,}")
    if values.dtype == np.uint8:
        return to_float(values).reshape(-1, *form)
    if not (values.min() >= 0 and values.max() <= largest):  # NaN is neither.
        raise RequestError(400, f"{name}: expected pixels from 0 to {largest:g}, got others")
    images = values.reshape(-1, *form)
    return (images if largest == 1 else images / largest).astype(np.float32)
