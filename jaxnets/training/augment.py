"""Augmentations on the device, in the step.

The pictures travel as bytes, and there is no worker process whose order could change the result.
Each augmentation is a pure function of one image and its key. The key comes from the run's seed,
the step and the example's place in the batch. So a run sees the same pictures to the last bit,
interrupted or not, on one device or several, with autodiff or hand-derived gradients.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxnets.base.errors import UserError
from jaxnets.base.trees import Tree
from jaxnets.config.fields import Config
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset
from jaxnets.losses import probabilities_of
from jaxnets.training.crops import center_crop, window_of, window_size
from jaxnets.training.loader import SHIFT, TrainLoader
from jaxnets.training.pixels import to_float
from jaxnets.training.step import Augment, Number, no_augmentation

Change = Callable[[jax.Array, jax.Array], jax.Array]  # (key, image) -> image

# Folded into the step's key, which dropout also uses, with the small numbers of devices and layers.
STREAM = 0x61756721
# The order in which they are applied, mixup last. Each draws from its own keys, those of its
# number. A number never changes, so recorded runs can be trained again.
STREAMS = dict(crop=0, flip=1, pca=3, mixup=5, affine=6, affine_wide=7, strokes=8, custom=9)

COLOUR_DEVIATION = 0.1  # Krizhevsky et al. 2012.
MIXUP_ALPHA = 0.2  # Zhang et al. 2018, of the range 0.1 to 0.4 for ImageNet.


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentation:
    """Augmentations, the crop to the network's input size and label smoothing.

    Called as (key, step, batch, first), it returns the batch with images in float32, and with
    labels [B, K] if there is mixup or smoothing.

    Attributes:
      names: Names of --augment; "shift" is ignored, because the loop shifts the images.
      data: The data set: its colours for pca, its number of classes for mixup.
      input_size: The network's input size. Larger pictures are cropped to it: at random if "crop"
        is among the names, otherwise to the middle.
      label_smoothing: The share of each label that is spread over all classes, from 0 to 1.
      until: The first step that changes no image at random.
      custom: A user's function (key, image [H, W, C]) -> image of that shape, if "custom" is among
        the names. If it has a parameter `epoch`, it gets the number of the pass there, from 0.
      steps_per_pass: The number of steps in which every image occurs once.
      dtype: The dtype of labels with mixup or smoothing.
      platform: The devices' kind.
    """

    names: Sequence[str]
    data: Dataset
    input_size: int | None = None
    label_smoothing: float = 0.0
    until: float = np.inf
    custom: Callable[..., jax.Array] | None = None
    steps_per_pass: int = 1
    dtype: DTypeLike = jnp.float32
    platform: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses images without three colours now, not at the first step."""
        if "pca" in self.names:
            _ = self._components

    def __call__(self, key: jax.Array, step: Number, batch: Batch, first: Number) -> Batch:
        places = first + jnp.arange(len(batch.labels))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, STREAM), places)
        apply = partial(self._apply, keys, step)
        # Windows are cut out of bytes: a quarter of the traffic.
        middle = partial(center_crop, input_size=self.input_size)
        if "crop" in self.names:
            window = jax.vmap(partial(crop, input_size=self.input_size))
            images = apply("crop", window, middle, batch.images)
        else:
            images = middle(batch.images)
        images = to_float(images)
        for name, change in self._per_image(step).items():
            images = apply(name, jax.vmap(change), lambda x: x, images)
        batch = batch._replace(images=images)
        if "mixup" in self.names:
            batch = apply("mixup", self._mixed, self._with_probabilities, batch)
        if self.label_smoothing:
            batch = smoothed(self._with_probabilities(batch), self.label_smoothing)
        return batch

    def _apply(
        self,
        keys: jax.Array,
        step: Number,
        name: str,
        change: Callable[[jax.Array, Any], Tree],
        otherwise: Callable[[Any], Any],
        x: object,
    ) -> Tree:
        """Changes x by the named augmentation's own keys, from step `until` on not at random."""
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, STREAMS[name])
        if self.until == np.inf and self.platform != "cpu":
            # On an accelerator the host would wait for the condition.
            return lax.optimization_barrier(change(own, x))
        # XLA fuses nothing across a conditional. Otherwise, on the CPU, it computes x anew for each
        # use of it (benchmarks/augment.py: affine and strokes take 3.1 instead of 0.8 ms). It also
        # computes the images with the network's first layer, with that layer's rounding: the
        # gradients by hand and of jax.grad differed by 3e-8 in float64 (jax 0.10.2, 0.12.0).
        return lax.cond(step < self.until, change, lambda _, x: otherwise(x), own, x)

    def _per_image(self, step: Number) -> dict[str, Change]:
        """The changes of one float image, in the order in which they are applied."""
        changes: dict[str, Change] = dict(
            flip=flip, affine=affine, affine_wide=affine_wide, strokes=strokes
        )
        if "pca" in self.names:
            changes["pca"] = partial(pca, components=jnp.asarray(self._components))
        if self.custom is not None:
            own = in_pass(self.custom, step // self.steps_per_pass)
            changes["custom"] = partial(checked, change=own)
        return {name: changes[name] for name in STREAMS if name in self.names and name in changes}

    @cached_property
    def _components(self) -> np.ndarray:
        return principal_components(self.data)

    def _mixed(self, keys: jax.Array, batch: Batch) -> Batch:
        return mixup(keys, self._with_probabilities(batch))

    def _with_probabilities(self, batch: Batch) -> Batch:
        labels = probabilities_of(jnp.asarray(batch.labels), self.data.num_classes, self.dtype)
        return batch._replace(labels=labels)


def in_pass(change: Callable[..., jax.Array], number: Number) -> Change:
    """A user's function of a key and an image; its parameter `epoch` gets the number."""
    takes = "epoch" in inspect.signature(change).parameters
    return partial(change, epoch=number) if takes else change


def checked(key: jax.Array, image: jax.Array, change: Change) -> jax.Array:
    """An image changed by a user's function."""
    changed = jnp.asarray(change(key, image), image.dtype)
    if changed.shape != image.shape:
        raise UserError(
            "augment: expected an image of shape {}, got one of {}", image.shape, changed.shape
        )
    return changed


def smoothed(batch: Batch, share: float) -> Batch:
    """Spreads a share of each label [K] evenly over all classes.

    y' = (1 - s) y + s / K. The loss and its derivation hold for any probabilities y', as after
    mix-up; Keras and PyTorch call the same label_smoothing.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".
    """
    labels = (1 - share) * batch.labels + share / batch.labels.shape[1]
    return batch._replace(labels=labels)


def crop(key: jax.Array, image: jax.Array, input_size: int | None = None) -> jax.Array:
    """A random window [h, w, C] of an image [H, W, C] of any dtype, each equally probable.

    From a picture larger than input_size it cuts a window of that size (224 of 256: Krizhevsky et
    al. 2012, section 4.1). It moves any other image by up to an eighth of its height, and black
    moves in (4 of 32 pixels: He et al. 2016, section 4.2).
    """
    size = window_size(image.shape, input_size)
    if size == image.shape[:2]:
        margin = image.shape[0] // 8
        image = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    room = jnp.array(image.shape[:2]) - jnp.array(size) + 1
    return window_of(image, jax.random.randint(key, (2,), 0, room), size)


def flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirrors an image left to right, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def pca(key: jax.Array, image: jax.Array, components: jax.Array) -> jax.Array:
    """Adds Σᵢ αᵢ λᵢ vᵢ to every pixel [3] of an image, αᵢ from N(0, 0.1) once for the image.

    Column i of the components is λᵢ vᵢ. As in the source (Krizhevsky et al. 2012, section 4.1),
    pixels may leave [0, 1].
    """
    alphas = jax.random.normal(key, (3,), image.dtype)
    return image + (COLOUR_DEVIATION * alphas * components).sum(axis=1)


def principal_components(data: Dataset, sample: int = 1000) -> np.ndarray:
    """Returns the principal components of the training pixels' colours, each times its eigenvalue.

    Column i of the [3, 3] float32 is λᵢ vᵢ of the covariance of (R, G, B) in [0, 1], λ ascending,
    vᵢ of length 1 with its largest number positive. It takes `sample` images at equal distances.
    """
    images, channels = data.train.images, data.image_shape[2]
    if channels != 3:
        raise UserError(
            "augment: pca needs 3 channels, the images of {} have {}", data.name, channels
        )
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


def affine(key: jax.Array, image: jax.Array, degrees: float = 10, share: float = 0.1) -> jax.Array:
    """Rotates, scales, shears and moves an image; black moves in.

    It rotates by up to the given degrees, scales height and width by up to the share, shears by up
    to the share and moves by up to 2 pixels, all uniformly at random. Source: Simard et al. 2003,
    "Best practices for convolutional neural networks applied to visual document analysis", section
    2.
    """
    turn, high, wide, sheared, down, right = jax.random.uniform(key, (6,), jnp.float32, -1, 1)
    angle = jnp.deg2rad(degrees) * turn
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    shear = jnp.array([[1.0, share * sheared], [0.0, 1.0]])
    scale = jnp.diag(1 / jnp.array([1 + share * high, 1 + share * wide]))
    return warp(image, rotation @ shear @ scale, 2.0 * jnp.array([down, right]))


def affine_wide(key: jax.Array, image: jax.Array) -> jax.Array:
    """Rotates, scales and shears more than `affine`, for other people's handwriting.

    Source: Cireşan et al. 2010, "Deep big simple neural nets excel on handwritten digit
    recognition".
    """
    return affine(key, image, degrees=15, share=0.15)


def warp(image: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Returns the image [H, W, C] whose pixel p is the given one's at A (p - m) + m + offset.

    m is the middle. Between pixels it interpolates linearly; outside it is black.
    """
    height, width = image.shape[:2]
    middle = (jnp.array([height, width]) - 1) / 2
    pixels = jnp.stack(jnp.meshgrid(*map(jnp.arange, (height, width)), indexing="ij"), axis=-1)
    place = (pixels - middle) @ matrix.T + middle + offset
    corner = jnp.floor(place)
    share, corner = place - corner, corner.astype(jnp.int32) + 1  # In the image with margins.
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    warped = jnp.zeros((), image.dtype)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows = jnp.clip(corner[..., 0] + down, 0, height + 1)
        columns = jnp.clip(corner[..., 1] + right, 0, width + 1)
        weight = jnp.abs(1 - down - share[..., 0]) * jnp.abs(1 - right - share[..., 1])
        warped += weight[..., None].astype(image.dtype) * padded[rows, columns]
    return warped


def strokes(key: jax.Array, image: jax.Array) -> jax.Array:
    """Thickens or thins bright strokes on a dark ground, by at most half a pixel on each side.

        y = x + max(u, 0) (dilated - x) + max(-u, 0) (eroded - x)      u uniform from -1/2 to 1/2

    A dilated pixel is the maximum of itself and its four neighbours, an eroded one the minimum.
    Source: Haralick, Sternberg and Zhuang 1987, "Image analysis using mathematical morphology",
    section III. Averaging with the image, for less than a pixel, is our addition.
    """
    around = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    places = (around[2:, 1:-1], around[:-2, 1:-1], around[1:-1, 2:], around[1:-1, :-2], image)
    share = jax.random.uniform(key, (), image.dtype, -1 / 2, 1 / 2)
    end = jnp.where(share > 0, reduce(jnp.maximum, places), reduce(jnp.minimum, places))
    return image + jnp.abs(share) * (end - image)


def mixup(keys: jax.Array, batch: Batch) -> Batch:
    """Mixes each example with the one before it in the batch, the first with the last.

        image = w image + (1 - w) other image,  y = w y + (1 - w) other y,  w from Beta(0.2, 0.2)

    The order of an epoch is random, so the neighbour is a random example. Every example has its own
    w, drawn with its own key of the keys [B]. Padding is never mixed in. Under pmap and shard_map
    each device mixes its own share of the batch. The labels are probabilities [B, K].

    Source: Zhang et al. 2018, equation 1, which draws one w for a batch.
    """

    def mixed(key: jax.Array, real: jax.Array, example: Tree, neighbour: Tree) -> Tree:
        weight = jax.random.beta(key, MIXUP_ALPHA, MIXUP_ALPHA, dtype=jnp.float32)
        weight = jnp.where(real, weight, 1)

        def mix(x: jax.Array, other: jax.Array) -> jax.Array:
            w = weight.astype(x.dtype)
            return w * x + (1 - w) * jnp.where(real, other, x)

        return jax.tree.map(mix, example, neighbour)

    examples = batch.images, batch.labels
    before, real = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), (examples, batch.mask > 0))
    images, labels = jax.vmap(mixed)(keys, real, examples, before)
    return batch._replace(images=images, labels=labels)


def with_images_in(dtype: DTypeLike, augment: Augment) -> Augment:
    """The same augmentation with images in a dtype: some layers compute in that of their input."""

    def augment_and_cast(key: jax.Array, step: Number, batch: Batch, first: Number) -> Batch:
        batch = augment(key, step, batch, first)
        return batch._replace(images=batch.images.astype(dtype))

    return augment_and_cast


def augment_of(
    config: Config, data: Dataset, loader: TrainLoader, dtype: DTypeLike, platform: str
) -> Augment:
    """The change of each batch before its step: all that the config asks for, except shifts.

    Args:
      config: The names of the augmentations, the input size and the label smoothing.
      data: The data set.
      loader: The training data in batches, some epochs of which are not augmented.
      dtype: The dtype of the images, and of labels with mixup or smoothing.
      platform: The devices' kind.
    """
    names, size, smoothing = config.augmentations, config.input_size, config.label_smoothing
    augment = no_augmentation
    if size is not None or smoothing or set(names) - {SHIFT}:
        augment = Augmentation(
            names,
            data,
            size,
            smoothing,
            until=loader.augmented_epochs * loader.steps,
            custom=config.augment if callable(config.augment) else None,
            steps_per_pass=loader.steps_per_pass,
            dtype=dtype,
            platform=platform,
        )
    return with_images_in(dtype, augment)
