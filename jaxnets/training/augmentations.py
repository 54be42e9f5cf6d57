"""Augmentations on the device, in the step, and their composition.

The pictures travel as bytes, and there is no worker process whose order could change the result.
Each augmentation is a pure function of one key per example. The key comes from the run's seed, the
step and the example's place in the batch. So a run gives the same bits interrupted or not, on one
device or several, with autodiff or hand-derived gradients.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnets.data.batches import Batch
from jaxnets.losses import probabilities_of
from jaxnets.training.augment import Augment, crop_at, to_float
from jaxnets.training.crops import center_crop, window_of

# Folded into the step's key, which dropout uses too, with the small numbers of devices and layers.
STREAM = 0x61756721
# The order in which they are applied. Each draws from keys of its own, whatever the others are.
ORDER = ("crop", "flip", "colour", "pca", "cutout", "mixup")

JITTER = 0.4  # Of brightness, contrast and saturation.
COLOUR_DEVIATION = 0.1  # Krizhevsky et al. 2012.
MIXUP_ALPHA = 0.2  # Zhang et al. 2018, of the range 0.1 to 0.4 for ImageNet.
LUMINANCE = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale.


def compose(
    names: Sequence[str],
    num_classes: int,
    input_size: int | None = None,
    components: np.ndarray | None = None,
) -> Augment:
    """Composes augmentations in the order of ORDER, as `augment.augmentation` describes."""
    names = [name for name in ORDER if name in names]
    changes = {"flip": flip, "colour": colour, "cutout": cutout}
    if "pca" in names:
        changes["pca"] = functools.partial(pca, components=jnp.asarray(components))

    def augment(key: jax.Array, batch: Batch, first: Any) -> Batch:
        places = first + jnp.arange(len(batch.labels))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, STREAM), places)

        def keys_of(name: str) -> jax.Array:
            return jax.vmap(jax.random.fold_in, (0, None))(keys, ORDER.index(name))

        # Windows are cut out of bytes, a quarter of the traffic.
        if "crop" in names:
            images = crop(keys_of("crop"), batch.images, input_size)
        else:
            images = center_crop(batch.images, input_size)
        images = to_float(images)
        for name in names:
            if name in changes:
                images = changes[name](keys_of(name), images)
        batch = batch._replace(images=images)
        if "mixup" in names:
            batch = mixup(keys_of("mixup"), batch, num_classes)
        # Else XLA fuses the network's first layer into this, and rounds as that is compiled: in
        # float64 the gradients of two programs then differed by 3e-8 (jax 0.12.0).
        return lax.optimization_barrier(batch) if names else batch

    return augment


def crop(keys: jax.Array, images: jax.Array, input_size: int | None = None) -> jax.Array:
    """A random window of each image.

    From pictures larger than input_size it cuts a window of that size (224 of 256: Krizhevsky et
    al. 2012, section 4.1). Other images move by up to an eighth of their height, black moving in
    (4 of 32 pixels: He et al. 2016, section 4.2).

    Args:
      keys: [B].
      images: [B, H, W, C] of any dtype.
      input_size: The network's input size; None if it takes images of any size.

    Returns:
      [B, h, w, C]; every window has the same probability.
    """
    size = window_of(images.shape, input_size)
    if size == images.shape[1:3]:
        margin = images.shape[1] // 8
        images = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    room = jnp.array(images.shape[1:3]) - jnp.array(size) + 1
    corners = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, room))(keys)
    return crop_at(images, corners[:, 0], corners[:, 1], size)


def flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image, left and right, with probability 1/2."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def colour(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Changes brightness, contrast and saturation, in this order, by factors from 0.6 to 1.4.

    Source: torchvision.transforms.ColorJitter(0.4, 0.4, 0.4), which draws the order too.
    """
    low, high = 1 - JITTER, 1 + JITTER
    factors = jax.vmap(lambda key: jax.random.uniform(key, (3,), jnp.float32, low, high))(keys)
    for number, adjust in enumerate((brightness, contrast, saturation)):
        images = adjust(images, factors[:, number, None, None, None])
    # Else XLA computes all of it again for each use by what follows: all augmentations together
    # then took three times as long on a CPU (jax 0.12.0).
    return lax.optimization_barrier(images)


def brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns f x, clipped to [0, 1]; factors [B, 1, 1, 1]."""
    return jnp.clip(factors * images, 0, 1)


def contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns m + f (x - m), m an image's mean grey, clipped to [0, 1]; factors [B, 1, 1, 1]."""
    mean = grey(images.mean(axis=(1, 2), keepdims=True))
    return jnp.clip(mean + factors * (images - mean), 0, 1)


def saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns g + f (x - g), g each pixel's grey, clipped to [0, 1]; factors [B, 1, 1, 1]."""
    pixel = grey(images)
    return jnp.clip(pixel + factors * (images - pixel), 0, 1)


def grey(images: jax.Array) -> jax.Array:
    """Returns the luminance [B, H, W, 1]; a grey image passes unchanged."""
    if images.shape[3] == 1:
        return images
    red, green, blue = (images[..., channel : channel + 1] for channel in range(3))
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


def pca(keys: jax.Array, images: jax.Array, components: jax.Array) -> jax.Array:
    """Adds Σᵢ αᵢ λᵢ vᵢ to every pixel of an image, αᵢ from N(0, 0.1) once for each image.

    Args:
      keys: [B].
      images: [B, H, W, 3].
      components: [3, 3], column i is λᵢ vᵢ.

    Source: Krizhevsky et al. 2012, section 4.1. Pixels may leave [0, 1], as there.
    """
    alphas = jax.vmap(lambda key: jax.random.normal(key, (3,), images.dtype))(keys)
    moves = (COLOUR_DEVIATION * alphas[:, None, :] * components).sum(axis=2)
    return images + moves[:, None, None, :]


def cutout(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Blackens a square around a random pixel of each image.

    Its side is a quarter of the image's height; where it reaches over the edge it is smaller.
    Source: DeVries and Taylor 2017, section 3.
    """
    height, width = images.shape[1:3]
    side = height // 4
    centres = jax.vmap(lambda k: jax.random.randint(k, (2,), 0, jnp.array([height, width])))(keys)
    first = centres - side // 2

    def inside(axis: int, length: int) -> jax.Array:
        positions = jnp.arange(length) - first[:, axis, None]
        return (positions >= 0) & (positions < side)

    hole = inside(0, height)[:, :, None, None] & inside(1, width)[:, None, :, None]
    return jnp.where(hole, 0, images)


def mixup(keys: jax.Array, batch: Batch, num_classes: int) -> Batch:
    """Mixes each example with the one before it in the batch, the first with the last.

        image = w image + (1 - w) other image,  y = w y + (1 - w) other y,  w from Beta(0.2, 0.2)

    The order of an epoch is random, so the neighbour is a random example. Every example has its own
    w. Padding is never mixed in. Under pmap each device mixes its own share of the batch.

    Args:
      keys: [B].
      batch: Labels [B] integers.
      num_classes: K.

    Returns:
      The batch with labels [B, K] float32.

    Source: Zhang et al. 2018, equation 1, which draws one w for a batch.
    """

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.beta(key, MIXUP_ALPHA, MIXUP_ALPHA, dtype=jnp.float32)

    labels = probabilities_of(batch.labels, num_classes, jnp.float32)
    real = jnp.roll(batch.mask, 1) > 0
    weights = jnp.where(real, jax.vmap(draw)(keys), 1)

    def mixed(x: jax.Array) -> jax.Array:
        column = (-1, *(1,) * (x.ndim - 1))
        other = jnp.where(real.reshape(column), jnp.roll(x, 1, axis=0), x)
        weight = weights.reshape(column).astype(x.dtype)
        return weight * x + (1 - weight) * other

    return batch._replace(images=mixed(batch.images), labels=mixed(labels))
