"""Loads a trained run and predicts classes of pictures: files, Pillow images, arrays, lists."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from jaxnets.base.described import Described, size_text
from jaxnets.base.errors import UserError, unknown
from jaxnets.config.fields import Config
from jaxnets.data.arrays import LEAST_SIDE, as_pixels, as_rows, transpose_hint
from jaxnets.data.datasets import Dataset
from jaxnets.data.pictures.decode import BadPictureError, read_picture, to_8_bits, to_square
from jaxnets.machine.platform import compiler_options, default_platform
from jaxnets.models.chain import Chain
from jaxnets.networks.create import create_model
from jaxnets.predict import ENGINES
from jaxnets.predict.digit import LARGEST, SIDE, WORK, to_digit, to_digits
from jaxnets.predict.onnx_engine import onnx_logits, softmax
from jaxnets.predict.trained import TrainedNetwork, load_network, to_input
from jaxnets.training.crops import with_views
from jaxnets.training.pixels import to_float
from jaxnets.training.step import TrainState

PictureLike = Any  # A path, a file's bytes, a Pillow image, or an array [H, W] or [H, W, C].
PictureOrMany = PictureLike | Sequence[PictureLike]  # An array [N, H, W] or [N, H, W, C], too.
Forward = Callable[[np.ndarray], jax.Array | np.ndarray]

BATCH = 128  # The largest number of pictures in a batch.
SINGLE = (str, os.PathLike, bytes, Image.Image)
CHANNELS = (1, 3, 4)


@dataclasses.dataclass(frozen=True, repr=False)
class Predictor(Described):
    """The network of a run, from pictures, or rows of a table, to probabilities."""

    config: Config
    image_shape: tuple[int, ...]  # (H, W, C) of the training images, before crops; (D,) of rows.
    class_names: tuple[str, ...]  # K texts from files: escape them wherever you show them.
    prepare_as: str  # "auto" (one digit), "digit", "digits" or "picture", as `load_predictor` says.
    step: int  # The number of training steps.
    finished: bool
    # The compiled network: images [B, H, W, C] → probabilities [B, K] float32, and → logits.
    forward: Forward
    forward_to_logits: Forward

    def _repr_fields(self) -> dict[str, Any]:
        own = {"image": size_text(self.image_shape), "classes": len(self.class_names)}
        return {"model": self.config.model, **own, "step": self.step}

    def __call__(self, pictures: PictureOrMany, batch_size: int = BATCH) -> np.ndarray:
        """Returns each class's probability, [N, K] float32; a single picture is N = 1.

        Args:
          pictures: One or many, of any size: paths, Pillow images, arrays [H, W] or [H, W, C] in a
            list, or one array [N, H, W, C] or [N, H, W]. Pixels are bytes, or floats from 0 to 1.
            Arrays of the size of the training images pass unchanged; the rest is prepared as
            `jaxnets predict` prepares it. For a table, they are rows [N, D].
          batch_size: The largest number of pictures that the network takes at once.

        Raises:
          UserError: The pixels or the shape of an array are wrong.
          BadPictureError: A file is not a picture; or one digit was expected, and there is no ink,
            or there are several digits.
        """
        if len(self.image_shape) == 1:
            rows = np.atleast_2d(np.asarray(pictures))
            return self.probabilities(as_rows(rows, self.image_shape), batch_size)
        form = self.image_shape
        if isinstance(pictures, np.ndarray) and pictures.size and pictures.shape[1:] == form:
            return self.probabilities(as_pixels(pictures), batch_size)  # One check for all.
        images = []
        for number, picture in enumerate(as_list(pictures, self.image_shape)):
            try:
                images.append(self._image(picture))
            except BadPictureError as error:
                if (shape := getattr(picture, "shape", None)) is not None:
                    size = size_text(shape)
                    raise BadPictureError("picture {} of {}: {}", number, size, error) from None
                name = picture if isinstance(picture, str | os.PathLike) else f"picture {number}"
                raise BadPictureError("{}: {}", name, error) from None
        if any(image.dtype != np.uint8 for image in images):
            images = [to_float(image) for image in images]
        return self.probabilities(images, batch_size)

    def _image(self, picture: PictureLike) -> np.ndarray:
        """The network's input for one picture, [H, W, C] uint8 or float32."""
        if not isinstance(picture, SINGLE):
            pixels = as_pixels(picture)
            is_row = pixels.shape == (math.prod(self.image_shape),)
            if is_row or self.image_shape in (pixels.shape, (*pixels.shape, 1)):
                return pixels.reshape(self.image_shape)
        return self.prepare(to_picture(picture, self.decode_size))

    @property
    def decode_size(self) -> int:
        """The `side` for `read_picture`: a picture does not need more detail."""
        if self.prepare_as == "digits":
            return int(LARGEST**0.5)
        return self.image_shape[0] if self.prepare_as == "picture" else WORK

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Converts a picture to the data set's format, [H, W, C] uint8."""
        if len(self.image_shape) == 1:
            raise UserError("expected rows of {} numbers, got a picture", self.image_shape[0])
        if self.prepare_as != "picture":
            return to_digit(picture, single=self.prepare_as == "auto")[..., None]
        height, width, _ = self.image_shape
        if height != width:
            raise UserError("expected a run on square images, this one has {} x {}", height, width)
        return to_square(picture, self.image_shape)

    def prepare_each(self, picture: Image.Image) -> list[list[np.ndarray]]:
        """Like `prepare`, for each digit of the picture, in lines; else for the whole picture."""
        if self.prepare_as != "digits":
            return [[self.prepare(picture)]]
        return [[image[..., None] for image in line] for line in to_digits(picture)]

    def probabilities(
        self, images: Sequence[np.ndarray] | np.ndarray, batch_size: int = BATCH
    ) -> np.ndarray:
        """Returns the probability of each class for prepared images, [N, H, W, C] → [N, K] float32.

        They are bytes, or floats from 0 to 1.
        """
        return self._in_batches(self.forward, images, batch_size)

    def logits(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Returns the logits of prepared images, [N, H, W, C] → [N, K] float32."""
        return self._in_batches(self.forward_to_logits, images, BATCH)

    def _in_batches(
        self,
        forward: Forward,
        images: Sequence[np.ndarray] | np.ndarray,
        batch_size: int,
    ) -> np.ndarray:
        """Splits the images into batches of one size, at most the power of two above their number.

        Therefore only a few sizes are ever compiled.
        """
        out = np.zeros((len(images), len(self.class_names)), np.float32)
        size = min(batch_size, 1 << max(len(images) - 1, 0).bit_length())
        for start in range(0, len(images), size):
            batch = np.asarray(images[start : start + size])
            count = len(batch)
            if count < size:
                missing = np.zeros((size - count, *self.image_shape), batch.dtype)
                batch = np.concatenate([batch, missing])
            out[start : start + size] = np.asarray(forward(batch))[:count]
        return out


def as_list(pictures: PictureOrMany, image_shape: tuple[int, ...]) -> list[PictureLike]:
    """A list of the pictures; the argument may be one picture, or an array of many.

    The last of three dimensions counts channels if it is 1, 3 or 4, unless the first counts images
    of the data set, whose shape is (H, W, C).
    """
    if isinstance(pictures, SINGLE):
        return [pictures]
    if isinstance(pictures, Sequence):
        return list(pictures)
    array = np.asarray(pictures)
    if array.ndim == 2 and array.shape[1] == math.prod(image_shape):  # An image in each row.
        array = array.reshape(-1, *image_shape)
    shape = array.shape
    hint = transpose_hint(shape)
    if hint or not 2 <= array.ndim <= 4:
        raise UserError(
            "expected pictures [N, H, W, C], [H, W, C] or [H, W], got shape {}{}", shape, hint
        )
    if array.ndim == 2 and min(shape) < LEAST_SIDE and shape != image_shape[:2]:
        sizes = size_text(image_shape), math.prod(image_shape)
        raise UserError("expected pictures of {}, or rows of {} numbers, got {}", *sizes, shape)
    many = array.ndim == 4 or shape[1:] == image_shape[:2] or shape[-1] not in CHANNELS
    return list(array) if array.ndim > 2 and many and shape != image_shape else [array]


def to_picture(picture: PictureLike, side: int) -> Image.Image:
    """One picture, decoded as by `read_picture`, with the same `side`."""
    if isinstance(picture, Image.Image):
        with contextlib.suppress(Exception):  # For example, a file with damaged metadata.
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
        raise UserError("expected a picture [H, W] or [H, W, C], got shape {}", pixels.shape)
    return to_8_bits(Image.fromarray(pixels))


def load_predictor(workdir: str, prepare_as: str = "auto", engine: str = "jax") -> Predictor:
    """Loads a run's network from its last checkpoint; the data set is not needed.

    Args:
      workdir: The folder of a finished or an interrupted run.
      prepare_as: "digit" if a picture is a photo or scan of one written character; "digits" if
        `prepare_each` is to find several; "picture" to cut it to a square and resize it; "auto" for
        "digit" if the run has grey images of 28 x 28 and class names of one character, like
        MNIST's. With "auto", several characters are an error.
      engine: What computes: "jax", or "onnxruntime", which is faster for few pictures on a CPU and
        always computes in float32; pip install 'jaxnets[export]' installs it.

    Raises:
      UserError: The folder holds no run, a damaged one, or no checkpoint yet; or ONNX Runtime is
        missing, or cannot compute a layer.
    """
    return to_predictor(load_network(workdir, takes_rows=True), prepare_as, engine=engine)


def to_predictor(
    trained: TrainedNetwork,
    prepare_as: str = "auto",
    compiled: Callable | None = None,
    engine: str = "jax",
) -> Predictor:
    """A trained network's predictor; `compiled` is JAX's `compile_network`, if known."""
    config, image_shape, class_names = trained.config, trained.image_shape, trained.class_names
    if prepare_as in ("digit", "digits") and image_shape != (SIDE, SIDE, 1):
        raise UserError(
            "prepare: digits are {}, the run has images {}", (SIDE, SIDE, 1), image_shape
        )
    if prepare_as == "auto":
        prepare_as = usual_preparation(image_shape, class_names)
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "onnxruntime":
        in_onnx = onnx_logits(trained)
        forwards = (lambda images: softmax(in_onnx(images))), in_onnx
    else:
        compiled = compiled or compile_network(config, trained.model)
        to_logits = compile_network(config, trained.model, lambda logits: logits)
        params = jax.device_put(trained.params)
        forwards = functools.partial(compiled, params), functools.partial(to_logits, params)
    step, finished = trained.step, trained.finished
    return Predictor(config, image_shape, class_names, prepare_as, step, finished, *forwards)


def usual_preparation(image_shape: tuple[int, ...], class_names: Sequence[str]) -> str:
    """The `prepare_as` of a run: "auto" if it reads characters, otherwise "picture"."""
    reads = image_shape == (SIDE, SIDE, 1) and all(len(name) == 1 for name in class_names)
    return "auto" if reads else "picture"


def best_classes(row: np.ndarray, labels: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The most probable classes of a picture; of equal ones, the first comes first."""
    values, order = row.tolist(), np.argsort(-row, kind="stable")[:top].tolist()
    return [{"label": labels[k], "probability": values[k]} for k in order]


def compile_network(
    config: Config,
    model: Chain,
    of: Callable[[jax.Array], jax.Array] = jax.nn.softmax,
    views: Sequence[str] = (),
) -> Callable[[Any, np.ndarray], jax.Array]:
    """The network, compiled for each batch size it receives: (params, images) → probabilities.

    `of` computes them from the logits; log_softmax gives their logarithms, and the identity gives
    the logits. The logits are averaged over `views`, which are names of `training.crops.VIEWS`.
    """
    apply = with_views(model.apply, views) if views else model.apply

    def probabilities(params, images):
        logits = apply({"params": params}, to_input(config, images))
        return of(jnp.asarray(logits, jnp.float32))

    return jax.jit(probabilities, compiler_options=compiler_options(default_platform()))


def create_predictor(
    config: Config, data: Dataset, state: TrainState, finished: bool, engine: str = "jax"
) -> Predictor:
    """The network at this point of a training; further steps do not change it."""
    params = jax.tree.map(np.array, jax.device_get(state.params))
    model, step = create_model(config, data.num_classes), int(state.step)
    trained = TrainedNetwork(
        config, model, params, data.image_shape, data.class_names, step, finished
    )
    return to_predictor(trained, engine=engine)
