"""A trained run at work on pictures that it has never seen.

>>> from jaxnets.serving.predict import load_predictor
>>> load_predictor("no/such/run")
Traceback (most recent call last):
jaxnets.errors.UserError: workdir: expected a run folder, found no config.json in no/such/run
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxnets.config.fields import Config
from jaxnets.data.datasets import MAX_CLASSES
from jaxnets.data.pictures.decode import to_square
from jaxnets.errors import UserError
from jaxnets.experiment import create_model
from jaxnets.machine.platform import compiler_options, prepare
from jaxnets.models.chain import Chain
from jaxnets.runs.resume import read_config
from jaxnets.runs.run_folder import CONFIG, RunFolder
from jaxnets.serving.digit import SIDE, to_digit
from jaxnets.training.augment import to_float
from jaxnets.training.crops import center_crop

BATCH = 128  # The most pictures that the network is given at once.
MAX_SIDE = 4096  # The largest side of a stored picture that is believed.


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The network of a run: pictures to probabilities.

    Attributes:
      config: The run's.
      image_shape: (H, W, C) of the images that it was trained on, as they were stored.
      class_names: K texts, from files: whoever shows them escapes them.
      as_digits: Whether a picture is taken for a photo or scan of one written character and made
        into what MNIST would hold of it, or only cut to a square.
      step: Training steps behind the parameters.
      finished: Whether the run came to its end.
      forward: (images [B, H, W, C] uint8) -> [B, K] float32, compiled.
    """

    config: Config
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    as_digits: bool
    step: int
    finished: bool
    forward: Callable[[np.ndarray], jax.Array]

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """The probability of each class, for each picture.

        Args:
          pictures: Of Pillow, of any size and mode.

        Returns:
          [N, K] float32, softmax of the logits; rows add up to 1.

        Raises:
          BadPictureError: A digit was expected and a picture has no ink.
        """
        images = np.zeros((len(pictures), *self.image_shape), np.uint8)
        for row, picture in enumerate(pictures):
            images[row] = self.prepare(picture)
        return self.probabilities(images)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """A picture as the data set would hold it: [H, W, C] uint8.

        Raises:
          BadPictureError: A digit was expected and there is no ink.
        """
        if self.as_digits:
            return to_digit(picture)[..., None]
        height, width, _ = self.image_shape
        if height != width:
            raise UserError(f"expected a run on square images, this one has {height} x {width}")
        return to_square(picture, self.image_shape)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """The part of a prepared image that reaches the network: [h, w, C]."""
        return center_crop(image[None], self.config.input_size)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability of each class: [N, H, W, C] uint8 → [N, K] float32.

        The network sees batches of one size, at most BATCH, a power of two: few are ever compiled.
        """
        out = np.zeros((len(images), len(self.class_names)), np.float32)
        size = min(BATCH, 1 << max(len(images) - 1, 0).bit_length())
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padded = np.zeros((size, *self.image_shape), np.uint8)
            padded[: len(batch)] = batch
            out[start : start + size] = np.asarray(self.forward(padded))[: len(batch)]
        return out


def load_predictor(workdir: str, prepare_as: str = "auto") -> Predictor:
    """Loads a run's network from its last checkpoint; the data set is not needed.

    Args:
      workdir: The run folder, of a finished or an interrupted run.
      prepare_as: "digit": a picture is a photo or scan of one written character; "picture": it is
        cut to a square and resized; "auto": digit for runs on images of 28 x 28 in grey whose
        classes all have a name of one character, as MNIST's.

    Raises:
      UserError: It is no run folder, or a damaged one, or has no checkpoint yet.
    """
    folder = RunFolder.open(workdir)
    config = read_config(folder)
    image_shape, class_names = _form(folder)
    is_digit_size = image_shape == (SIDE, SIDE, 1)
    if prepare_as == "digit" and not is_digit_size:
        raise UserError(f"prepare: digits are {(SIDE, SIDE, 1)}, the run has images {image_shape}")
    as_digits = prepare_as == "digit" or (
        prepare_as == "auto" and is_digit_size and all(len(name) == 1 for name in class_names)
    )
    prepare(None, config.precision)
    model = create_model(config, len(class_names))
    step, params = folder.read_params(_params_like(folder, config, model, image_shape))
    return Predictor(
        config=config,
        image_shape=image_shape,
        class_names=class_names,
        as_digits=as_digits,
        step=step,
        finished=folder.finished,
        forward=_forward(config, model, params),
    )


def _form(folder: RunFolder) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The images' shape and the classes' names, from config.json, which may be anybody's."""
    written, where = folder.read_config(), folder.path / CONFIG
    shape, count = written.get("image_shape"), written.get("num_classes")
    if shape is None or count is None:
        raise UserError(
            f"{where}: expected image_shape and num_classes, found none: the run is of an earlier "
            "version, train it again"
        )
    sides = shape if isinstance(shape, list) else []
    if not (
        len(sides) == 3
        and all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides)
        and sides[2] in (1, 3)
    ):
        raise UserError(f"{where}: image_shape: expected [H, W, 1 or 3], found {shape!r}")
    if type(count) is not int or not 2 <= count <= MAX_CLASSES:
        raise UserError(f"{where}: num_classes: expected 2 to {MAX_CLASSES}, found {count!r}")
    names = written.get("class_names", [str(number) for number in range(count)])
    if (
        not isinstance(names, list)
        or len(names) != count
        or not all(isinstance(name, str) for name in names)
    ):
        raise UserError(f"{where}: class_names: expected {count} texts, found {names!r:.80}")
    return (sides[0], sides[1], sides[2]), tuple(names)


def _params_like(
    folder: RunFolder, config: Config, model: Chain, image_shape: tuple[int, ...]
) -> Any:
    """The parameters' shapes; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)

    def init(image):
        return model.init(jax.random.key(0), to_float(center_crop(image, config.input_size)))[
            "params"
        ]

    try:
        like = jax.eval_shape(init, image)
        if all(leaf.size for leaf in jax.tree.leaves(like)):
            return like
    except (ZeroDivisionError, TypeError, ValueError):  # What Flax makes of sizes that do not fit.
        pass
    raise UserError(f"{folder.path / CONFIG}: damaged: no {config.model} takes {image_shape}")


def _forward(config: Config, model: Chain, params: Any) -> Callable[[np.ndarray], jax.Array]:
    """The compiled way from images to probabilities, as an evaluation sees them."""
    params = jax.device_put(params)

    def forward(params, images):
        images = to_float(center_crop(images, config.input_size))
        logits = model.apply({"params": params}, images)
        return jax.nn.softmax(jnp.asarray(logits, jnp.float32))

    compiled = jax.jit(forward, compiler_options=compiler_options())
    return lambda images: compiled(params, images)
