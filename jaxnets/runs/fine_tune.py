"""--init_from=RUN: a new run that begins with the weights of another one."""

import os
from typing import Any

from jaxnets.display import short_path
from jaxnets.errors import UserError
from jaxnets.runs.checkpoints import path_of
from jaxnets.runs.resume import read_config
from jaxnets.runs.run_folder import CHECKPOINTS, CONFIG, RunFolder

# The settings with which the weights were trained, and which they need again.
BROUGHT = ("model", "hidden", "activation", "dropout", "input_size", "normalize")


def with_weights_of_run(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags, with init_from naming the last checkpoint where it names a run.

    The run brings its network's settings, and the size to which pictures are decoded; flags that
    are given stay.

    Raises:
      UserError: The folder holds no run, or one that has not been trained.
    """
    path = os.path.expanduser(flags["init_from"])
    if not os.path.exists(os.path.join(path, CONFIG)):
        return flags
    folder = RunFolder.open(path)
    config, steps = read_config(folder), folder.steps
    if not any(steps):
        raise UserError(f"init_from: expected a trained run, found no checkpoint in {path}")
    brought: dict[str, Any] = {}
    if flags.get("model", config.model) == config.model:
        brought |= {name: x for name in BROUGHT if (x := getattr(config, name)) is not None}
    shape = folder.read(CONFIG).get("image_shape")
    if isinstance(shape, list) and shape:  # It may be untrusted; Config checks the size.
        brought["decode_size"] = shape[0]
    file = short_path(str(path_of(folder.path / CHECKPOINTS, steps[-1])))
    return {**brought, **flags, "init_from": file}
