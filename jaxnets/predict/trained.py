"""The network of a trained run, read from its folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.machine.platform import set_up_jax
from jaxnets.models.chain import Chain
from jaxnets.networks.create import create_model
from jaxnets.runs.request import data_form, read_config
from jaxnets.runs.run_folder import CONFIG, RunFolder
from jaxnets.training.crops import center_crop
from jaxnets.training.pixels import to_float


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
      takes_rows: Whether the run may be on a table, which has no pictures to show.

    Raises:
      UserError: The folder holds no run, a damaged one, or no checkpoint yet.
    """
    folder = RunFolder.open(workdir)
    config = read_config(folder)
    image_shape, class_names = data_form(folder)
    if len(image_shape) == 1 and not takes_rows:
        size = image_shape[0]
        raise UserError(
            "{}: expected a run on pictures, got one on rows of {} numbers", workdir, size
        )
    checksum = folder.read(CONFIG).get("data_sha256")
    set_up_jax(None, config.precision)
    model = create_model(config, len(class_names), draws=False)
    like = params_like(folder, config, model, image_shape)
    step, params = folder.read_params(like)
    return TrainedNetwork(
        config, model, params, image_shape, class_names, step, folder.finished, checksum
    )


def to_input(config: Config, images: Any) -> Any:
    """The network's input for images in the data set's format, as in an evaluation."""
    return to_float(center_crop(images, config.input_size))


def params_like(
    folder: RunFolder, config: Config, model: Chain, image_shape: tuple[int, ...]
) -> Any:
    """The parameters' shapes; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    try:
        like = jax.eval_shape(lambda x: model.init(jax.random.key(0), to_input(config, x)), image)
        if all(leaf.size for leaf in jax.tree.leaves(like)):
            return like["params"]
    except Exception:  # Flax raises anything for settings that do not fit.
        pass
    raise UserError("{}: damaged: no {} takes {}", folder.path / CONFIG, config.model, image_shape)
