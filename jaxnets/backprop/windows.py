"""Sliding windows written out as strided slices, which convolutions and pools share.

A window (kh, kw) slides over an image [B, H, W, C] in steps (sh, sw). It stops at h x w places:

    h = (top + H + bottom - kh) // sh + 1

Its element (a, b) visits rows a, a + sh, a + 2 sh ... of the padded image: a strided slice. There
are kh kw such slices, each [B, h, w, C], in row-major order of (a, b).
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

Size = Sequence[int]  # two numbers, for rows and for columns
Pads = Sequence[tuple[int, int]]  # (top, bottom), (left, right)
Padding = str | Pads


def window_pads(image: Size, window: Size, strides: Size, padding: Padding) -> Pads:
    """Works out the rows and columns that are added around an image.

    VALID adds none. SAME makes h = ceil(H / sh): it adds max((h - 1) sh + kh - H, 0) rows, the odd
    one at the bottom.

    Args:
      image: (H, W).
      window: (kh, kw).
      strides: (sh, sw).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    Returns:
      ((top, bottom), (left, right)).

    Raises:
      ValueError: for another padding, or a window that is larger than the padded image.
    """
    if padding == "VALID":
        pads = [(0, 0), (0, 0)]
    elif padding == "SAME":
        missing = [
            max((-(-size // s) - 1) * s + k - size, 0)
            for size, k, s in zip(image, window, strides, strict=True)
        ]
        pads = [(m // 2, m - m // 2) for m in missing]
    elif isinstance(padding, str | int):
        raise ValueError(f"padding must be 'SAME', 'VALID' or pairs of ints, got {padding!r}")
    else:
        pads = [(low, high) for low, high in padding]
    padded = tuple(low + size + high for size, (low, high) in zip(image, pads, strict=True))
    if any(k > size for k, size in zip(window, padded, strict=True)):
        raise ValueError(f"a window of {tuple(window)} does not fit in an image of {padded}")
    return pads


def window_slices(
    x: jax.Array, window: Size, strides: Size, pads: Pads, fill: float
) -> list[jax.Array]:
    """Lists what each element of the window sees.

    Args:
      x: [B, H, W, C].
      window: (kh, kw).
      strides: (sh, sw).
      pads: from `window_pads`.
      fill: the value of the padding.

    Returns:
      kh kw arrays [B, h, w, C].
    """
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


def add_window_slices(
    slices: Sequence[jax.Array], image: Size, window: Size, strides: Size, pads: Pads
) -> jax.Array:
    """Adds slices up where they came from: the transpose of `window_slices`.

    Element (a, b) of window (i, j) stood on pixel (sh i + a - top, sw j + b - left), so its slice
    is spread out by the strides and shifted there. What falls on the padding is dropped.

    Args:
      slices: kh kw arrays [B, h, w, C].
      image: (H, W).
      window: (kh, kw).
      strides: (sh, sw).
      pads: from `window_pads`.

    Returns:
      [B, H, W, C].
    """
    (height, width), (kh, kw), (sh, sw) = image, window, strides
    (top, _), (left, _) = pads
    _, h, w, _ = slices[0].shape

    def spread(part: jax.Array, a: int, b: int) -> jax.Array:
        low_row, low_column = a - top, b - left
        high_row = height - (sh * (h - 1) + 1) - low_row
        high_column = width - (sw * (w - 1) + 1) - low_column
        padding = ((low_row, high_row, sh - 1), (low_column, high_column, sw - 1))
        return lax.pad(part, jnp.zeros((), part.dtype), ((0, 0, 0), *padding, (0, 0, 0)))

    offsets = [(a, b) for a in range(kh) for b in range(kw)]
    return reduce(jnp.add, (spread(part, *at) for part, at in zip(slices, offsets, strict=True)))
