"""Sliding windows as strided slices, which convolutions and pools share.

A window (kh, kw) slides over an image [B, H, W, C] in steps (sh, sw). It stops at h x w places:

    h = (top + H + bottom - kh) // sh + 1

Its element (a, a') visits rows a, a + sh, a + 2 sh ... of the padded image: a strided slice. There
are kh kw such slices, each [B, h, w, C], in row-major order of (a, a').
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxnets.base.errors import UserError

Size = Sequence[int]  # two numbers, for rows and for columns
Pads = Sequence[tuple[int, int]]  # (top, bottom), (left, right)
Padding = str | Pads

# Ranges for the domains of sliding layers: windows and strides that differ by axis, strides that
# skip pixels; how many rows and columns an image has beyond the window, so that some are never
# reached.
WINDOWS = (
    (1, 1), (1, 2), (2, 1), (2, 2), (2, 2), (1, 3), (2, 4), (3, 2), (3, 3), (3, 3), (4, 3), (4, 4),
    (5, 5),
)  # fmt: skip
STRIDES = (
    (1, 1), (1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (2, 2), (2, 2), (3, 2), (2, 4), (3, 3), (4, 4),
    (5, 5),
)  # fmt: skip
BEYOND = ((0, 0), (1, 1), (0, 3), (2, 1), (3, 3), (4, 2), (4, 4), (3, 6), (6, 5), (7, 7))


def window_pads(image: Size, window: Size, strides: Size, padding: Padding) -> Pads:
    """Works out ((top, bottom), (left, right)): what is added around an image of H x W.

    VALID adds none. SAME makes h = ceil(H / sh): it adds max((h - 1) sh + kh - H, 0) rows, the odd
    one at the bottom. Another padding, or a window that is too large, is a UserError.
    """
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        same = lax.padtype_to_pads(image, window, strides, padding)
        pads = [(int(low), int(high)) for low, high in same]  # JAX 0.7 has NumPy's.
    elif isinstance(padding, str | int):
        raise UserError("padding: expected 'SAME', 'VALID' or pairs of ints, got {}", repr(padding))
    else:
        pads = [(low, high) for low, high in padding]
    padded = tuple(low + size + high for size, (low, high) in zip(image, pads, strict=True))
    if any(k > size for k, size in zip(window, padded, strict=True)):
        raise UserError("a window of {} does not fit in an image of {}", tuple(window), padded)
    return pads


def window_slices(
    x: Float[Array, "B H W C"], window: Size, strides: Size, pads: Pads, fill: float
) -> list[Float[Array, "B h w C"]]:
    """Lists what each of the kh kw elements of the window sees; the padding holds `fill`."""
    padding = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), padding)
    batch, height, width, channels = x.shape
    (kh, kw), (sh, sw) = window, strides
    return [
        lax.slice(
            x,
            start_indices=(0, a, b, 0),
            limit_indices=(batch, height - kh + 1 + a, width - kw + 1 + b, channels),
            strides=(1, sh, sw, 1),
        )
        for a in range(kh)
        for b in range(kw)
    ]


def sum_of_slices(
    slices: Sequence[Float[Array, "B h w C"]], image: Size, window: Size, strides: Size, pads: Pads
) -> Float[Array, "B H W C"]:
    """Adds slices up at the places where `window_slices` found them: its transpose.

    Element (a, a') of window (i, j) is on row sh i + a and in column sw j + a' of the padded image,
    whose padding is then cut off.
    """
    padded = [size + low + high for size, (low, high) in zip(image, pads, strict=True)]
    zero = jnp.zeros((), slices[0].dtype)
    total = zero
    for element, part in zip(np.ndindex(*window), slices, strict=True):
        # Zeros before the first number, after the last, and between neighbours.
        around = [
            (k, size - k - stride * (places - 1) - 1, stride - 1)
            for k, size, stride, places in zip(
                element, padded, strides, part.shape[1:3], strict=True
            )
        ]
        total = total + lax.pad(part, zero, [(0, 0, 0), *around, (0, 0, 0)])
    inside = [(-low, -high, 0) for low, high in pads]
    return lax.pad(total, zero, [(0, 0, 0), *inside, (0, 0, 0)])
