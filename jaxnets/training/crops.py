"""Windows of pictures: crops of those larger than the network's input, shifts, and views."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jax import lax

from jaxnets.data.batches import SHIFT
from jaxnets.training.pixels import Images


def window_of(image: jax.Array, corner: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Cuts a window [h, w, C] out of an image [H, W, C] at its first row and column.

    Mapped over the images this is one gather of whole windows, the fastest form on a CPU: 1.5 ms
    for 128 pictures of 256² bytes to 224². A loop takes 2.2 ms, products with one-hot matrices
    330 ms, and NumPy on the host 3.5 ms (jax 0.12.0, two cores).
    """
    start = (corner[0], corner[1], jnp.zeros_like(corner[0]))  # Of one type, also in 64 bits.
    return lax.dynamic_slice(image, start, (*size, image.shape[2]))


def shift(images: jax.Array, corners: jax.Array) -> jax.Array:
    """Moves images [B, H, W, C] as `data.batches.shift` does on the host.

    The corners [B, 2] are drawn on the host by `data.batches.shift_corners`.
    """
    padded = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    windows = jax.vmap(window_of, (0, 0, None))
    return windows(padded, corners.astype(jnp.int32), images.shape[1:3])


def window_size(shape: tuple[int, ...], input_size: int | None) -> tuple[int, int]:
    """Returns the rows and columns of stored images [..., H, W, C] that the network sees.

    These are at most input_size: the layer `Enlarge` enlarges smaller images. Without an
    input_size the network takes images as they are stored.
    """
    height, width = shape[-3:-1]
    return min(height, input_size or height), min(width, input_size or width)


@overload
def center_crop(images: np.ndarray, input_size: int | None) -> np.ndarray: ...
@overload
def center_crop(images: jax.Array, input_size: int | None) -> jax.Array: ...
def center_crop(images: Images, input_size: int | None) -> Images:
    """Cuts out the middle, [..., h, w, C], of images [..., H, W, C].

    An odd margin has its extra row below and its extra column on the right. Without an input_size
    the images stay whole.
    """
    if input_size is None:
        return images
    height, width = window_size(images.shape, input_size)
    top, left = (images.shape[-3] - height) // 2, (images.shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


def with_center_crop(apply: Callable[..., Any], input_size: int) -> Callable[..., Any]:
    """Returns the network applied to the middle of each image."""
    return lambda variables, images: apply(variables, center_crop(images, input_size))


def ten_crops(images: jax.Array, input_size: int) -> jax.Array:
    """Returns the corners and the middle of each image, then their mirrors: [10, B, h, w, C].

    Source: Krizhevsky et al. 2012, section 4.1.
    """
    height, width = window_size(images.shape, input_size)
    corners = [
        images[:, rows, columns]
        for rows in (slice(height), slice(images.shape[1] - height, None))
        for columns in (slice(width), slice(images.shape[2] - width, None))
    ]
    crops = jnp.stack([*corners, center_crop(images, input_size)])
    return jnp.concatenate([crops, crops[:, :, :, ::-1]])


def with_ten_crops(apply: Callable[..., Any], input_size: int) -> Callable[..., Any]:
    """Returns a network of the whole images: its mean probabilities over ten crops.

        p = 1/10 Σᵢ softmax(zᵢ),  zᵢ = apply(crop i)

    It returns log p [B, K], whose softmax is p: every loss and metric takes log p as logits, and
    the cross-entropy is -log p[label].
    """

    def mean_log_probabilities(variables: VariableDict, images: jax.Array) -> jax.Array:
        crops = ten_crops(images, input_size)
        logits = apply(variables, crops.reshape(-1, *crops.shape[2:]))
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        log_p = jax.nn.log_softmax(logits).reshape(10, len(images), -1)
        return jax.nn.logsumexp(log_p, axis=0) - jnp.log(10.0).astype(log_p.dtype)

    return mean_log_probabilities


def unmoved(images: jax.Array) -> jax.Array:
    """The images [B, H, W, C], unchanged."""
    return images


def mirrored(images: jax.Array) -> jax.Array:
    """The mirror of each image."""
    return images[:, :, ::-1]


def moved(images: jax.Array, pixels: int) -> jax.Array:
    """Moves each image down and right by this many pixels, or up and left if it is negative.

    The pixels that move in are mirrored at the edge.
    """
    height, width = images.shape[1:3]
    size = abs(pixels)
    padded = jnp.pad(images, ((0, 0), (size, size), (size, size), (0, 0)), mode="reflect")
    first = size - pixels
    return padded[:, first : first + height, first : first + width]


# The views of an image, each with its weight in the mean.
VIEWS = {
    "mirror": ((1 / 2, unmoved), (1 / 2, mirrored)),
    "shift": (
        (1 / 2, unmoved),
        (1 / 4, functools.partial(moved, pixels=1)),
        (1 / 4, functools.partial(moved, pixels=-1)),
    ),
}


def count_views(names: Sequence[str]) -> int:
    """The number of views of an image that `with_views` takes."""
    return math.prod(len(VIEWS[name]) for name in names)


def with_views(apply: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns the network's mean logits over views of each image.

        z = Σᵢ wᵢ apply(view i),  Σᵢ wᵢ = 1

    "mirror" has two views, "shift" has three, and both together have six.

    Args:
      apply: The network: (variables, images [B, H, W, C]) -> logits [B, K].
      names: Keys of VIEWS.

    Source: Jordan 2024, arXiv:2404.00498, section 3.5.
    """
    # Each choice of one view from every name, one applied after the other.
    chosen = list(itertools.product(*(VIEWS[name] for name in names)))
    weights = np.array([math.prod(weight for weight, _ in steps) for steps in chosen])

    def mean_logits(variables: VariableDict, images: jax.Array) -> jax.Array:
        views = [
            functools.reduce(lambda view, step: step[1](view), steps, images) for steps in chosen
        ]
        logits = apply(variables, jnp.concatenate(views))
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        logits = logits.reshape(len(views), len(images), -1)
        return jnp.einsum("v,vbk->bk", jnp.asarray(weights, logits.dtype), logits)

    return mean_logits
