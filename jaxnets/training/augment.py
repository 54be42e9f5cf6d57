"""What a step does to its batch before the network sees it."""

from typing import Any

import numpy as np

Images = Any  # A NumPy array or a JAX array.

# 1/255 = 0.010101..., in base 256, is cut in two: a byte times the first part has no more than 24
# binary digits, so that only the addition rounds. XLA would multiply by the rounded 1/255 instead,
# and 126 of the 256 bytes would differ from NumPy's quotient in their last digit.
THREE_DIGITS, REST = np.float32(0x010101 / 2**24), np.float32(1 / 255 / 2**24)


def to_float(images: Images) -> Images:
    """Bytes 0 to 255 as float32 from 0 to 1, correctly rounded; floats pass as they are.

    Pictures stay bytes until they are on the device, where this is the one place that turns them
    into numbers: a quarter of the memory and of the transfer.

    Args:
      images: [B, H, W, C] uint8 or floating.

    Returns:
      The same shape, in NumPy or JAX as it came.

    >>> to_float(np.array([0, 51, 255], np.uint8)).tolist() == [0.0, float(np.float32(0.2)), 1.0]
    True
    """
    if images.dtype != np.uint8:
        return images
    images = images.astype(np.float32)
    return images * THREE_DIGITS + images * REST
