"""What a step does to its batch before the network sees it: bytes to floats, and augmentation.

The augmentations themselves are in augmentations.py, which only runs that use them load.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.data.batches import SHIFT, Batch

Images = Any  # A NumPy array or a JAX array.
# (the step's key, a batch, the place of its first row in the whole batch) -> the augmented batch
Augment = Callable[[jax.Array, Batch, Any], Batch]

# 1/255 = 0.010101..., in base 256, is cut in two: a byte times the first part has no more than 24
# binary digits, so that only the addition rounds. XLA would multiply by the rounded 1/255 instead,
# and 126 of the 256 bytes would differ from NumPy's quotient in their last digit.
THREE_DIGITS, REST = np.float32(0x010101 / 2**24), np.float32(1 / 255 / 2**24)


def to_float(images: Images) -> Images:
    """Bytes 0 to 255 as float32 from 0 to 1, correctly rounded; floats pass unchanged.

    Pictures stay bytes until they are on the device, where only this function turns them into
    numbers: a quarter of the memory and of the transfer.

    Args:
      images: [B, H, W, C] uint8 or floating, in NumPy or JAX.

    Returns:
      The same shape, in NumPy or JAX as the argument.

    >>> to_float(np.array([0, 51, 255], np.uint8)).tolist() == [0.0, float(np.float32(0.2)), 1.0]
    True
    """
    if images.dtype != np.uint8:
        return images
    images = images.astype(np.float32)
    return images * THREE_DIGITS + images * REST


def no_augmentation(key: jax.Array, batch: Batch, first: Any) -> Batch:
    """Returns the batch, its images as floats."""
    return batch._replace(images=to_float(batch.images))


def augmentation(
    names: Sequence[str],
    num_classes: int,
    input_size: int | None = None,
    components: np.ndarray | None = None,
) -> Augment:
    """Composes augmentations and the crop to the network's input size.

    Args:
      names: Names of --augment; "shift" is ignored, the loop shifts the images.
      num_classes: K, for mixup.
      input_size: The network's input size, to which larger pictures are cropped: at random if
        "crop" is among the names, else to the middle.
      components: For pca, the result of `principal_components`.

    Returns:
      (key, batch, first) -> batch, images float32; labels [B, K] float32 after mixup.
    """
    if input_size is None and set(names) <= {"none", "shift"}:
        return no_augmentation
    from jaxnets.training.augmentations import compose

    return compose(names, num_classes, input_size, components)


def crop_at(images: jax.Array, tops: jax.Array, lefts: jax.Array, size: tuple[int, int]):
    """Cuts a window out of each image, each at its own place.

    Mapped over the images this is one gather of whole windows, the fastest form on a CPU: 1.5 ms
    for 128 pictures of 256² bytes to 224². A loop takes 2.2 ms, products with one-hot matrices
    330 ms, and NumPy on the host 3.5 ms (jax 0.12.0, two cores).

    Args:
      images: [B, H, W, C] of any dtype.
      tops: [B] integers, the windows' first rows.
      lefts: [B] integers, their first columns.
      size: (h, w).

    Returns:
      [B, h, w, C].
    """

    def window(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (top, left, 0), (*size, image.shape[2]))

    return jax.vmap(window)(images, tops, lefts)


def shift(images: jax.Array, corners: jax.Array) -> jax.Array:
    """Moves each image as `data.batches.shift` does on the host.

    Args:
      images: [B, H, W, C] of any dtype.
      corners: [B, 2], drawn by `data.batches.shift_corners` on the host.
    """
    height, width = images.shape[1:3]
    margins = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    tops, lefts = corners.T.astype(jnp.int32)
    return crop_at(jnp.pad(images, margins), tops, lefts, (height, width))


def principal_components(images: Any, sample: int = 1000) -> np.ndarray:
    """Returns the principal components of the pixels' colours, each times its eigenvalue.

    Args:
      images: [N, H, W, 3] uint8 or floats in [0, 1].
      sample: The number of images to look at, at equal distances.

    Returns:
      [3, 3] float32; column i is λᵢ vᵢ of the covariance of (R, G, B) in [0, 1], λ ascending, vᵢ of
      length 1 with its largest number positive.
    """
    chosen = np.linspace(0, len(images) - 1, min(sample, len(images))).round().astype(int)
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    for rows in np.array_split(chosen, -(-len(chosen) // 50)):  # Few at once: they may be large.
        pixels = to_float(images[rows]).reshape(-1, 3).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(axis=0)
        products += pixels.T @ pixels
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(3)])
    return (values * vectors * signs).astype(np.float32)
