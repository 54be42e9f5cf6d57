"""Crops of pictures that are stored larger than the network's input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Images = Any  # A NumPy array or a JAX array.


def window_of(shape: tuple[int, ...], input_size: int | None) -> tuple[int, int]:
    """Returns the rows and columns of stored images [B, H, W, C] that the network sees.

    These are at most input_size: the layer `Enlarge` enlarges smaller images. Without an
    input_size the network takes images as they are stored.
    """
    height, width = shape[1:3]
    return min(height, input_size or height), min(width, input_size or width)


def center_crop(images: Images, input_size: int | None) -> Images:
    """Cuts out the middle of each image.

    Args:
      images: [B, H, W, C].
      input_size: The largest side of the window; None leaves the images whole.

    Returns:
      [B, h, w, C]; an odd margin has its extra row below and its extra column on the right.
    """
    if input_size is None:
        return images
    height, width = window_of(images.shape, input_size)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def with_center_crop(apply: Callable[..., Any], input_size: int | None) -> Callable[..., Any]:
    """Returns the network applied to the middle of each image."""
    return lambda variables, images, **arguments: apply(
        variables, center_crop(images, input_size), **arguments
    )


def ten_crops(images: jax.Array, input_size: int | None) -> jax.Array:
    """Returns the corners and the middle of each image, then the same mirrored: [10, B, h, w, C].

    Source: Krizhevsky et al. 2012, section 4.1.
    """
    height, width = window_of(images.shape, input_size)
    corners = [
        images[:, rows, columns]
        for rows in (slice(height), slice(images.shape[1] - height, None))
        for columns in (slice(width), slice(images.shape[2] - width, None))
    ]
    crops = jnp.stack([*corners, center_crop(images, input_size)])
    return jnp.concatenate([crops, crops[:, :, :, ::-1]])


def with_ten_crops(apply: Callable[..., Any], input_size: int | None) -> Callable[..., Any]:
    """Returns the network's mean probabilities over ten crops, as a network of the whole images.

        p = 1/10 Σᵢ softmax(zᵢ),  zᵢ = apply(crop i)

    It returns log p, whose softmax is p: every loss and metric takes log p as logits, and the
    cross-entropy is -log p[label].

    Args:
      apply: A Flax module's (variables, images [B, h, w, C]) -> logits [B, K].
      input_size: The largest side of a crop.

    Returns:
      (variables, images [B, H, W, C]) -> log p [B, K].
    """

    def mean_log_probabilities(variables: Any, images: jax.Array, **arguments: Any) -> jax.Array:
        crops = ten_crops(images, input_size)
        logits = apply(variables, crops.reshape(-1, *crops.shape[2:]), **arguments)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        log_p = jax.nn.log_softmax(logits).reshape(10, len(images), -1)
        return jax.nn.logsumexp(log_p, axis=0) - jnp.log(10.0).astype(log_p.dtype)

    return mean_log_probabilities
