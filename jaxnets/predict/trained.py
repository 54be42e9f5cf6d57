"""The network of a trained run, read from its folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.data.datasets import MAX_CLASSES
from jaxnets.machine.platform import set_up_jax
from jaxnets.models.chain import Chain
from jaxnets.networks.create import create_model
from jaxnets.runs.request import read_config
from jaxnets.runs.run_folder import CONFIG, RunFolder
from jaxnets.training.crops import center_crop
from jaxnets.training.step import to_float

MAX_SIDE = 4096  # The largest image side that a config.json may have.


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A run's network with its parameters."""

    config: Config
    model: Chain
    params: Any  # Each layer's arrays, as `model.init` gives them.
    # (H, W, C) of the training images, before crops; (D,) of rows.
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]  # K texts from files: escape them wherever you show them.
    step: int  # The number of training steps.
    finished: bool
    data_sha256: str | None = None  # Of the data that it was trained on, as the run's files say.


def load_network(workdir: str, *, takes_rows: bool = False) -> TrainedNetwork:
    """Loads a run's network from its last checkpoint; the data set is not needed.

    Args:
      workdir: The folder of a finished or an interrupted run.
      takes_rows: Whether the run may be one on a table, which has no pictures to show.

    Raises:
      UserError: The folder holds no run, a damaged one, or no checkpoint yet.
    """
    folder = RunFolder.open(workdir)
    config = read_config(folder)
    image_shape, class_names = _form(folder)
    if len(image_shape) == 1 and not takes_rows:
        size = image_shape[0]
        raise UserError(
            "{}: expected a run on pictures, got one on rows of {} numbers", workdir, size
        )
    checksum = folder.read(CONFIG).get("data_sha256")
    set_up_jax(None, config.precision)
    model = create_model(config, len(class_names), draws=False)
    like = _params_like(folder, config, model, image_shape)
    step, params = folder.read_params(like)
    return TrainedNetwork(
        config, model, params, image_shape, class_names, step, folder.finished, checksum
    )


def to_input(config: Config, images: Any) -> Any:
    """The network's input for images in the data set's format, as in an evaluation."""
    return to_float(center_crop(images, config.input_size))


def _form(folder: RunFolder) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Reads the images' shape and the classes' names from config.json, which may be untrusted."""
    written, where = folder.read(CONFIG), folder.path / CONFIG
    shape, count = written.get("image_shape"), written.get("num_classes")
    if shape is None or count is None:
        raise UserError(
            "{}: no image_shape and num_classes: an earlier version of jaxnets wrote the "
            "run; train it again",
            where,
        )
    sizes = shape if isinstance(shape, list) and len(shape) in (1, 3) else [0]
    is_form = all(type(n) is int and 1 <= n <= MAX_SIDE for n in sizes)
    if not is_form or (len(sizes) == 3 and sizes[2] not in (1, 3)):
        raise UserError(
            "{}: image_shape: expected [H, W, 1 or 3] or [D], found {}", where, repr(shape)
        )
    if type(count) is not int or not 2 <= count <= MAX_CLASSES:
        raise UserError(
            "{}: num_classes: expected 2 to {}, found {}", where, MAX_CLASSES, repr(count)
        )
    names = written.get("class_names", [str(number) for number in range(count)])
    if not isinstance(names, list) or [type(name) for name in names] != [str] * count:
        raise UserError(
            "{}: class_names: expected {} texts, found {}", where, count, f"{names!r:.80}"
        )
    return tuple(sizes), tuple(names)


def _params_like(
    folder: RunFolder, config: Config, model: Chain, image_shape: tuple[int, ...]
) -> Any:
    """The parameters' shapes; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    try:
        like = jax.eval_shape(lambda x: model.init(jax.random.key(0), to_input(config, x)), image)
        if all(leaf.size for leaf in jax.tree.leaves(like)):
            return like["params"]
    except Exception:  # What Flax makes of settings that do not fit, which may be anyone's.
        pass
    raise UserError("{}: damaged: no {} takes {}", folder.path / CONFIG, config.model, image_shape)
