"""Pictures in the forms that users give: files, pictures of Pillow, arrays, and lists of them."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxnets.data.arrays import as_pixels
from jaxnets.data.pictures.decode import read_picture, to_8_bits
from jaxnets.errors import UserError

Picture = Any  # A path, a file's bytes, a picture of Pillow, or an array [H, W] or [H, W, C].
Pictures = Picture | Sequence[Picture]  # An array [N, H, W] or [N, H, W, C], too.

SINGLE = (str, os.PathLike, bytes, Image.Image)
CHANNELS = (1, 3, 4)


def as_list(pictures: Pictures, image_shape: tuple[int, int, int]) -> list[Picture]:
    """The single pictures, of which one alone or an array of many may be given.

    In an array of three dimensions the last one is of channels if it is 1, 3 or 4, unless the first
    counts images of the data set, whose shape is (H, W, C).
    """
    if isinstance(pictures, SINGLE):
        return [pictures]
    if isinstance(pictures, Sequence):
        return list(pictures)
    array = np.asarray(pictures)
    if array.ndim == 2 and array.shape[1] == math.prod(image_shape):  # A row an image.
        array = array.reshape(-1, *image_shape)
    shape = array.shape
    if not 2 <= array.ndim <= 4:
        raise UserError(f"expected pictures [N, H, W, C], [H, W, C] or [H, W], got shape {shape}")
    many = array.ndim == 4 or shape[1:] == image_shape[:2] or shape[-1] not in CHANNELS
    return list(array) if array.ndim > 2 and many and shape != image_shape else [array]


def to_picture(picture: Picture, side: int) -> Image.Image:
    """One picture as `read_picture` decodes it; `side` is as there."""
    if isinstance(picture, Image.Image):
        with contextlib.suppress(Exception):  # As of a file whose metadata are damaged.
            picture = ImageOps.exif_transpose(picture)
        return to_8_bits(picture)
    if isinstance(picture, bytes):
        return read_picture(picture, side)
    if isinstance(picture, str | os.PathLike):
        return read_picture(Path(os.path.expanduser(picture)), side)
    pixels = as_pixels(picture)
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in CHANNELS)):
        raise UserError(f"expected a picture [H, W] or [H, W, C], got shape {pixels.shape}")
    return to_8_bits(Image.fromarray(pixels))
